"""The gate every request passes: growth, cuts, pauses and outages, as tables without an event loop."""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from random import Random
from typing import Any

import pytest

from batcher.limits import Limiter
from batcher.limits.words import in_words
from batcher.records import Signal

SUCCESS, NONE = Signal.SUCCESS, Signal.NONE
THROTTLED, OVERLOADED = Signal.THROTTLED, Signal.OVERLOADED
FAILING, UNREACHABLE = Signal.FAILING, Signal.UNREACHABLE


def limiter(ceiling: int = 1000, **options: Any) -> Limiter:
    """A limiter with chance fixed; its first request has gone and shown nothing but that the endpoint answers."""
    gate = Limiter(ceiling, random=Random(5), **options)
    gate.answered(-1.0, -1.0, NONE, in_flight=1)
    return gate


def answer(gate: Limiter, signal: Signal, now_s: float, *, times: int = 1, sent_at_s: float | None = None) -> None:
    """Let results come in while the limit is in full use; the requests were sent a moment before, or at `sent_at_s`."""
    for _ in range(times):
        sent_s = now_s - 0.01 if sent_at_s is None else sent_at_s
        gate.answered(sent_s, now_s, signal, in_flight=gate.limit)


def fail_until(gate: Limiter, signal: Signal, end_s: float, *, now_s: float = 0.0) -> float:
    """Send up to eight requests whenever some may go, let them fail; return when the first may go after `end_s`."""
    while now_s < end_s:
        sent = min(8, gate.allowance(0, now_s))
        assert sent > 0
        for _ in range(sent):
            gate.sent(now_s)
        now_s += 0.01
        for in_flight in range(sent, 0, -1):
            gate.answered(now_s - 0.01, now_s, signal, in_flight=in_flight)
        now_s = gate.wake_at(now_s) or now_s
    return now_s


def in_an_outage(signal: Signal = UNREACHABLE) -> tuple[Limiter, float]:
    """A limiter that has met an outage after a first success, and the moment its first probe is due."""
    gate = limiter(start=100)
    answer(gate, SUCCESS, 0.0)
    return gate, fail_until(gate, signal, 40.0)


# -- the first request


def test_the_first_request_goes_alone_until_it_is_answered() -> None:
    """A wrong key costs one request: the others follow when the first has shown that such requests are taken."""
    gate = Limiter(1000, random=Random(5))
    assert (gate.allowance(0, 0.0), gate.wake_at(0.0)) == (1, None)
    gate.sent(0.0)
    assert gate.allowance(1, 0.0) == 0
    assert gate.why(0.1) == "waiting for the first answer"
    gate.answered(0.0, 0.2, SUCCESS, in_flight=1)
    assert gate.allowance(0, 0.2) == 8
    assert gate.why(0.2) is None


def test_a_row_that_is_refused_for_its_own_sake_lets_the_others_follow() -> None:
    """That the first row is too long, say, shows that the endpoint answers."""
    gate = Limiter(1000, random=Random(5))
    gate.sent(0.0)
    gate.answered(0.0, 0.2, NONE, in_flight=1)
    assert gate.allowance(0, 0.2) == 8


@pytest.mark.parametrize("signal", [THROTTLED, OVERLOADED, FAILING, UNREACHABLE])
def test_an_endpoint_that_is_not_well_is_asked_by_one_request_at_a_time(signal: Signal) -> None:
    """Whatever is refused, cut or broken before anything succeeded is tried again alone, four times at most."""
    gate = Limiter(1000, random=Random(5))
    now_s = 0.0
    for _ in range(4):
        assert gate.allowance(0, now_s) == 1
        gate.sent(now_s)
        assert gate.allowance(1, now_s) == 0
        gate.answered(now_s, now_s + 0.1, signal, in_flight=1)
        assert gate.allowance(0, now_s + 0.1) == 0
        now_s = gate.wake_at(now_s + 0.1) or 0.0
    assert gate.allowance(0, now_s) == 8, "what is too much alone was not too much at once"


