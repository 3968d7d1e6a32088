"""Outages: when failures are the endpoint's and when they are single rows'."""

from __future__ import annotations

from batcher.outage import FAILURES, Outages


def fail(outages: Outages, count: int, now_s: float) -> None:
    """Send so many requests that fail at once."""
    for _ in range(count):
        outages.failed(outages.sent(), now_s)


def test_everything_fails_for_a_while() -> None:
    """The success that ends it says so, and moments within are told from those outside."""
    outages = Outages()
    assert not outages.succeeded(outages.sent(), 1.0)
    fail(outages, FAILURES + 1, 5.0)
    assert outages.succeeded(outages.sent(), 9.0)
    assert [outages.covers(at_s) for at_s in (4.9, 5.0, 9.0, 9.1)] == [False, True, True, False]
    assert not outages.succeeded(outages.sent(), 10.0), "it ended once"


def test_answers_that_were_under_way() -> None:
    """What was sent before the first failure proves nothing, neither by its success nor by its failure."""
    outages = Outages()
    early = [outages.sent() for _ in range(3 * FAILURES)]
    for number in early[::2]:
        outages.failed(number, 5.0)
    assert not any(outages.succeeded(number, 6.0) for number in early[1::2])
    assert not outages.succeeded(outages.sent(), 7.0), "nothing sent since has failed"
    for number in early[:2]:
        outages.failed(number, 8.0)
    fail(outages, FAILURES, 8.5)
    assert outages.succeeded(outages.sent(), 9.0)


def test_broken_rows_among_slow_ones() -> None:
    """Failures are no outage while most of what was sent since is under way."""
    outages = Outages()
    fail(outages, 1, 1.0)
    slow = []
    for _ in range(2 * FAILURES):
        fail(outages, 1, 2.0)
        slow += [outages.sent(), outages.sent()]
    assert not outages.succeeded(slow[-1], 9.0)
    assert not outages.covers(2.0)


def test_too_few_failures() -> None:
    """One failure fewer than it takes is none."""
    outages = Outages()
    fail(outages, FAILURES, 1.0)
    assert not outages.succeeded(outages.sent(), 2.0)
