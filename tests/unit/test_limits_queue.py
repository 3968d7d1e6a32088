"""What the server's own gauges do to the limit: where growth stops, where it settles, how it comes back."""

from __future__ import annotations

from random import Random

import pytest

from batcher.limits import Limiter
from batcher.limits.adaptive import AdaptiveLimit
from batcher.records import Signal
from tests.server_models import LATENCY_S, Queue, simulate


class Served:
    """A limiter of a busy run, with readings every five seconds."""

    def __init__(self, limit: int = 100) -> None:
        self.gate = Limiter(1000, random=Random(5), start=limit, proven=True)
        self.now_s = 0.0

    def uses(self, in_flight: int) -> None:
        """So many requests are in flight when one comes back, with nothing that would change the limit."""
        self.gate.answered(self.now_s - 1, self.now_s, Signal.NONE, in_flight=in_flight)

    def answers(self, times: int = 1) -> int:
        """Successes while the limit is in full use; return the limit then."""
        for _ in range(times):
            self.gate.answered(self.now_s - 1, self.now_s, Signal.SUCCESS, in_flight=self.gate.limit)
        return self.gate.limit

    def read(self, running: int, waiting: int, *, times: int = 1) -> int:
        """Readings; return the limit after them."""
        for _ in range(times):
            self.now_s += 5.0
            self.gate.gauged(running, waiting, self.now_s)
        return self.gate.limit


def test_a_queue_stops_the_growth_until_it_is_gone() -> None:
    """With more than a tenth of what runs waiting, more requests would only wait; a short queue is none."""
    served = Served()
    assert served.answers(10) == 110
    served.read(100, 11)
    assert served.answers(50) == 110
    served.now_s += 4.9  # the next reading is late
    assert served.answers(50) == 110
    served.read(100, 10)
    served.now_s += 5.0
    assert served.answers(10) == 120


def test_a_single_request_that_waits_is_no_queue() -> None:
    """Each request waits for a moment, which a small server would otherwise never get out of."""
    served = Served(4)
    served.read(4, 1)
    assert served.answers(2) == 6


def test_a_queue_that_stays_is_worked_off_to_a_little() -> None:
    """64 run and 136 wait, all ours, for three readings: not below half at once, then to 64 and a few."""
    served = Served(200)
    served.uses(200)
    assert served.read(64, 136, times=2) == 200
    assert served.read(64, 136) == 100
    assert served.read(64, 136, times=2) == 100
    assert served.read(64, 136) == 67, "the queue is still there though nothing of it is new; it is not cut for twice"
    assert served.read(64, 136, times=9) == 67
    assert served.gate.why(served.now_s) == "held to 67 requests at once by the server's queue"
    assert served.gate.found() == "67 requests at once, held there by the server's queue"


def test_a_short_reading_between_starts_the_count_again() -> None:
    """Three long queues in a row, not three in all."""
    served = Served(200)
    for _ in range(5):
        served.uses(200)
        assert served.read(64, 136, times=2) == 200
        served.read(150, 15)


def test_the_longest_view_of_a_queue_that_changes_counts() -> None:
    """Of three readings the one that would keep the most decides."""
    served = Served(200)
    served.uses(200)
    served.read(64, 136)
    served.read(150, 50)
    assert served.read(64, 136) == 157  # 200 * (150 + 7.5) / 200


def test_a_server_that_works_for_others_too_gives_us_our_part() -> None:
    """100 of 1000 requests are ours, 256 run: we go down to our part of what it can do."""
    served = Served(100)
    served.uses(100)
    served.read(256, 744, times=3)
    assert served.gate.limit == 50
    served.uses(50)
    served.read(256, 244, times=3)
    assert served.gate.limit == 26  # 50 * (256 + 12.8) / 500


@pytest.mark.parametrize(("running", "waiting"), [(0, 500), (-3, 500), (0, 0), (-1, -1)])
def test_a_server_that_runs_nothing_tells_nothing(running: int, waiting: int) -> None:
    """A model that is being loaded, or nonsense: the limit stays."""
    served = Served(200)
    served.uses(200)
    assert served.read(running, waiting, times=20) == 200


def test_a_limit_that_is_not_in_use_is_not_lowered() -> None:
    """While we pause, others fill the server; that says nothing about us."""
    served = Served(200)
    served.uses(100)
    assert served.read(64, 1000, times=20) == 200


def test_the_limit_never_falls_below_one() -> None:
    """Whatever the server says, one request at a time is sent."""
    served = Served(200)
    for _ in range(20):
        served.answers()
        served.read(1, 10**9, times=3)
    assert served.gate.limit == 1


def test_a_server_with_room_again_is_filled_as_at_the_start() -> None:
    """Nothing has waited for three readings though the limit is in use: a round of answers doubles it."""
    served = Served(200)
    served.uses(200)
    served.read(64, 136, times=6)
    served.uses(67)
    served.read(67, 0, times=2)
    assert served.answers(67) == 70  # 5 % a round, as after any cut
    served.read(70, 0)
    assert served.answers(50) == 120


def test_room_that_we_do_not_use_hastens_nothing() -> None:
    """That nothing waits while little is sent is no sign of room."""
    served = Served(200)
    served.uses(200)
    served.read(64, 136, times=6)
    served.uses(20)
    served.read(20, 0, times=5)
    assert served.answers(67) == 70


def test_a_limit_that_was_cut_for_something_else_is_not_raised() -> None:
    """While 300 requests of before a cut to 100 are worked off, a queue of 50 is no reason for more."""
    served = Served(100)
    served.uses(300)
    assert served.read(250, 50, times=9) == 100


def test_a_reading_shortens_no_longer_hold() -> None:
    """Where the throughput showed that more is no use, for ten minutes, a queue says the same for seconds."""
    limit = AdaptiveLimit(1000, 100)
    limit.settle(50, 600.0, 0.0)
    limit.hold(7.5)
    for _ in range(100):
        limit.succeeded(50, 599.0)
    assert limit.limit == 50
    for _ in range(100):
        limit.succeeded(50, 600.0)
    assert limit.limit > 50


def test_room_at_the_server_does_not_undo_what_a_refusal_showed() -> None:
    """A gateway that refuses at 100 does so whatever the server behind it could do."""
    served = Served(100)
    served.now_s = 1.0
    served.gate.answered(0.5, served.now_s, Signal.THROTTLED, in_flight=100)
    served.uses(85)
    served.read(60, 25, times=3)
    limit = served.gate.limit
    served.now_s += 60
    served.uses(limit)
    served.read(limit, 0, times=5)
    assert served.answers(20) <= limit + 2


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("slots", [4, 64, 256])
def test_a_server_with_a_queue_is_kept_busy_and_its_queue_short(slots: int, seed: int) -> None:
    """95 % of what the server can do after the start, and requests wait for a fraction of what they take."""
    run = simulate(Limiter(2000, random=Random(seed)), Queue(lambda now_s: slots), Random(seed))
    assert run.per_s(300.0) >= 0.95 * slots / LATENCY_S
    assert max(run.limits_between(300.0, 3600.0)) <= max(1.25 * slots, slots + 4)
    assert run.median_latency_s <= (2 if slots == 4 else 1.1) * LATENCY_S


def test_a_server_that_grows_is_followed() -> None:
    """64 slots, after half an hour 256: three minutes later they are in use."""
    run = simulate(Limiter(2000, random=Random(1)), Queue(lambda now_s: 64 if now_s < 1800 else 256), Random(1))
    assert run.per_s(300.0, 1800.0) >= 0.95 * 64 / LATENCY_S
    assert run.per_s(1980.0) >= 0.95 * 256 / LATENCY_S
