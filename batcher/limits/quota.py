"""What retries may cost a run: their rate while nothing succeeds, and attempts that may have been paid for in vain.

An endpoint that fails half of what it is sent must not be sent twice as much for it. So retries draw on a store that
successes fill: as long as most attempts succeed nobody notices, and when the store is empty retries trickle, while new
rows go on as the limiter allows. Pure; time is an argument, in seconds of a monotonic clock.
"""

from __future__ import annotations

from math import inf

from batcher.errors import EndpointError

#: retries in store at the start, and at most; at least twice as many as may be in flight at once, for those that fail
#: together are one event
RETRIES = 500
#: once the store is empty, retries are this far apart, and none is put off for longer than the second
APART_S = 1.0
LONGEST_DELAY_S = 60.0
#: attempts that may have been paid for in vain and are no reason to stop, whatever the share
UNSURE = 100


class RetryQuota:
    """The store of retries of one process."""

    __slots__ = ("_last_s", "_left", "_most")

    def __init__(self, ceiling: int) -> None:
        """`ceiling` is how many requests may be in flight at most."""
        self._most = max(RETRIES, 2 * ceiling)
        self._left = self._most
        #: the moment of the last retry that was put off
        self._last_s = -inf

    def __repr__(self) -> str:
        return f"<RetryQuota: {self._left} of {self._most} left>"

    def succeeded(self) -> None:
        """Put one back: an attempt has succeeded."""
        if self._left < self._most:
            self._left += 1

    def delay_s(self, now_s: float) -> float:
        """Take a retry that counts against its row; return for how many seconds more than otherwise it is put off."""
        if self._left:
            self._left -= 1
            return 0.0
        self._last_s = min(max(self._last_s, now_s) + APART_S, now_s + LONGEST_DELAY_S)
        return self._last_s - now_s


class UnsureBudget:
    """How many attempts of a run may have been paid for without an answer before that is a reason to stop."""

    __slots__ = ("_least", "_share")

    def __init__(self, share: float, concurrency: int) -> None:
        """`share` is the part of the completed rows that is allowed, `concurrency` how many may be lost at once."""
        self._share = share
        self._least = max(UNSURE, 2 * concurrency)

    def allowed(self, completed: int) -> int:
        """Return how many unsure attempts so many completed rows allow."""
        return max(self._least, int(self._share * completed))

    def spent(self, unsure: int, completed: int) -> bool:
        """Whether the run should stop: `unsure` attempts and `completed` rows, both of this run."""
        return unsure > self.allowed(completed)


def as_leak(unsure: int, completed: int) -> EndpointError:
    """Return what a run ends with that has lost too many answers: so many attempts, for so many rows completed."""
    return EndpointError(
        f"{unsure} requests of this run were sent without an answer, for {completed} rows completed;"
        " they may have been paid for (limits.max_unsure_share). Look at endpoint.timeouts and at what stands"
        " between here and the endpoint, then run the same command again"
    )
