"""JSON Lines: the lines of a stream, and the values of a line.

Reading is exact: a number that does not fit 64 bits keeps its digits, and what is not JSON by its standard (NaN, half
a surrogate pair) is refused. Memory is bounded by the longest line allowed. Does not know files, shards or columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

#: a line longer than this, its newline included, is no row
MAX_LINE_BYTES = 64 << 20

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: orjson reads a longer integer as a float
_INTEGER_LIMIT = 2.0**63
_MAY_HOLD_FLOAT = frozenset((float, list, dict))


@dataclass(frozen=True, slots=True)
class TooLong:
    """A line that was passed over for its length."""

    size_bytes: int


class Readable(Protocol):
    """What lines are read from."""

    def read(self, size_bytes: int, /) -> bytes:
        """Return up to that many bytes; none at the end."""


def whole_lines(stream: Readable, *, block_bytes: int) -> Iterator[bytes | TooLong]:
    """Yield all of `stream` in pieces that end with a line; a line that is too long is a piece of its own.

    A piece is about `block_bytes`, more only where one line is. Which lines are too long does not depend on it.
    """
    pieces: list[bytes] = []  # of the line that has begun; dropped as soon as it is too long
    held = 0
    while block := stream.read(min(block_bytes, MAX_LINE_BYTES)):
        first = block.find(b"\n") + 1
        held += first or len(block)
        if held > MAX_LINE_BYTES:
            pieces.clear()
        if not first:
            if held <= MAX_LINE_BYTES:
                pieces.append(block)
            continue
        last = block.rfind(b"\n") + 1
        if held > MAX_LINE_BYTES:
            yield TooLong(held)
            if last > first:
                yield block[first:last]
        else:
            yield b"".join((*pieces, memoryview(block)[:last]))
        pieces = [block[last:]]
        held = len(block) - last
    if held > MAX_LINE_BYTES:
        yield TooLong(held)
    elif held:
        yield b"".join(pieces)


def split_lines(piece: bytes) -> list[bytes]:
    """Return the lines of a piece without their newlines."""
    lines = piece.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def parse_all(lines: Iterable[bytes]) -> list[dict[str, Any]] | None:
    """Return the values of each line, fast; None if a line is anything but an object. Long integers come as floats."""
    try:
        rows = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        return None
    return rows if {dict}.issuperset(map(type, rows)) else None


def parse(line: bytes | TooLong) -> dict[str, Any] | str | None:
    """Return the line's values, or what is wrong with it in words that show nothing of it, or None if it is blank."""
    if isinstance(line, TooLong):
        return f"longer than {MAX_LINE_BYTES >> 20} MiB"
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _why_not(line)
    if type(values) is not dict:
        return "not a JSON object"
    if _MAY_HOLD_FLOAT.isdisjoint(map(type, values.values())) or not _has_far_float(values):
        return values
    try:
        return json.loads(line.decode())  # type: ignore[no-any-return] # keeps the digits of long integers
    except RecursionError:
        return "nested too deeply"


def is_far(low: float, high: float) -> bool:
    """A float between the two may have been written as an integer that does not fit 64 bits."""
    return low <= -_INTEGER_LIMIT or high >= _INTEGER_LIMIT


def _has_far_float(values: dict[str, Any]) -> bool:
    stack = list(values.values())
    while stack:
        value = stack.pop()
        kind = type(value)
        if kind is float:
            if is_far(value, value):
                return True
        elif kind is list:
            stack.extend(value)
        elif kind is dict:
            stack.extend(value.values())
    return False


def _why_not(line: bytes) -> str | None:
    if not line.strip():
        return None
    try:
        line.decode()
    except UnicodeDecodeError:
        return "not valid UTF-8"
    return "not valid JSON"
