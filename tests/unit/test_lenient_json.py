"""JSON that strict parsers refuse, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.completion.lenient_json import NotJsonError, dumps, loads


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (rb'{"a": "\ud83d"}', {"a": "\ufffd"}),  # half a pair, the first
        (rb'{"a": "\uDE00 x"}', {"a": "\ufffd x"}),  # half a pair, the second
        (rb'{"a": "\ud83d\ud83d\ude00"}', {"a": "\ufffd\U0001f600"}),  # a half before a whole pair
        (rb'{"a": "\ud83d\n"}', {"a": "\ufffd\n"}),  # a half before another escape
        (rb'{"a": "\\ud83d", "b": "\ud83d"}', {"a": "\\ud83d", "b": "\ufffd"}),  # an escaped backslash is no escape
        (rb'{"\ud83d": 1}', {"\ufffd": 1}),  # in a key
        (b'{"a": "\xff"}', {"a": "\ufffd"}),  # not UTF-8
        (b'{"a": "\xed\xa0\xbd"}', {"a": "\ufffd\ufffd\ufffd"}),  # a surrogate as bytes
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),  # a byte order mark
        (b'{"a": "x\ny\x00"}', {"a": "x\ny\x00"}),  # raw control characters
        (b'{"a": NaN, "b": -Infinity, "c": 1e999}', {"a": None, "b": None, "c": None}),
        (b'{"a": ' + b"9" * 5000 + b"}", {"a": None}),
        (b'{"a": NaN, "b": 123456789012345678901234567890}', {"a": None, "b": 1.2345678901234568e29}),
        (b'{"a": NaN, "b": 9223372036854775807}', {"a": None, "b": 9223372036854775807}),
        (b'{"a": 1, "a": 2}', {"a": 2}),  # the last of two equal keys
        (b'\n\n  \r\n{"a": 1}\n', {"a": 1}),  # keep-alives
    ],
)
def test_what_strict_json_refuses_is_mended(data: bytes, value: Any) -> None:
    """An answer that was paid for is read as far as it can be, and holds nothing that Arrow cannot store."""
    assert loads(data) == value
    text = dumps(value)
    assert text is not None
    text.encode()


@pytest.mark.parametrize(
    ("data", "truncated"),
    [
        (b"", True),
        (b" \r\n\r\n", True),
        (b'{"a": 1', True),
        (b'{"a": "x', True),
        (b'{"a": "x}', True),  # the bracket is within the string
        (b'{"a": "x\\', True),
        (b'{"a": tru', True),
        (b'{"a": "\xe2\x82', True),  # cut within a character
        (b"[" * 200_000, True),
        (b'{"a":' * 200_000, True),
        (b"[" * 200_000 + b"]" * 200_000, False),  # deeper than any parser goes
        (b'{"a": nope}', False),
        (b'{"a": 1}{"a": 2}', False),
        (b"<html>{", False),
        (b"upstream connect error", False),
        ('{"a": 1}'.encode("utf-16"), False),
    ],
)
def test_broken_json_is_told_apart_from_json_cut_short(data: bytes, truncated: bool) -> None:
    """What is cut short may have been paid for; what never was JSON is something else."""
    with pytest.raises(NotJsonError) as caught:
        loads(data)
    assert caught.value.truncated is truncated


def test_deep_values_are_written_or_left_out_but_do_not_raise() -> None:
    """orjson writes 254 levels; more than that goes the slow way, and what no writer manages is None."""
    shallow: Any = "\u00e9"
    for _ in range(300):
        shallow = [shallow]
    assert dumps(shallow) == "[" * 300 + '"\u00e9"' + "]" * 300
    deep: Any = shallow
    for _ in range(100_000):
        deep = [deep]
    assert dumps(deep) is None
