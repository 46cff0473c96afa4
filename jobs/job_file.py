"""Job files: the options of a command in a YAML file, which stands in git or is mounted into a cluster.

    yolact label job.yaml --num-actors 4     # flags override what the file says

A job file has the key `command`, and a key for each option: the name of the option's field in the config class. Options
that the file leaves out have their defaults, or come from flags. The JSON Schema for editors is made from the same
classes. This file imports nothing heavy.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
import yaml

from jobs.runtime.errors import UsageError
from jobs.runtime.yaml_values import nearest, parse_yaml
from jobs.storage.given_file import read_given_file

#: a first argument that ends so is a job file, and never an input
_EXTENSIONS = (".yaml", ".yml")
#: the key of a job file that names its command
_COMMAND = "command"

#: what `--help` of every command says of job files
HELP = """Options may also stand in a job file: yolact COMMAND JOB.yaml [OPTIONS]. The first argument is a job file if
its name ends in .yaml or .yml, and an input otherwise. A folder whose name ends so is an input with a slash behind it.
Flags override the file. --print-job prints the job file of these options and does nothing else."""


def is_job_file(argument: str) -> bool:
    """Whether an argument names a job file. Its spelling alone decides, not what there is on the disk."""
    return argument.lower().endswith(_EXTENSIONS)


def read_job(uri: str, command: str, config_class: type) -> Any:
    """The config that a job file gives. A field without a default that the file leaves out is `tyro.MISSING`.

    Args:
        uri: path or any fsspec URI.
        command: the command that the file must be for.
        config_class: the config class of the command.

    Raises:
        UsageError: if there is no such file, or if it has a key or a value that the command does not take.
        JobError: if the store does not answer.
    """
    entries = parse_yaml(read_given_file(uri, "job file"), uri).entries()
    if _COMMAND not in entries:
        raise UsageError(f"{uri}: the key command is missing; write `command: {command}` into it")
    if (named := entries.pop(_COMMAND).text()) != command:
        raise UsageError(f"{uri}: this job file is for yolact {named}, not for yolact {command}")
    kinds = get_type_hints(config_class, include_extras=True)
    values: dict[str, Any] = {}
    for key, value in entries.items():
        if key not in kinds:
            raise value.error(f"yolact {command} has no such option; {nearest(key, kinds)}")
        values[key] = value.typed(kinds[key])
    for field in fields(config_class):
        if field.name not in values and field.default is MISSING:
            values[field.name] = tyro.MISSING
    return config_class(**values)


def write_job(command: str, config: Any) -> str:
    """The job file of a config: its command, and the options whose values are not the defaults."""
    values: dict[str, Any] = {_COMMAND: command}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.default is MISSING or value != field.default:
            values[field.name] = list(value) if isinstance(value, tuple) else value
    # PyYAML writes some line breaks of Unicode (U+0085) as they are, and reads a space; escaped they come back
    readable = all(character.isprintable() for character in _texts(values.values()))
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=readable, default_flow_style=False, width=1000)
    return f"# run it: yolact {command} FILE.yaml    all options: yolact {command} --help\n{text}"


def _texts(values: Iterable[Any]) -> str:
    """All texts among the values, one after the other."""
    parts = (part for value in values for part in (value if isinstance(value, list) else [value]))
    return "".join(part for part in parts if isinstance(part, str))


def check_positionals(config: Any, command: str) -> None:
    """Raise `UsageError` where an input reads like a job file that does not stand first."""
    for name, kind in get_type_hints(type(config), include_extras=True).items():
        if tyro.conf.Positional in get_args(kind)[1:]:
            value = getattr(config, name)
            for text in value if isinstance(value, tuple) else (value,):
                if is_job_file(text):
                    raise UsageError(f"{text}: a job file stands first: yolact {command} {text} …")


def job_schema(config_classes: Mapping[str, type]) -> dict[str, Any]:
    """The JSON Schema of job files, for editors. `config_classes` is the config class of each command."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Job file of yolact",
        "type": "object",
        "required": [_COMMAND],
        "properties": {_COMMAND: {"enum": list(config_classes)}},
        "oneOf": [{"$ref": f"#/definitions/{command}"} for command in config_classes],
        "definitions": {command: _config_schema(command, kind) for command, kind in config_classes.items()},
    }


def schema_text(config_classes: Mapping[str, type]) -> str:
    """`job_schema` as the text of its file."""
    return json.dumps(job_schema(config_classes), indent=1, ensure_ascii=False) + "\n"


def _config_schema(command: str, config_class: type) -> dict[str, Any]:
    helps = _docstrings_of_fields(config_class)
    kinds = get_type_hints(config_class, include_extras=True)
    properties: dict[str, Any] = {_COMMAND: {"const": command}}
    for field in fields(config_class):
        schema = _type_schema(kinds[field.name])
        if text := _help_in(kinds[field.name]) or helps.get(field.name, ""):
            schema["description"] = text
        if field.default is not MISSING and field.default is not None:
            schema["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
        properties[field.name] = schema
    return {"type": "object", "required": [_COMMAND], "properties": properties, "additionalProperties": False}


def _type_schema(kind: Any) -> dict[str, Any]:
    """The schema of what `Value.typed` reads as this type."""
    if get_origin(kind) is Annotated:
        return _type_schema(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        (inner,) = [part for part in get_args(kind) if part is not type(None)]
        return {"anyOf": [_type_schema(inner), {"type": "null"}]}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _type_schema(get_args(kind)[0])}
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    # an editor takes `num_actors: 2` for a number, while the reader takes it for the text that is wanted
    names = {str: ["string", "number", "boolean"], int: "integer", float: "number", bool: "boolean"}
    return {"type": names[kind]}


def _help_in(kind: Any) -> str:
    """The help that stands in the type of an option that several commands share, or ""."""
    return next((part.help for part in get_args(kind)[1:] if getattr(part, "help", None)), "")


def _docstrings_of_fields(config_class: type) -> dict[str, str]:
    """The text that stands below each field of a class, as tyro shows it in `--help`."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(config_class))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for before, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name):
            match after:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    found[before.target.id] = " ".join(text.split())
    return found