def test_a_slow_model_is_not_waited_for() -> None:
    """Five seconds without a refusal, and the rest of the first eight follow."""
    gate = Limiter(1000, random=Random(5))
    gate.sent(10.0)
    assert gate.wake_at(11.0) == 15.0
    assert gate.allowance(1, 14.9) == 0
    assert gate.allowance(1, 15.0) == 7
    gate.answered(10.0, 16.0, THROTTLED, in_flight=8)
    assert gate.allowance(0, 20.0) == 6


def test_a_job_that_has_had_answers_before_starts_with_all() -> None:
    """A resumed run knows its key and address to be good."""
    assert Limiter(1000, random=Random(5), proven=True).allowance(0, 0.0) == 8


# -- growth


@pytest.mark.parametrize(("ceiling", "first"), [(1000, 8), (3, 3), (1, 1)])
def test_a_run_starts_with_eight_requests_or_the_ceiling(ceiling: int, first: int) -> None:
    """Before anything is known, eight requests go out, fewer if the job allows fewer."""
    gate = limiter(ceiling)
    assert (gate.limit, gate.allowance(0, 0.0), gate.allowance(1, 0.0)) == (first, first, first - 1)


def test_each_success_adds_one_until_the_first_refusal() -> None:
    """Slow start: the limit doubles with each full round of successes."""
    gate = limiter()
    answer(gate, SUCCESS, 1.0, times=8)
    assert gate.limit == 16


def test_after_a_refusal_a_round_of_successes_adds_five_percent() -> None:
    """100 -> 85 by a 429; then 85 successes add 5 % of 85, that is 4.25."""
    gate = limiter(start=100)
    answer(gate, THROTTLED, 1.0)
    assert gate.limit == 85
    answer(gate, SUCCESS, 30.0, times=85)
    assert gate.limit == 89


def test_a_small_limit_grows_by_one_per_round() -> None:
    """5 % of a small limit is less than one request; then a round of successes adds one."""
    gate = limiter(start=10)
    answer(gate, THROTTLED, 1.0)
    assert gate.limit == 8  # 8.5
    answer(gate, SUCCESS, 30.0, times=9)
    assert gate.limit == 9


def test_what_is_not_used_does_not_grow() -> None:
    """A limit that is not even 80 % in use has not been tried, so successes say nothing about a higher one."""
    gate = limiter(start=100)
    for _ in range(500):
        gate.answered(0.0, 1.0, SUCCESS, in_flight=79)
    assert gate.limit == 100
    gate.answered(0.0, 1.0, SUCCESS, in_flight=80)
    assert gate.limit == 101


def test_the_ceiling_is_never_passed() -> None:
    """`limits.concurrency` bounds the limit whatever the endpoint would bear."""
    gate = limiter(20)
    answer(gate, SUCCESS, 1.0, times=500)
    assert (gate.limit, gate.allowance(20, 1.0)) == (20, 0)


def test_the_stretch_to_where_it_was_refused_is_slow() -> None:
    """A server with ten slots refuses the eleventh request once in 200 successes at most, and once in ten seconds."""
    gate = limiter(start=11)
    answer(gate, THROTTLED, 1.0)
    successes = 0
    while gate.limit < 11:
        successes += 1
        answer(gate, SUCCESS, 60.0)
    assert 200 < successes < 250

    gate = limiter(start=11)
    answer(gate, THROTTLED, 1.0)
    answer(gate, SUCCESS, 10.9, times=5000)
    assert gate.limit == 10


def test_far_beyond_a_former_refusal_growth_is_twice_as_fast() -> None:
    """A server that takes much more than it once refused has changed, so the limit catches up at 10 % per round."""
    gate = limiter(start=100)
    answer(gate, THROTTLED, 1.0)
    while gate.limit < 150:
        answer(gate, SUCCESS, 60.0)
    answer(gate, SUCCESS, 60.0, times=150)
    assert gate.limit == 165


