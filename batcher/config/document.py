"""Values that remember where they were written, and the problems found in them.

A `Document` collects problems instead of raising the first, so that a user sees all of them at once, each with its
place; and it has the words to say what is wrong with a value. It does not know YAML, nor what the keys mean.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from operator import itemgetter
from typing import Any, Final

#: the keys and list positions that lead to a value
KeyPath = tuple[str | int, ...]

_KEY_LIKE: Final = re.compile(r"\b(sk|pk|rk|gsk|xai|hf|ghp)[-_][A-Za-z0-9_-]{12,}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written."""

    #: the file as the user named it, or the override that brought the value
    source: str
    #: from 1; 0 for an override
    line: int = 0
    column: int = 0
    #: the source is an option of a command that stands for this one key, which need not be named again
    is_option: bool = False

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(slots=True)
class Document:
    """The values of a YAML file and the problems met so far; no values means that nothing could be read."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    #: values that hold the text of an environment variable, which no message may show
    from_variables: set[KeyPath] = field(default_factory=set)
    _problems: list[tuple[tuple[bool, int, int], str]] = field(default_factory=list)
    _reported: set[KeyPath] = field(default_factory=set)

    def place(self, path: KeyPath) -> Place:
        """Return where `path` was written; of something that was not written, where it would belong."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path) or Place(self.name, 1, 1)

    def report(self, path: KeyPath, message: str) -> None:
        """Note a problem of the value at `path`; of several only the first, since the others follow from it."""
        if path in self._reported:
            return
        self._reported.add(path)
        place = self.place(path)
        said = (
            not path or place.source.startswith(f"--set {dotted(path)}=") or (place.is_option and path in self.places)
        )
        self.report_at(place, message if said else f"{dotted(path)}: {message}")

    def report_at(self, place: Place, message: str) -> None:
        """Note a problem at a place that belongs to no value."""
        order = (place.source != self.name, place.line, place.column)
        self._problems.append((order, mask(f"{place}: {message}")))

    def problems(self) -> list[str]:
        """Return one line per problem, in the order of the file, those of overrides last."""
        return list(dict.fromkeys(line for _, line in sorted(self._problems, key=itemgetter(0))))

    def value(self, path: KeyPath) -> Any:
        """Return the value at `path`, None if there is none."""
        found: Any = self.values
        for step in path:
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def texts(self) -> list[tuple[KeyPath, str]]:
        """Return every text value with its path."""
        return list(_texts(self.values, ()))


def _texts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, index))


def dotted(path: KeyPath) -> str:
    """Write a path as messages show it: `input.path[1]`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def mask(text: str) -> str:
    """Hide what looks like an API key."""
    return _KEY_LIKE.sub("***", text)


def key_like(text: str) -> bool:
    """Whether text looks like an API key rather than like the name of one."""
    letters_and_digits = text.isalnum() and any(c.isdigit() for c in text) and any(c.isalpha() for c in text)
    return bool(_KEY_LIKE.search(text)) or (len(text) >= 24 and letters_and_digits)


def kind_of(value: Any) -> str:
    """Name the kind of a value in the user's words."""
    if value is None:
        return "no value"
    if isinstance(value, bool):
        return "true" if value else "false"
    kinds: dict[type, str] = {str: "text", int: "a number", float: "a number", dict: "a mapping", list: "a list"}
    return kinds.get(type(value), "another kind of value")


def mismatch(expected: str, value: Any) -> str:
    """Say that a value is of the wrong kind, and name the YAML habit that made it so."""
    if expected == "text" and isinstance(value, bool | int | float):
        return f"is read as {kind_of(value)}; quote it to mean text"
    if expected.startswith(("a number", "an integer")) and isinstance(value, str) and (number := _plain_number(value)):
        return f"expected {expected}, found text; write {number}" + (" without quotes" if number == value else "")
    hint = "; leave the key out, or give it one" if value is None else ""
    return f"expected {expected}, found {kind_of(value)}{hint}"


def _plain_number(text: str) -> str | None:
    """Return the number in a text in the one notation that YAML reads as a number, None if it is none."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return f"{number:f}" if number.is_finite() and abs(number.adjusted()) < 20 else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean '{near[0]}'?" if near else ""
