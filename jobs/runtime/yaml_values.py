"""Values from YAML files that users write: job files and policies. The type that is wanted decides how a value is read.

YAML guesses from the look of a value: `2:8` would be the number 128, `no` would be false, and `1e-3` a text. Here the
caller says which type it wants, so `2:8` stays a text where a text is wanted. Every error is a `UsageError` of one line
with the file's name and the line number.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

from jobs.runtime.errors import UsageError

_NULLS = ("", "~", "null", "Null", "NULL")
_BOOLS = {"true": True, "false": False}
#: YAML's spelling of the floats that Python spells without the dot
_FLOATS = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
#: tags that YAML gives by itself; a tag that the file sets, such as `!include`, is none of them
_OWN_TAGS = "tag:yaml.org,2002:"
#: known names that a message lists, where none is near
_NAMES_SHOWN = 12


@dataclass(frozen=True)
class Value:
    """One value of a file: its YAML node, the name of the file, and the key that the value stands under."""

    node: yaml.Node
    file: str
    key: str = ""

    def error(self, message: str) -> UsageError:
        """A `UsageError` that says where in the file the value stands."""
        where = f"{self.file}, line {self.node.start_mark.line + 1}"
        return UsageError(f"{where}: {self.key + ': ' if self.key else ''}{message}")

    @property
    def is_null(self) -> bool:
        """Whether the value was left out (`key:`, `key: null`). In quotes the word null is a text."""
        node = self.node
        return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _NULLS

    def entries(self) -> dict[str, Value]:
        """The values of a mapping by their keys. Raises `UsageError` for anything else, and for a key given twice."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error("must be a mapping, with lines such as `key: value`")
        found: dict[str, Value] = {}
        for key_node, node in self.node.value:
            key = Value(key_node, self.file, self.key).text()
            if key in found:
                raise Value(key_node, self.file, self.key).error(f"{key!r} is given twice")
            found[key] = Value(node, self.file, f"{self.key}.{key}" if self.key else key)
        return found

    def items(self) -> list[Value]:
        """The values of a list. Raises `UsageError` for anything else."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error("must be a list, such as [one, two]")
        return [Value(node, self.file, self.key) for node in self.node.value]

    def text(self) -> str:
        """The value as it stands in the file. Raises `UsageError` for a list, a mapping, a null or a tag."""
        if not self.node.tag.startswith(_OWN_TAGS):
            raise self.error(f"the tag {self.node.tag} has no meaning here")
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.error(f"must be a single value, not a {self.node.id}")
        if self.is_null:
            raise self.error("has no value")
        return str(self.node.value)

    def typed(self, kind: Any) -> Any:
        """The value as this type: str, int, float, bool, a Literal of texts, a tuple of these, or any of them or None.

        Raises `UsageError` where it is not of that type.
        """
        if get_origin(kind) is Annotated:
            return self.typed(get_args(kind)[0])
        if get_origin(kind) in (Union, types.UnionType):
            (inner,) = [part for part in get_args(kind) if part is not type(None)]
            return None if self.is_null else self.typed(inner)
        if get_origin(kind) is tuple:
            return tuple(item.typed(get_args(kind)[0]) for item in self.items())
        return self._scalar(kind)

    def _scalar(self, kind: Any) -> Any:
        text = self.text()
        if kind is str:
            return text
        if get_origin(kind) is Literal:
            choices = [str(choice) for choice in get_args(kind)]
            if text not in choices:
                raise self.error(f"unknown value {text!r}; {nearest(text, choices)}")
            return text
        if kind is bool:
            if text.lower() not in _BOOLS:
                raise self.error(f"must be true or false, not {text!r}")
            return _BOOLS[text.lower()]
        try:
            return int(text) if kind is int else float(_FLOATS.get(text.lower(), text))
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise self.error(f"must be {what}, not {text!r}") from None


def parse_yaml(data: bytes, file: str) -> Value:
    """The content of a YAML file; nothing in it is executed. Raises `UsageError` where it is no YAML, or empty."""
    try:
        node = yaml.compose(data.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError:
        raise UsageError(f"{file}: not a text file in UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        raise UsageError(f"{file}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{file}: not valid YAML: {reason}") from None
    if node is None:
        raise UsageError(f"{file}: the file is empty")
    return Value(node, file)


def nearest(word: str, known: Iterable[str]) -> str:
    """What to say after an unknown word: the known one that is most like it, or all of them."""
    names = list(known)
    by_spelling = {name.lower().replace("-", "_"): name for name in names}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), by_spelling, n=1, cutoff=0.6)
    if close:
        return f"did you mean {by_spelling[close[0]]!r}?"
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return f"there are: {', '.join(names[:_NAMES_SHOWN])}{more}"
