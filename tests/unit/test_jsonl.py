"""The lines of a stream and the values of a line."""

from __future__ import annotations

import io
import tracemalloc
from typing import Any

import pytest

from batcher.source import jsonl
from batcher.source.jsonl import TooLong, parse, parse_all, split_lines, whole_lines


class Endless:
    """A stream of one line of the given length."""

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes

    def read(self, size_bytes: int, /) -> bytes:
        size_bytes = min(size_bytes, self._left)
        self._left -= size_bytes
        return b"x" * size_bytes


def lines_of(text: bytes, block_bytes: int) -> list[bytes | TooLong]:
    lines: list[bytes | TooLong] = []
    for piece in whole_lines(io.BytesIO(text), block_bytes=block_bytes):
        lines += [piece] if isinstance(piece, TooLong) else split_lines(piece)
    return lines


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\n\nb\r\n", [b"a", b"", b"b\r"]),
        (b"123456\n1234567\n12345678\n1\n", [b"123456", b"1234567", TooLong(9), b"1"]),
        (b"1\n123456789", [b"1", TooLong(9)]),
        (b"12345678", [b"12345678"]),
    ],
)
def test_lines_do_not_depend_on_where_blocks_end(
    monkeypatch: pytest.MonkeyPatch, block_bytes: int, text: bytes, lines: list[bytes | TooLong]
) -> None:
    """The plan and the reader use blocks of different sizes and must see the same rows."""
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 8)
    assert lines_of(text, block_bytes) == lines


def test_a_line_without_end_is_not_held_in_memory() -> None:
    """A line of any length costs no more memory than the longest line allowed."""
    size_bytes = 40 * jsonl.MAX_LINE_BYTES
    tracemalloc.start()
    try:
        assert list(whole_lines(Endless(size_bytes), block_bytes=1 << 20)) == [TooLong(size_bytes)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * jsonl.MAX_LINE_BYTES


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"nonsense", "not valid JSON"),
        (b'{"secret": 1', "not valid JSON"),
        (b'{"secret": NaN}', "not valid JSON"),
        (b'{"secret": 1e999}', "not valid JSON"),
        (b'{"secret": "\\ud800"}', "not valid JSON"),
        (b'{"a": 1} {"b": 2}', "not valid JSON"),
        (b"\0", "not valid JSON"),
        (b'{"secret": "\xff"}', "not valid UTF-8"),
        (b'["secret"]', "not a JSON object"),
        (b'"secret"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (TooLong(99), "longer than 64 MiB"),
    ],
)
def test_a_bad_line_is_named_in_words_that_do_not_show_it(line: bytes, problem: str) -> None:
    """What is wrong goes into messages and outputs; the line itself may be private."""
    assert parse(line) == problem


@pytest.mark.parametrize("line", [b"", b"   ", b"\r", b"\t \r"])
def test_a_blank_line_is_no_row(line: bytes) -> None:
    """Blank lines, also those that a carriage return ends, stand between rows."""
    assert parse(line) is None


@pytest.mark.parametrize(
    ("line", "values"),
    [
        (b'{"a": 1, "b": null}\r', {"a": 1, "b": None}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": 18446744073709551616}', {"a": 2**64}),
        (b'{"a": -9223372036854775809}', {"a": -(2**63) - 1}),
        (b'{"a": {"b": [1, {"c": 123456789012345678901234567890}]}}', {"a": {"b": [1, {"c": int("1234567890" * 3)}]}}),
        (b'{"a": 1e300, "b": [1.5, 1e25]}', {"a": 1e300, "b": [1.5, 1e25]}),
        (b"{}", {}),
    ],
)
def test_values_are_exact(line: bytes, values: dict[str, Any]) -> None:
    """An integer keeps all digits wherever it stands, and stays an integer."""
    parsed = parse(line)
    assert parsed == values
    assert repr(parsed) == repr(values)


def test_a_long_integer_in_a_structure_too_deep_to_read_exactly_makes_the_line_bad() -> None:
    """A value is exact or refused, never rounded."""
    deep = b'{"a": ' + b"[" * 1000 + b"1" * 30 + b"]" * 1000 + b"}"
    assert parse(deep) == "nested too deeply"


@pytest.mark.parametrize("odd", [b"", b"[]", b"{", b"1"])
def test_fast_parsing_gives_up_on_anything_but_objects(odd: bytes) -> None:
    """The fast path never decides about a line that is not plainly a row."""
    assert parse_all([b'{"a": 1}', b"{}"]) == [{"a": 1}, {}]
    assert parse_all([b'{"a": 1}', odd]) is None
