"""When to come back, in the server's words: the response headers that say how long to wait and whether at all.

`retry-after-ms` counts before `retry-after` (seconds or an HTTP date). The `x-ratelimit-reset-*` family is not read: it
says when a budget is full again, not when the next request may come. It does not know statuses, or what a wait is for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

#: seconds as the HTTP standard writes them, or with a fraction as servers do; no sign, exponent, `nan` or `inf`
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")


def retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """Return how long the server asks to wait, more than 0; None if it does not say, or says nothing usable.

    A date counts from the response's own `Date`, since clocks differ; from `now_s` (seconds since 1970) without one.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    wait_s = _number(value)
    if wait_s is None:
        then_s = _http_date_s(value)
        sent_s = _http_date_s(headers.get("date"))
        wait_s = None if then_s is None else then_s - (now_s if sent_s is None else sent_s)
    return wait_s if wait_s is not None and wait_s > 0 else None


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return what `x-should-retry` says; None without one, or with another word than true and false."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def _number(value: str | None) -> float | None:
    if value is None or not _NUMBER.fullmatch(value.strip()):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _http_date_s(value: str | None) -> float | None:
    """Return an HTTP date, in any of its three formats, as seconds since 1970."""
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
