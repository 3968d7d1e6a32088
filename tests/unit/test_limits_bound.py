"""Which limit a run found and what bounded it, in the words of the end of a run."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from batcher.limits import DISK, INPUT, Limiter
from batcher.records import Signal

#: looks are this far apart
STEP_S = 0.2


class Looks:
    """A limiter of a run that somebody looks at a few times a second."""

    def __init__(self, ceiling: int = 1000, *, start: int = 100, **options: Any) -> None:
        self.gate = Limiter(ceiling, random=Random(5), start=start, proven=True, **options)
        self.now_s = self.cpu_s = 0.0
        self.gate.looked(0, 0.0)

    def look(
        self,
        seconds: float,
        *,
        used: float = 1.0,
        unused_for: str | None = None,
        cpu: float = 0.1,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> str:
        """Look for so long, with this share of the limit in use and this share of a CPU; return what was found."""
        for _ in range(round(seconds / STEP_S)):
            self.now_s += STEP_S
            self.cpu_s += STEP_S * cpu
            meanwhile()
            in_flight = int(used * self.gate.limit)
            self.gate.looked(in_flight, self.now_s, unused_for=unused_for, cpu_s=self.cpu_s)
        return self.gate.found()

    def result(self, signal: Signal, **more: Any) -> None:
        """A request that was sent a moment ago comes back."""
        self.gate.answered(self.now_s - 0.01, self.now_s, signal, in_flight=self.gate.limit, **more)

    def send_all(self) -> None:
        """Send what may be sent."""
        while self.gate.allowance(0, self.now_s):
            self.gate.sent(self.now_s)


def test_a_limit_that_is_in_use_and_may_still_grow_has_met_no_bound() -> None:
    """A run that ends while it speeds up says so."""
    assert Looks().look(10) == "100 requests at once, no bound was met"


def test_the_ceiling_of_the_job_file_is_a_bound() -> None:
    """All that `limits.concurrency` allows is in use."""
    assert Looks(100).look(10) == "100 requests at once, held there by limits.concurrency"


@pytest.mark.parametrize(
    ("signal", "times", "found"),
    [
        (Signal.THROTTLED, 1, "85 requests at once, held there by the server's rate limit (429)"),
        (Signal.OVERLOADED, 5, "50 requests at once, held there by the server's overload"),
    ],
)
def test_a_limit_that_refusals_hold_down_is_the_servers(signal: Signal, times: int, found: str) -> None:
    """A 429 or a burst of 503s cut the limit, and what is left of it is in use."""
    looks = Looks()
    for _ in range(times):
        looks.result(signal)
    assert looks.look(10) == found


def test_the_pauses_that_refusals_ask_for_count_as_their_bound() -> None:
    """A server that asks to wait most of the time bounds the run by that, whatever is in flight meanwhile."""
    looks = Looks(100)
    looks.result(Signal.THROTTLED, wait_s=60)
    assert looks.look(60, used=0.0) == "85 requests at once, held there by the server's rate limit (429)"


def test_a_quota_of_the_headers_is_the_accounts() -> None:
    """No refusal at all: the account's requests of this minute are used up before the limit is."""
    looks = Looks(100)
    used_up = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0"}
    looks.look(
        60, meanwhile=lambda: looks.result(Signal.SUCCESS, headers=used_up | {"x-ratelimit-reset-requests": "60s"})
    )
    assert looks.gate.found() == "100 requests at once, held there by the account's quota"


def test_a_rate_of_the_job_file_is_a_bound() -> None:
    """The requests of this minute are used up before the limit is."""
    looks = Looks(requests_per_minute=60)
    looks.look(10, used=0.1, unused_for=INPUT, meanwhile=looks.send_all)
    assert looks.gate.found() == "100 requests at once, held there by limits.requests_per_minute (60)"


def test_a_queue_at_the_server_is_a_bound() -> None:
    """The server's own gauges stopped the growth."""
    looks = Looks()
    looks.result(Signal.NONE)
    looks.look(10, meanwhile=lambda: looks.gate.gauged(64, 36, looks.now_s))
    assert looks.gate.found().endswith("requests at once, held there by the server's queue")


@pytest.mark.parametrize("missing", [INPUT, DISK])
def test_rows_that_do_not_come_fast_enough_leave_the_limit_unused(missing: str) -> None:
    """What could be sent waits for the file to be read, or for the disk to note that it is sent."""
    found = Looks().look(10, used=0.5, unused_for=missing)
    assert found == f"100 requests at once, held back by {missing}"


def test_a_limit_in_use_wants_no_rows() -> None:
    """That the next row is not there yet is no matter while there is no room for it."""
    assert Looks(100).look(10, used=0.9, unused_for=INPUT) == "100 requests at once, held there by limits.concurrency"


def test_a_machine_that_computes_all_the_time_is_a_bound() -> None:
    """The thread that sends does hardly anything else for two seconds on end."""
    assert Looks(100).look(60, cpu=0.95) == "100 requests at once, held back by this machine's CPU"
    assert Looks(100).look(60, cpu=0.85) == "100 requests at once, held there by limits.concurrency"


def test_a_busy_moment_is_no_bound() -> None:
    """A tenth of a second that is all computing, such as a part being written, says nothing."""
    looks = Looks(100)
    found = ""
    for _ in range(30):
        looks.look(0.2, cpu=1.0)
        found = looks.look(1.8, cpu=0.1)
    assert found == "100 requests at once, held there by limits.concurrency"


def test_what_bounded_most_of_the_run_comes_first() -> None:
    """Below four fifths of the time the other bounds are named too, if they held for a tenth."""
    looks = Looks(100)
    looks.look(60)
    looks.look(35, used=0.1, unused_for=INPUT)
    assert looks.look(5, cpu=1.0) == (
        "100 requests at once, held there by limits.concurrency 63 % of the time, the input 35 %"
    )
    looks.look(400, used=0.1, unused_for=INPUT)
    assert looks.gate.found() == "100 requests at once, held back by the input"


def test_an_outage_and_the_end_of_the_rows_bound_nothing() -> None:
    """While the endpoint is away, or the last rows are answered, nothing is learned about a limit."""
    looks = Looks(100)
    looks.look(10)
    looks.look(60, used=0.1)  # no row is missing
    looks.gate.outage(looks.now_s)
    looks.look(60, used=0.0, unused_for=INPUT)
    assert looks.gate.found() == "100 requests at once, held there by limits.concurrency"


def test_a_machine_that_slept_counts_no_hours() -> None:
    """The time between two looks counts for five seconds at most."""
    looks = Looks(100)
    looks.look(60)
    looks.now_s += 10_000
    looks.look(1, used=0.1, unused_for=INPUT)
    assert looks.gate.found() == "100 requests at once, held there by limits.concurrency"


def test_a_run_that_nobody_looked_at_says_what_the_limiter_knows() -> None:
    """The ceiling or the latest cut."""
    gate = Limiter(100, random=Random(5), start=100, proven=True)
    assert gate.found() == "100 requests at once, held there by limits.concurrency"
    gate.answered(0.0, 1.0, Signal.THROTTLED, in_flight=100)
    assert gate.found() == "85 requests at once, held there by the server's rate limit (429)"
