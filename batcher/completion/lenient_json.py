"""JSON as it comes from a server: read strictly and fast, then tolerantly, because the answer may have been paid for.

Strict reading is orjson's. What it refuses is read a second time with these repairs, and only these: bytes that are not
UTF-8 and lone surrogates become U+FFFD (Arrow stores neither), a byte order mark is skipped, raw control characters are
allowed within strings, and numbers without a finite 64-bit form (`NaN`, `1e999`, 5000 digits) become null or a float.
So no value read here holds a lone surrogate or an integer that `dumps` refuses. It does not know what the JSON means.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

#: an escape within a string: a whole surrogate pair, half of one, or any other
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
#: a string, or what is there of one that the end of the text cuts off
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


class NotJsonError(ValueError):
    """The bytes are no JSON value."""

    def __init__(self, *, truncated: bool) -> None:
        #: they are the beginning of one
        self.truncated = truncated
        super().__init__("the JSON is cut short" if truncated else "not JSON")


def loads(data: bytes) -> Any:
    """Return the JSON value that `data` holds.

    Raises:
        NotJsonError: even the tolerant reading fails. No other exception leaves this function, whatever the bytes.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _loads_tolerantly(data)


def dumps(value: Any) -> str | None:
    """Return `value` as JSON text; None if it is nested too deeply to be written."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # from 255 levels on
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        except RecursionError:
            return None


def _loads_tolerantly(data: bytes) -> Any:
    text = data.decode("utf-8-sig", "replace").lstrip()
    if not text:
        raise NotJsonError(truncated=True)
    if text[0] not in "{[":  # no other JSON value is an answer, and most of what comes here is a web page
        raise NotJsonError(truncated=False)
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPE.sub(_mend_escape, text)
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        raise NotJsonError(truncated=_is_cut(text)) from None


def _mend_escape(match: re.Match[str]) -> str:
    return "\\ufffd" if match["lone"] else match[0]


def _is_cut(text: str) -> bool:
    """Whether more brackets are opened than closed outside of strings: the end is missing."""
    rest = _STRING.sub("", text)
    return rest.count("{") + rest.count("[") > rest.count("}") + rest.count("]")


def _integer(digits: str) -> int | float | None:
    if len(digits) <= 19:  # 64 bits; Python itself refuses to convert 4,300 digits and more
        return int(digits)
    return _finite(digits)


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


_DECODER = json.JSONDecoder(strict=False, parse_int=_integer, parse_float=_finite, parse_constant=lambda _name: None)