# -- cuts


def test_one_burst_of_refusals_cuts_once() -> None:
    """Only a request sent after the last cut can cut again, or a burst of 429s would multiply the cut."""
    gate = limiter(start=100)
    answer(gate, THROTTLED, 1.0, times=50, sent_at_s=0.9)
    answer(gate, THROTTLED, 1.2, times=50, sent_at_s=1.0)
    assert gate.limit == 85
    answer(gate, THROTTLED, 3.0, sent_at_s=2.0)
    assert gate.limit == 72


def test_the_limit_never_falls_below_one() -> None:
    """However often the server refuses, one request at a time is still tried."""
    gate = limiter()
    for second in range(100):
        answer(gate, THROTTLED, float(second))
    assert (gate.limit, gate.allowance(0, 1000.0)) == (1, 1)


def test_the_odd_overload_does_not_cut_and_a_burst_halves() -> None:
    """Gateways answer 503 now and then at any load; only a burst says that this load is too much."""
    gate = limiter(start=64)
    for second in range(100):
        answer(gate, SUCCESS, float(second), times=10)
        answer(gate, OVERLOADED, second + 0.5)
    assert gate.limit > 64

    gate = limiter(start=64)
    answer(gate, OVERLOADED, 1.0, times=4)
    assert gate.limit == 64
    answer(gate, OVERLOADED, 1.0)
    assert gate.limit == 32
    answer(gate, OVERLOADED, 1.2, times=60, sent_at_s=0.9)
    assert gate.limit == 32


def test_a_burst_is_larger_where_more_is_in_flight() -> None:
    """With a thousand requests in flight, five overloads are still nothing; 5 % of the limit are a burst."""
    gate = limiter(start=1000)
    answer(gate, OVERLOADED, 1.0, times=49)
    assert gate.limit == 1000
    answer(gate, OVERLOADED, 1.0)
    assert gate.limit == 500


@pytest.mark.parametrize("signal", [UNREACHABLE, FAILING])
def test_an_endpoint_that_is_away_or_broken_cuts_nothing(signal: Signal) -> None:
    """That the endpoint cannot be reached, or answers with server errors, says nothing about how much it bears."""
    gate = limiter(start=64)
    answer(gate, signal, 1.0, times=500)
    assert gate.limit == 64


# -- pauses


@pytest.mark.parametrize(
    ("asked_s", "least_s", "most_s"), [(None, 0.5, 0.75), (0.1, 0.5, 0.75), (1.0, 1.0, 1.5), (60.0, 60.0, 67.0)]
)
def test_a_refusal_pauses_everything_for_what_the_server_asks(
    asked_s: float | None, least_s: float, most_s: float
) -> None:
    """Each 429 pauses all sending for Retry-After, at least half a second; never less, and spread beyond it."""
    ends = []
    for seed in range(200):
        gate = Limiter(100, random=Random(seed), proven=True)
        gate.answered(9.9, 10.0, THROTTLED, in_flight=8, wait_s=asked_s)
        end_s = gate.wake_at(10.0)
        assert end_s is not None
        ends.append(end_s - 10.0)
        assert gate.allowance(0, end_s - 0.001) == 0
        assert gate.allowance(0, end_s) > 0
    assert least_s <= min(ends) < least_s + (most_s - least_s) * 0.1
    assert most_s - (most_s - least_s) * 0.1 < max(ends) <= most_s


def test_a_shorter_pause_does_not_shorten_a_longer_one() -> None:
    """What one reply asks for stands, though a later reply asks for less."""
    gate = limiter()
    gate.answered(0.0, 1.0, THROTTLED, in_flight=8, wait_s=60)
    gate.answered(0.0, 2.0, THROTTLED, in_flight=8, wait_s=1)
    assert gate.allowance(0, 60.9) == 0


