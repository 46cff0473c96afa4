"""Policy files: YAML that says which classes are wanted, under which names, and from which score and area on.

    keep: [person, car, dog]

docs/policy.md describes the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobs.runtime.errors import UsageError
from jobs.runtime.yaml_values import Value, nearest, parse_yaml
from jobs.storage.given_file import read_given_file
from jobs.table.policy import ClassRule, Policy

_KEYS = ("keep", "drop", "rename", "merge", "score_threshold", "min_area", "classes")
_LIMITS = ("score_threshold", "min_area")


@dataclass(frozen=True)
class PolicyFile:
    """A policy as its file has it: checked as far as this is possible without the classes that it is for."""

    uri: str
    keep: tuple[str, ...] | None
    """the classes that stay; None where the file has no `keep`"""
    drop: tuple[str, ...]
    new_names: Mapping[str, str]
    """old name → new name, of `rename` and `merge` together"""
    merged: frozenset[str]
    """the new names that several classes may share"""
    score_threshold: float | None
    min_area: int
    limits: Mapping[str, tuple[float | None, int | None]]
    """by class: score threshold and least area, None where the one for all classes holds"""
    mentions: tuple[tuple[str, Value], ...]
    """every old name in the file, and where it stands"""

    def resolve(self, class_names: Iterable[str], what: str, score_threshold: float | None = None) -> Policy:
        """The policy for these classes.

        Args:
            class_names: of the model, table or data set.
            what: what has these classes, for messages.
            score_threshold: of the classes for which the file has none.

        Raises:
            UsageError: if the file names a class that is not there, keeps none, or gives two classes one name.
        """
        known = tuple(class_names)
        for name, value in self.mentions:
            if name not in known:
                raise value.error(f"{what} has no class {name!r}; {nearest(name, known)}")
        kept = [name for name in known if name not in self.drop and (self.keep is None or name in self.keep)]
        if not kept:
            raise UsageError(f"{self.uri}: this policy drops every class of {what}")
        default = score_threshold if self.score_threshold is None else self.score_threshold
        rules = []
        for name in kept:
            threshold, area = self.limits.get(name, (None, None))
            rules.append(
                ClassRule(
                    name,
                    self.new_names.get(name, name),
                    default if threshold is None else threshold,
                    self.min_area if area is None else area,
                )
            )
        self._refuse_one_name_for_two(rules)
        return Policy(known, tuple(rules), keeps_others=self.keep is None)

    def _refuse_one_name_for_two(self, rules: Iterable[ClassRule]) -> None:
        first: dict[str, str] = {}
        for rule in rules:
            other = first.setdefault(rule.name, rule.source)
            both_merged = rule.name in self.merged and rule.source in self.new_names and other in self.new_names
            if other != rule.source and not both_merged:
                raise UsageError(
                    f"{self.uri}: {other!r} and {rule.source!r} would both be {rule.name!r}; to join them, write "
                    f"`merge: {{{rule.name}: [{other}, {rule.source}]}}`"
                )


def read_policy(uri: str) -> PolicyFile:
    """Read and check a policy file. Raises `UsageError`, and `JobError` where the store does not answer."""
    root = parse_yaml(read_given_file(uri, "policy"), uri)
    entries = root.entries()
    for key, value in entries.items():
        if key not in _KEYS:
            raise value.error(f"a policy has no such key; {nearest(key, _KEYS)}")
    if "keep" in entries and "drop" in entries:
        raise entries["drop"].error("a policy has keep or drop, not both")
    keep, drop = (_names(entries.get(key)) for key in ("keep", "drop"))
    renamed, merged = _new_names(entries)
    limits = _limits_by_class(entries.get("classes"))
    described = {name: value for found in (renamed, limits) for name, (value, _) in found.items()}
    for name, value in described.items():
        if name in drop or ("keep" in entries and name not in keep):
            raise value.error(f"the policy drops {name!r}, so it can have neither a new name nor limits")
    for_all = _limits(entries)
    return PolicyFile(
        uri,
        tuple(keep) if "keep" in entries else None,
        tuple(drop),
        {name: new for name, (_, new) in renamed.items()},
        merged,
        for_all[0],
        for_all[1] or 0,
        {name: found for name, (_, found) in limits.items()},
        (*keep.items(), *drop.items(), *described.items()),
    )


def _names(value: Value | None) -> dict[str, Value]:
    """The class names of a list, and where each stands."""
    if value is None:
        return {}
    found: dict[str, Value] = {}
    for item in value.items():
        if item.text() in found:
            raise item.error(f"{item.text()!r} is given twice")
        found[item.text()] = item
    return found


def _new_names(entries: Mapping[str, Value]) -> tuple[dict[str, tuple[Value, str]], frozenset[str]]:
    """Old name → where it stands and its new name; and the names that `merge` gives."""
    found: dict[str, tuple[Value, str]] = {}
    rename = entries["rename"].entries() if "rename" in entries else {}
    for name, value in rename.items():
        found[name] = (value, value.text())
    merge = entries["merge"].entries() if "merge" in entries else {}
    for new, value in merge.items():
        for name, item in _names(value).items():
            if name in found:
                raise item.error(f"{name!r} has two new names, {found[name][1]!r} and {new!r}")
            found[name] = (item, new)
    return found, frozenset(merge)


def _limits_by_class(value: Value | None) -> dict[str, tuple[Value, tuple[float | None, int | None]]]:
    found: dict[str, tuple[Value, tuple[float | None, int | None]]] = {}
    for name, limits in (value.entries() if value is not None else {}).items():
        entries = limits.entries()
        for key, one in entries.items():
            if key not in _LIMITS:
                raise one.error(f"a class has no such key; {nearest(key, _LIMITS)}")
        found[name] = (limits, _limits(entries))
    return found


def _limits(entries: Mapping[str, Value]) -> tuple[float | None, int | None]:
    """Score threshold and least area of a mapping that may have them."""
    threshold = area = None
    if "score_threshold" in entries:
        threshold = entries["score_threshold"].typed(float)
        if not 0 <= threshold <= 1:
            raise entries["score_threshold"].error(f"must lie between 0 and 1, not {threshold}")
    if "min_area" in entries:
        area = entries["min_area"].typed(int)
        if area < 0:
            raise entries["min_area"].error(f"must be at least 0, not {area}")
    return threshold, area
