"""Requests and tokens per minute, and the quota headers of a reply."""

from __future__ import annotations

from random import Random

import pytest

from batcher.limits import Limiter
from batcher.limits.pacing import TokenBucket, header_wait_s
from batcher.records import Signal


def sent_by(gate: Limiter, end_s: float, tokens: float = 0) -> list[float]:
    """Send whatever may be sent up to `end_s`, never answering; return the moments."""
    moments: list[float] = []
    now_s = 0.0
    while now_s <= end_s:
        while gate.allowance(0, now_s):
            gate.sent(now_s, tokens)
            moments.append(now_s)
        wake_s = gate.wake_at(now_s)
        assert wake_s is not None
        assert wake_s > now_s
        now_s = wake_s
    return moments


def test_requests_per_minute_are_spread_over_the_minute() -> None:
    """600 a minute are ten a second: a burst of ten at first, then one each tenth of a second."""
    moments = sent_by(Limiter(1000, random=Random(1), proven=True, start=1000, requests_per_minute=600), 60.0)
    assert moments[:10] == [0.0] * 10
    assert moments[10] == pytest.approx(0.1, abs=0.002)
    assert 600 <= len(moments) <= 610


def test_less_than_a_request_a_second_goes_one_at_a_time() -> None:
    """Three a minute are one each twenty seconds, not three at once."""
    moments = sent_by(Limiter(10, random=Random(1), proven=True, requests_per_minute=3), 61.0)
    assert moments == pytest.approx([0, 20, 40, 60], abs=0.01)


def test_the_request_rate_does_not_save_up() -> None:
    """After an hour without work the burst is one second's worth, not an hour's."""
    gate = Limiter(1000, random=Random(1), proven=True, start=1000, requests_per_minute=600)
    gate.sent(0.0)
    assert gate.allowance(0, 3600.0) == 10


def test_the_allowance_is_what_the_rate_leaves() -> None:
    """A worker that sends all it may at once stays within the burst."""
    gate = Limiter(1000, random=Random(1), proven=True, start=1000, requests_per_minute=600)
    assert gate.allowance(0, 50.0) == 10
    assert gate.allowance(995, 50.0) == 5
    for _ in range(10):
        gate.sent(50.0)
    assert gate.allowance(0, 50.0) == 0
    assert str(gate.why(50.0)) == "held to limits.requests_per_minute (600), next request in 1 s"


def test_tokens_per_minute_hold_back_by_the_size_of_the_requests() -> None:
    """60,000 tokens a minute are one request of 1000 tokens a second."""
    moments = sent_by(Limiter(100, random=Random(1), proven=True, tokens_per_minute=60_000), 30.0, tokens=1000)
    assert 30 <= len(moments) <= 32


def test_a_request_larger_than_the_bucket_passes_alone() -> None:
    """A request of a minute's worth is sent, not failed; the next one waits until it is paid for."""
    gate = Limiter(100, random=Random(1), proven=True, tokens_per_minute=6000)
    moments = sent_by(gate, 130.0, tokens=6000)
    assert moments == pytest.approx([0, 60, 120], abs=1.2)


def test_an_unused_reservation_is_given_back() -> None:
    """What the estimate took too much returns with the answer, so the next request need not wait for it."""
    gate = Limiter(100, random=Random(1), proven=True, tokens_per_minute=60_000)
    reserved = gate.sent(0.0, 10_000)
    assert reserved == 10_000
    assert gate.allowance(0, 1.0) == 0
    gate.answered(0.0, 1.0, Signal.SUCCESS, in_flight=8, tokens=500, reserved=reserved)
    assert gate.allowance(0, 1.5) > 0


def test_more_used_than_reserved_is_paid_later() -> None:
    """An answer longer than estimated leaves a debt that the next request waits for."""
    gate = Limiter(100, random=Random(1), proven=True, tokens_per_minute=60_000)
    reserved = gate.sent(0.0, 100)
    gate.answered(0.0, 1.0, Signal.SUCCESS, in_flight=8, tokens=20_000, reserved=reserved)
    assert gate.allowance(0, 15.0) == 0
    assert gate.allowance(0, 21.0) > 0


def test_the_unknown_usage_of_a_failure_stays_reserved() -> None:
    """A request that failed may have been paid for; its reservation stands."""
    gate = Limiter(100, random=Random(1), proven=True, tokens_per_minute=60_000)
    gate.sent(0.0, 10_000)
    gate.answered(0.0, 1.0, Signal.NONE, in_flight=8, reserved=10_000)
    assert gate.allowance(0, 5.0) == 0