def test_refusals_without_any_success_lengthen_the_pause() -> None:
    """Refused requests count against the quota too, so a limiter at one request must not knock twice a second."""
    gate = limiter(1)
    start_s = fail_until(gate, THROTTLED, 1000.0)
    gate.sent(start_s)
    answer(gate, THROTTLED, start_s + 0.01)
    assert 30 <= (gate.wake_at(start_s + 0.01) or 0) - start_s <= 35
    answer(gate, SUCCESS, start_s + 50)
    answer(gate, THROTTLED, start_s + 51)
    assert (gate.wake_at(start_s + 51) or 0) - start_s < 52


@pytest.mark.parametrize("signal", [UNREACHABLE, FAILING])
def test_single_failures_pause_nothing(signal: Signal) -> None:
    """While answers come, twenty failures in a row may be chance; the next one pauses for a second."""
    gate = limiter(start=7)
    answer(gate, SUCCESS, 1.0)
    answer(gate, signal, 2.0, times=20)
    assert gate.allowance(0, 2.0) > 0
    answer(gate, signal, 2.0)
    assert gate.allowance(0, 2.99) == 0
    assert 3.0 <= (gate.wake_at(2.0) or 0) <= 3.5


def test_a_server_error_that_asks_to_wait_concerns_its_row() -> None:
    """A 500 with Retry-After pauses nothing: where many answers fail by chance, each would stop everybody."""
    gate = limiter()
    answer(gate, SUCCESS, 0.0)
    gate.answered(0.5, 1.0, FAILING, in_flight=8, wait_s=20)
    assert gate.allowance(0, 1.0) > 0
    gate.answered(0.5, 1.0, FAILING, in_flight=8, wait_s=200)
    assert gate.allowance(0, 200.0) == 0


def test_a_round_that_fails_together_lengthens_the_pause_once() -> None:
    """A hundred requests in flight that all fail are one sign of trouble, not a hundred."""
    gate = limiter(start=100)
    answer(gate, UNREACHABLE, 1.0, times=100)
    assert 2.0 <= (gate.wake_at(1.0) or 0) <= 2.5
    answer(gate, UNREACHABLE, 3.0, times=100)
    assert 5.0 <= (gate.wake_at(3.0) or 0) <= 6.0


def test_an_overload_with_retry_after_pauses_everything() -> None:
    """A single 503 that names a time is taken at its word, though a single 503 otherwise pauses nothing."""
    gate = limiter()
    answer(gate, SUCCESS, 0.0)
    answer(gate, OVERLOADED, 1.0)
    assert gate.allowance(0, 1.0) > 0
    gate.answered(0.5, 1.0, OVERLOADED, in_flight=8, wait_s=20)
    assert gate.allowance(0, 20.9) == 0


def test_a_wait_of_more_than_two_minutes_pauses_the_run() -> None:
    """A reply of any sort that asks for a long wait holds everything; a short one concerns its row alone."""
    gate = limiter()
    gate.answered(0.0, 1.0, NONE, in_flight=8, wait_s=120)
    assert gate.allowance(0, 1.0) == 8
    gate.answered(0.0, 1.0, NONE, in_flight=8, wait_s=121)
    assert gate.allowance(0, 121.9) == 0
    assert gate.why(1.0) == "the server asks to wait, next request in 3 min"


# -- outages


@pytest.mark.parametrize("signal", [UNREACHABLE, OVERLOADED, FAILING])
def test_an_outage_is_probed_one_request_at_a_time_ever_less_often(signal: Signal) -> None:
    """After ten failures over thirty seconds: 15 s apart, then an eighth of the outage so far, at most 300 s."""
    gate, now_s = in_an_outage(signal)
    waits: list[tuple[float, float]] = []
    while len(waits) < 60:
        assert gate.allowance(0, now_s) == 1
        gate.sent(now_s)
        assert gate.allowance(1, now_s) == 0
        assert gate.wake_at(now_s) is None
        gate.answered(now_s, now_s + 0.01, signal, in_flight=1)
        assert gate.allowance(0, now_s + 0.01) == 0
        wake_s = gate.wake_at(now_s + 0.01)
        assert wake_s is not None
        waits.append((now_s, wake_s - now_s))
        now_s = wake_s
    for at_s, wait_s in waits:
        expected_s = min(300.0, max(15.0, at_s / 8))  # the first failure was at 0.01 s
        assert expected_s - 0.1 <= wait_s <= expected_s * 1.1 + 0.1
    assert waits[0][1] < 17
    assert 300 <= waits[-1][1] <= 331


