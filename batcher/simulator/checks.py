"""Checks of values read from a script: each returns what is wrong in words, or None."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from typing import Any

Check = Callable[[Any], str | None]


def unknown_keys(mapping: dict[Any, Any], known: Collection[str]) -> Iterator[str]:
    """A problem for each key that is not known, with the nearest one that is."""
    for key in mapping:
        if key not in known:
            from batcher.config.document import did_you_mean  # takes a while to import, and most scripts are right

            yield f"unknown key '{key}'" + (did_you_mean(str(key), known) or f"; known are {', '.join(known)}")


def whole(least: int, greatest: float = math.inf) -> Check:
    """A whole number in a range."""

    def check(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "must be a whole number"
        return _range_problem(value, least, greatest)

    return check


def number(least: float, greatest: float) -> Check:
    """A number in a range."""

    def check(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "must be a number"
        return _range_problem(value, least, greatest)

    return check


def one_of(*choices: str) -> Check:
    """One of the given words."""
    return lambda value: None if value in choices else f"must be one of {', '.join(choices)}"


def yes(value: Any) -> str | None:
    """`true`; to say no, leave the key out."""
    return None if value is True else "must be true, or be left out"


def text(value: Any) -> str | None:
    """A string that is not empty."""
    return None if isinstance(value, str) and value else "must be a text; quote it if it is one"


def text_or_null(value: Any) -> str | None:
    """A string or null."""
    return None if value is None or isinstance(value, str) else "must be a text or null"


def text_or_whole(value: Any) -> str | None:
    """A string or a whole number, as error codes are."""
    return None if isinstance(value, str | int) and not isinstance(value, bool) else "must be a text or a whole number"


def header_value(value: Any) -> str | None:
    """What can stand in an HTTP header."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return "must be a text or a number"
    return None if str(value).isprintable() and str(value).isascii() else "must be printable ASCII"


def _range_problem(value: float, least: float, greatest: float) -> str | None:
    if least <= value <= greatest:
        return None
    return f"must be at least {least:g}" if greatest == math.inf else f"must be from {least:g} to {greatest:g}"
