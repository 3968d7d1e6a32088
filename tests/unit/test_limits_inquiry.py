"""Whether a refusal concerns the whole run: single requests, what ends the inquiry and what confirms it."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from batcher.limits import Limiter
from batcher.records import Signal

SUCCESS, NONE = Signal.SUCCESS, Signal.NONE
KEY = "the endpoint refused the key"
WAITS_S = (0.0, 15.0, 60.0)


def in_use(**options: Any) -> Limiter:
    """A limiter whose endpoint has answered, with a hundred requests in flight since 0.0 s."""
    gate = Limiter(1000, random=Random(5), start=100, proven=True, **options)
    gate.answered(-1.0, 0.0, SUCCESS, in_flight=1)
    for _ in range(100):
        gate.sent(0.0)
    return gate


def refused(gate: Limiter, sent_at_s: float, now_s: float, *, told_first: bool = True) -> bool:
    """A request is refused; the worker tells the limiter so, before or after it hands over the result."""
    if told_first:
        gate.answered(sent_at_s, now_s, NONE, in_flight=1)
    confirmed = gate.suspect(KEY, WAITS_S, sent_at_s, now_s)
    if not told_first:
        gate.answered(sent_at_s, now_s, NONE, in_flight=1)
    return confirmed


def probe(gate: Limiter, now_s: float) -> float:
    """Send the next single request when it may go; return when that was."""
    assert gate.allowance(50, now_s) == 0
    at_s = gate.wake_at(now_s)
    assert at_s is not None
    assert gate.allowance(50, at_s) == 1
    gate.sent(at_s)
    assert gate.allowance(51, at_s) == 0
    assert gate.wake_at(at_s) is None
    return at_s


@pytest.mark.parametrize("told_first", [True, False])
def test_a_refusal_of_every_probe_confirms_the_suspicion(told_first: bool) -> None:
    """At once, 15 s after that was refused, 60 s after that: the third refusal confirms, and not before."""
    gate = in_use()
    assert not refused(gate, 0.0, 10.0, told_first=told_first)
    sent_s = []
    now_s = 10.0
    for last in (False, False, True):
        sent_s.append(at_s := probe(gate, now_s))
        now_s = at_s + 0.5
        assert gate.suspecting
        assert refused(gate, at_s, now_s, told_first=told_first) is last
    assert [round(at_s, 2) for at_s in sent_s] == [10.0, 25.5, 86.0]
    assert refused(gate, probe(gate, now_s), now_s + 100.0), "whoever goes on asking hears the same"


def test_no_probe_at_all_confirms_at_once() -> None:
    """Who names no wait does not want to ask again."""
    assert in_use().suspect(KEY, (), 0.0, 10.0)


def test_a_probe_that_succeeds_ends_the_inquiry() -> None:
    """The key has been replaced: everything goes on as before."""
    gate = in_use()
    refused(gate, 0.0, 10.0)
    at_s = probe(gate, 10.0)
    gate.answered(at_s, at_s + 1, SUCCESS, in_flight=50)
    assert not gate.suspecting
    assert gate.allowance(50, at_s + 1) == gate.limit - 50 > 0
    assert gate.why(at_s + 1) is None


def test_what_was_sent_before_the_inquiry_neither_confirms_nor_ends_it() -> None:
    """A hundred requests on their way when the key was refused say nothing about the key of now."""
    gate = in_use()
    refused(gate, 0.0, 10.0)
    for _ in range(50):
        assert not refused(gate, 0.0, 11.0)
    assert gate.allowance(49, 11.0) == 1, "they neither postpone nor use up the probes"
    gate.answered(0.0, 12.0, SUCCESS, in_flight=49)
    assert gate.suspecting
    assert gate.allowance(48, 12.0) == 1


def test_refusals_that_arrive_after_all_is_well_open_no_new_inquiry() -> None:
    """What was sent before the probe that succeeded was refused by the state of affairs of then."""
    gate = in_use()
    refused(gate, 0.0, 10.0)
    at_s = probe(gate, 10.0)
    gate.answered(at_s, at_s + 1, SUCCESS, in_flight=50)
    for _ in range(50):
        assert not refused(gate, 0.0, at_s + 2)
    assert not gate.suspecting


@pytest.mark.parametrize("signal", [NONE, Signal.FAILING, Signal.UNREACHABLE, Signal.OVERLOADED, Signal.THROTTLED])
def test_a_probe_that_ends_otherwise_is_repeated(signal: Signal) -> None:
    """A 500 says nothing about the key: the next request follows after the same wait and is as good as the first."""
    gate = in_use()
    refused(gate, 0.0, 10.0)
    now_s = probe(gate, 10.0) + 0.5
    refused(gate, now_s - 0.5, now_s)
    for _ in range(5):
        at_s = probe(gate, now_s)
        assert at_s - now_s == pytest.approx(15.0)
        now_s = at_s + 0.5
        gate.answered(at_s, now_s, signal, in_flight=50)
    at_s = probe(gate, now_s)
    assert not refused(gate, at_s, at_s + 0.5)
    at_s = probe(gate, at_s + 0.5)
    assert refused(gate, at_s, at_s + 0.5)


def test_a_probe_that_is_throttled_waits_for_what_the_server_asks() -> None:
    """Retry-After binds these requests as any others."""
    gate = in_use()
    refused(gate, 0.0, 10.0)
    at_s = probe(gate, 10.0)
    gate.answered(at_s, 11.0, Signal.THROTTLED, in_flight=50, wait_s=30.0)
    assert probe(gate, 11.0) >= 41.0


def test_a_probe_whose_answer_got_lost_is_not_waited_for_for_ever() -> None:
    """With nothing in flight there is nothing to wait for."""
    gate = in_use()
    refused(gate, 0.0, 10.0)
    at_s = probe(gate, 10.0)
    assert gate.allowance(0, at_s) == 1


def test_an_outage_within_an_inquiry_holds_for_both() -> None:
    """The endpoint goes away while its refusal is looked into: one probe at a time, when both allow it."""
    gate = in_use()
    refused(gate, 0.0, 10.0)
    gate.outage(11.0)
    assert str(gate.why(11.5)).startswith("endpoint failing since 1 s, next probe in 1")
    now_s = probe(gate, 11.0)
    assert now_s >= 26.0
    gate.answered(0.0, now_s + 1, SUCCESS, in_flight=50)  # an early request: the endpoint is there, the key is open
    assert gate.suspecting
    assert gate.allowance(50, now_s + 1) == 0, "the probe is still on its way"
    assert not refused(gate, now_s, now_s + 2)
    assert 16.9 <= probe(gate, now_s + 2) - now_s <= 17.1


def test_a_success_ends_an_outage_and_an_inquiry_together() -> None:
    """One answer shows that the endpoint is there and the key is good."""
    gate = in_use()
    gate.outage(5.0)
    refused(gate, 0.0, 10.0)
    at_s = probe(gate, 10.0)
    gate.answered(at_s, at_s + 1, SUCCESS, in_flight=50)
    assert not gate.suspecting
    assert gate.allowance(0, at_s + 1) == gate.limit == 11  # a tenth of 101, and one for the success


def test_single_rows_that_are_refused_stop_the_others_ever_less_often() -> None:
    """After an inquiry for nothing the next takes two refusals in a row, then four: no success between."""
    gate = in_use()
    now_s, taken = 10.0, []
    for _ in range(5):
        count = 0
        while not gate.suspecting:
            now_s += 1.0
            count += 1
            gate.sent(now_s)
            refused(gate, now_s, now_s + 0.1)
        taken.append(count)
        now_s = probe(gate, now_s + 0.1)
        gate.answered(now_s, now_s + 1, SUCCESS, in_flight=50)
        now_s += 1.0
    assert taken == [1, 2, 4, 8, 16]

    for _ in range(100):
        now_s += 1.0
        refused(gate, now_s, now_s + 0.1)
        gate.answered(now_s + 0.05, now_s + 0.2, SUCCESS, in_flight=50)
    assert not gate.suspecting, "each refusal was followed by a success of a later request"
    for _ in range(2):
        for _ in range(31):
            refused(gate, now_s + 1, now_s + 2)
            gate.answered(now_s, now_s + 3, SUCCESS, in_flight=50)
        assert not gate.suspecting
        gate.answered(now_s + 1.5, now_s + 3, SUCCESS, in_flight=50)
        now_s += 3
    for _ in range(32):
        assert not gate.suspecting
        refused(gate, now_s + 1, now_s + 2)
        gate.answered(now_s, now_s + 3, SUCCESS, in_flight=50)
    assert gate.suspecting, "successes of earlier requests take nothing back"


def test_an_inquiry_without_end_is_given_up() -> None:
    """Where no probe decides for longer than `max_outage_s` the run ends instead of looping for ever."""
    gate = in_use(max_outage_s=3600.0)
    refused(gate, 0.0, 10.0)
    now_s = 10.0
    while gate.hopeless(now_s) is None:
        assert now_s < 3700
        now_s = probe(gate, now_s) + 10.0
        gate.answered(now_s - 10.0, now_s, NONE, in_flight=50)
    assert now_s > 3610
    assert gate.hopeless(now_s) == f"{KEY} since 61 min, longer than limits.max_outage_s (3600)"


def test_the_reason_is_said_in_words() -> None:
    """A person who looks at the bar sees what was refused, and when it is tried again."""
    gate = in_use()
    refused(gate, 0.0, 10.0)
    at_s = probe(gate, 10.0)
    assert gate.why(at_s) == f"{KEY}, waiting for the answer to one request"
    refused(gate, at_s, at_s + 1)
    assert gate.why(at_s + 1) == f"{KEY}, asking again in 15 s"
    assert gate.why(at_s + 12.5) == f"{KEY}, asking again in 4 s"