def test_ten_failures_at_once_are_no_outage_yet() -> None:
    """An outage takes thirty seconds: a pool of a thousand connections may break together and be back at once."""
    gate = limiter(start=100)
    answer(gate, SUCCESS, 1000.0)
    answer(gate, UNREACHABLE, 1001.0, times=100)
    assert gate.allowance(0, 1003.0) == gate.limit


def test_a_refusal_between_failures_shows_that_the_endpoint_is_there() -> None:
    """Nine failures, a 429, nine failures: that is no outage, however long it takes."""
    gate = limiter(start=100)
    answer(gate, SUCCESS, 0.0)
    answer(gate, UNREACHABLE, 1.0, times=9)
    answer(gate, THROTTLED, 60.0)
    answer(gate, UNREACHABLE, 120.0, times=9)
    assert gate.allowance(0, 160.0) > 1


def test_refusals_are_no_outage() -> None:
    """An endpoint that answers 429 is there: the pauses grow, but the breaker stays closed."""
    gate = limiter(start=2)
    now_s = fail_until(gate, THROTTLED, 200.0)
    assert gate.why(now_s - 1) == "rate limited by the server, next request in 1 s"


def test_the_first_success_ends_an_outage_and_starts_from_a_tenth() -> None:
    """After an outage the endpoint is met with a tenth of the former load, which then doubles per round."""
    gate = limiter(start=200)
    answer(gate, SUCCESS, 0.0, times=100)
    now_s = fail_until(gate, OVERLOADED, 60.0)
    gate.sent(now_s)
    gate.answered(now_s, now_s + 1, SUCCESS, in_flight=1)
    assert (gate.limit, gate.allowance(0, now_s + 1)) == (30, 30)  # of 300
    answer(gate, SUCCESS, now_s + 5, times=30)
    assert gate.limit == 60
    assert gate.hopeless(now_s + 1e6) is None


def test_an_outage_can_be_declared() -> None:
    """Who knows that the endpoint is broken says so: probes at once, and the first success ends it as any outage."""
    gate = limiter(start=100)
    answer(gate, SUCCESS, 0.0)
    answer(gate, THROTTLED, 1.0)
    answer(gate, SUCCESS, 2.0)
    gate.outage(10.0)
    gate.outage(12.0)  # already known
    wake_s = gate.wake_at(10.0)
    assert wake_s is not None
    assert 25.0 <= wake_s <= 26.5
    assert gate.allowance(50, wake_s - 0.01) == 0
    assert gate.why(20.0) == f"endpoint failing since 10 s, next probe in {ceil(wake_s - 20.0)} s"
    assert gate.allowance(50, wake_s) == 1
    assert gate.hopeless(10.0 + 43200.0) is None
    assert str(gate.hopeless(10.0 + 43201.0)).startswith("endpoint failing since 13 h")
    gate.sent(wake_s)
    gate.answered(wake_s, wake_s + 1, SUCCESS, in_flight=1)
    assert gate.limit == 8  # a tenth of 85


def test_a_declared_outage_keeps_the_words_of_the_trouble_that_led_to_it() -> None:
    """Who declares an outage after failed connections finds it called unreachable, since when they failed."""
    gate = limiter(start=100)
    answer(gate, SUCCESS, 0.0)
    answer(gate, UNREACHABLE, 5.0)
    gate.outage(10.0)
    assert str(gate.why(15.0)).startswith("endpoint unreachable since 10 s, ")


