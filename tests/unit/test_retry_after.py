"""Waits and orders in response headers."""

from __future__ import annotations

import pytest

from batcher.retry.retry_after import retry_after_s, should_retry

#: 2026-11-23 12:00:00 UTC
NOON_S = 1_795_435_200.0


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": ".5"}, 0.5),
        ({"retry-after": "86400"}, 86400.0),
        ({"retry-after-ms": "1500", "retry-after": "30"}, 1.5),  # milliseconds first
        ({"retry-after-ms": "soon", "retry-after": "30"}, 30.0),
        ({"retry-after-ms": "-1", "retry-after": "30"}, 30.0),
        ({"retry-after-ms": "0", "retry-after": "30"}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:10 GMT"}, 10.0),  # counted from our clock
        ({"retry-after": "Monday, 23-Nov-26 12:00:10 GMT"}, 10.0),  # the two obsolete formats
        ({"retry-after": "Mon Nov 23 12:00:10 2026"}, 10.0),
        # the server's clock is a day ahead: its dates belong together
        ({"retry-after": "Tue, 24 Nov 2026 12:00:10 GMT", "date": "Tue, 24 Nov 2026 12:00:00 GMT"}, 10.0),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:10 GMT", "date": "yesterday"}, 10.0),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "1"}, None),  # not a wait
    ],
)
def test_the_servers_wait_is_understood(headers: dict[str, str], wait_s: float | None) -> None:
    """Milliseconds, seconds, fractions and dates, each in seconds from now."""
    assert retry_after_s(headers, now_s=NOON_S) == wait_s


@pytest.mark.parametrize(
    "value",
    [
        *("", "0", "-5", "nan", "inf", "-inf", "1e9", "1_000", "+3", "0x10", "\u0661", "3 s", "soon", "9" * 400),
        "Mon, 23 Nov 2026 11:59:59 GMT",  # over already
        "Mon, 99 Nov 2026 12:00:00 GMT",
        "Mon, 23 Nov 2026 12:00:00 +99999999999999999",
        "Mon, 23 Nov 99999999 12:00:00 GMT",
    ],
)
def test_a_wait_that_makes_no_sense_is_no_wait(value: str) -> None:
    """Zero, negative, endless and garbled values leave the wait to our own backoff."""
    assert retry_after_s({"retry-after": value}, now_s=NOON_S) is None
    assert retry_after_s({"retry-after-ms": value}, now_s=NOON_S) is None


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({}, None),
        ({"x-should-retry": "true"}, True),
        ({"x-should-retry": " False "}, False),
        ({"x-should-retry": "1"}, None),
        ({"x-should-retry": ""}, None),
    ],
)
def test_the_server_may_say_whether_to_retry(headers: dict[str, str], answer: bool | None) -> None:
    """Only the words true and false count."""
    assert should_retry(headers) is answer