def test_estimates_far_above_the_usage_are_learned_from() -> None:
    """Estimates of 20,000 tokens for answers of 1000 settle at the rate the usage allows, not at a twentieth of it."""
    bucket = TokenBucket(60_000)
    first = bucket.reserve(20_000, 0.0)
    for _ in range(200):
        bucket.settle(bucket.reserve(20_000, 0.0), 1000)
    assert first == 20_000
    assert bucket.reserve(20_000, 0.0) == pytest.approx(1000, rel=0.01)


def test_a_worker_that_keeps_no_reservations_is_not_charged_twice() -> None:
    """Without the reservation the usual one is taken back before the usage is charged."""
    gate = Limiter(1000, random=Random(1), proven=True, start=1000, tokens_per_minute=60_000)
    sent, now_s = 0, 0.0
    while now_s < 300:
        for _ in range(gate.allowance(0, now_s)):
            gate.sent(now_s, 1000)
            gate.answered(now_s, now_s + 0.001, Signal.SUCCESS, in_flight=1, tokens=1000)
            sent += 1
        now_s += 0.5
    assert 290 <= sent <= 305


# -- headers


def quota(what: str, **parts: str) -> dict[str, str]:
    """The three headers OpenAI sends for a quota of requests or tokens."""
    return {f"x-ratelimit-{part}-{what}": value for part, value in parts.items()}


#: situation, headers, and the seconds to wait for 2000 tokens and one request
ADVICE: dict[str, tuple[dict[str, str], float]] = {
    "no headers": ({}, 0),
    "no limit and no reset": (quota("requests", remaining="0"), 0),
    "60 a minute, none left": (quota("requests", limit="60", remaining="0", reset="1m0s"), 1),
    "3600 an hour, none left": (quota("requests", limit="3600", remaining="0", reset="1h0m0s"), 1),
    "one left is enough": (quota("requests", limit="60", remaining="1", reset="59s"), 0),
    "1000 tokens come back a second": (quota("tokens", limit="60000", remaining="100", reset="59900ms"), 1.9),
    "as many tokens left as needed": (quota("tokens", limit="60000", remaining="2000", reset="58s"), 0),
    "more needed than the quota holds": (quota("tokens", limit="1000", remaining="999", reset="2s"), 2),
    "requests and tokens": (
        quota("requests", limit="60", remaining="0", reset="60")
        | quota("tokens", limit="60000", remaining="0", reset="60s"),
        2,
    ),
    "a header alone holds for a minute at most": (quota("requests", limit="200", remaining="0", reset="24h"), 60),
    "IETF draft, none left": ({"ratelimit": '"default";r=0;t=30'}, 30),
    "IETF draft, two policies": ({"ratelimit": '"a";r=5;t=30, "b";r=0;t=7'}, 7),
    "IETF draft, one left": ({"ratelimit": '"default";r=1;t=30'}, 0),
    "IETF draft, absurdly long": ({"ratelimit": ";r=0;t=" + "9" * 5000}, 0),
    "nonsense": (quota("requests", limit="nan", remaining="-1", reset="soon"), 0),
    "a reset that never comes": (quota("requests", limit="10", remaining="0", reset="1e999"), 0),
    "a limit of nothing is no limit": (quota("requests", limit="0", remaining="0", reset="5s"), 0),
}


@pytest.mark.parametrize("situation", ADVICE)
def test_quota_headers_say_how_long_to_wait(situation: str) -> None:
    """The wait is what it takes until what is needed has come back; what is malformed counts as absent."""
    headers, wait_s = ADVICE[situation]
    assert header_wait_s(headers, 2000) == pytest.approx(wait_s)


def test_a_used_up_quota_pauses_once_per_round_trip() -> None:
    """Headers of requests that were sent before the pause are old news and do not prolong it."""
    gate = Limiter(100, random=Random(1), proven=True)
    used_up = quota("requests", limit="3", remaining="0", reset="60s")
    gate.answered(1.0, 2.0, Signal.SUCCESS, in_flight=8, headers=used_up)
    end_s = gate.wake_at(2.0)
    assert end_s is not None
    assert 22 <= end_s <= 25
    assert str(gate.why(2.0)).startswith("the server's quota is used up for now, next request in 2")
    gate.answered(1.5, 20.0, Signal.SUCCESS, in_flight=8, headers=used_up)
    assert gate.wake_at(2.0) == end_s
    gate.answered(2.5, 21.0, Signal.SUCCESS, in_flight=8, headers=used_up)
    assert (gate.wake_at(21.0) or 0) >= 41