def test_failures_of_before_the_outage_do_not_postpone_the_probe() -> None:
    """Requests that were in flight when the outage was noticed are no probes."""
    gate, due_s = in_an_outage()
    gate.answered(0.0, due_s - 1, UNREACHABLE, in_flight=50)
    assert gate.wake_at(due_s - 1) == due_s


def test_a_hung_request_of_before_the_outage_does_not_stand_in_for_the_probe() -> None:
    """A connection into a black hole may hang for minutes; the endpoint is probed all the same."""
    gate, due_s = in_an_outage()
    assert gate.allowance(3, due_s) == 1
    gate.sent(due_s)
    assert gate.allowance(4, due_s) == 0
    assert gate.allowance(0, due_s) == 1  # the probe's answer got lost: never wait for it for ever


def test_a_probe_that_says_nothing_is_followed_by_another() -> None:
    """A probe's row may fail for its own reasons; that neither ends the outage nor makes the next probe rarer."""
    gate = limiter(start=100)
    answer(gate, SUCCESS, 0.0)
    now_s = fail_until(gate, UNREACHABLE, 200.0)
    gate.sent(now_s)
    gate.answered(now_s, now_s + 1, NONE, in_flight=1)
    assert gate.allowance(0, now_s + 1) == 0
    assert 16 <= (gate.wake_at(now_s + 1) or 0) - now_s <= 17.5


def test_a_probe_waits_for_what_the_server_asks() -> None:
    """Retry-After binds probes too."""
    gate, now_s = in_an_outage(OVERLOADED)
    gate.sent(now_s)
    gate.answered(now_s, now_s + 1, OVERLOADED, in_flight=1, wait_s=100)
    assert gate.allowance(0, now_s + 100.9) == 0
    assert 101 <= (gate.wake_at(now_s + 1) or 0) - now_s <= 112
    assert gate.why(now_s + 1.0) is not None


# -- giving up


def test_an_endpoint_that_was_never_reached_is_given_up_after_four_tries() -> None:
    """A wrong address shows within seconds: tries about 1, 2 and 4 seconds apart, then the reason."""
    gate = limiter()
    now_s = 0.0
    tries = []
    while gate.hopeless(now_s) is None:
        tries.append(now_s)
        for _ in range(gate.allowance(0, now_s)):
            gate.sent(now_s)
        answer(gate, UNREACHABLE, now_s + 0.01, times=8, sent_at_s=now_s)
        now_s = gate.wake_at(now_s + 0.01) or 0.0
    assert gate.hopeless(now_s) == "the endpoint cannot be reached"
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert [int(gap) for gap in gaps] in ([1, 2, 4], [1, 2, 5])


@pytest.mark.parametrize("proof", ["an earlier run", "a success"])
def test_an_endpoint_that_was_reached_once_gets_the_outage_rules(proof: str) -> None:
    """A resumed run, or one that has had an answer, waits for the endpoint up to `max_outage_s`."""
    gate = limiter(proven=proof == "an earlier run", max_outage_s=3600)
    if proof == "a success":
        answer(gate, SUCCESS, 0.0)
    now_s = fail_until(gate, UNREACHABLE, 3500.0)
    assert gate.hopeless(3600.0) is None
    assert gate.hopeless(3601.0) == "endpoint unreachable since 61 min, longer than limits.max_outage_s (3600)"
    answer(gate, SUCCESS, now_s)
    assert gate.hopeless(now_s) is None


@pytest.mark.parametrize("signal", [THROTTLED, OVERLOADED, FAILING])
def test_an_endpoint_that_refuses_now_and_then_has_been_reached(signal: Signal) -> None:
    """Three failed connections, a 429, 500 or 503, three failed connections: the address is right."""
    gate = limiter()
    now_s = 0.0
    for step in [UNREACHABLE] * 3 + [signal] + [UNREACHABLE] * 3:
        answer(gate, step, now_s + 0.01, sent_at_s=now_s)
        now_s = gate.wake_at(now_s + 0.01) or 0.0
    assert gate.hopeless(now_s) is None
    answer(gate, UNREACHABLE, now_s + 0.01, sent_at_s=now_s)
    assert gate.hopeless(now_s) == "the endpoint cannot be reached"


@pytest.mark.parametrize(
    ("signal", "words"),
    [(THROTTLED, "rate limited by the server"), (OVERLOADED, "endpoint overloaded"), (FAILING, "endpoint failing")],
)
def test_refusals_without_end_are_given_up(signal: Signal, words: str) -> None:
    """A server that refuses every request for longer than `max_outage_s` ends the run instead of looping for ever."""
    gate = limiter(max_outage_s=600)
    answer(gate, SUCCESS, 0.0)
    now_s = fail_until(gate, signal, 590.0)
    assert gate.hopeless(599.0) is None
    assert str(gate.hopeless(max(now_s, 601.0))).startswith(f"{words} since 1")


@pytest.mark.parametrize("signal", [THROTTLED, NONE])
def test_a_wait_longer_than_the_longest_outage_is_given_up_at_once(signal: Signal) -> None:
    """A Retry-After of days is no wait; the run ends with the reason and can be resumed later."""
    gate = limiter()
    gate.answered(0.0, 1.0, signal, in_flight=8, wait_s=43000)
    assert gate.hopeless(1.0) is None
    gate.answered(0.0, 1.0, signal, in_flight=8, wait_s=93600)
    assert gate.hopeless(1.0) == "the server asks to wait 26 h, longer than limits.max_outage_s (43200) allows"


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), -5.0, 0.0])
def test_a_wait_that_makes_no_sense_breaks_nothing(nonsense: float) -> None:
    """Whatever number arrives as a wait, the limiter still answers its questions."""
    gate = limiter()
    gate.answered(0.0, 1.0, THROTTLED, in_flight=8, wait_s=nonsense)
    assert gate.allowance(0, 1.0) == 0
    assert (gate.wake_at(1.0) or 0) > 1.0
    assert gate.why(1.0) is not None
    assert (gate.hopeless(1.0) is not None) == (nonsense == float("inf"))


# -- words


def test_the_reasons_for_waiting_are_said_in_words() -> None:
    """A person who looks at the bar sees why nothing is sent, and until when."""
    gate = limiter(start=100)
    assert gate.why(0.0) is None
    gate.answered(0.9, 1.0, THROTTLED, in_flight=100, wait_s=12)
    assert gate.why(3.0) in {f"rate limited by the server, next request in {rest} s" for rest in (10, 11, 12, 13)}
    assert gate.why(20.0) == "held to 85 requests at once by the server's rate limit (429)"
    assert gate.why(61.1) is None

    gate, due_s = in_an_outage()
    assert gate.why(due_s - 5.0) == f"endpoint unreachable since {int(due_s - 5.0) + 1} s, next probe in 5 s"
    gate.sent(due_s)
    assert str(gate.why(due_s)).endswith("waiting for a probe's answer")


def test_the_limit_found_is_said_in_words() -> None:
    """The report says which limit the run ended with and what bounds it."""
    gate = limiter(50)
    assert gate.found() == "8 requests at once, no bound was met"
    answer(gate, SUCCESS, 0.0, times=100)
    assert gate.found() == "50 requests at once, held there by limits.concurrency"
    answer(gate, THROTTLED, 1.0)
    assert gate.found() == "42 requests at once, held there by the server's rate limit (429)"
    answer(gate, OVERLOADED, 2.0, times=5)
    assert gate.found() == "21 requests at once, held there by the server's overload"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (120, "120 s"),
        (121, "3 min"),
        (7200, "120 min"),
        (7201, "3 h"),
        (172800, "48 h"),
        (172801, "3 days"),
    ],
)
def test_lengths_of_time_are_rounded_up_for_a_person(seconds: float, words: str) -> None:
    """Whoever waits for what was announced does not come too early."""
    assert in_words(seconds) == words
