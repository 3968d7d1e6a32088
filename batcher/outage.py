"""Tells from the results of requests whether the endpoint was down for a while, so that no row is to blame.

The evidence is what was sent after a first failure: while an endpoint is down all of that fails. Where single rows fail
quickly among good ones that take long, most of what was sent since is still under way. Requests are told apart by their
number, in the order of sending. Time is an argument, in seconds of a monotonic clock.
"""

from __future__ import annotations

from math import inf

#: failures of requests sent after the first failure, as a number and as a share of all those, that make an outage
FAILURES = 10
SHARE = 0.5


class Outages:
    """The latest outage, and what may become the next one."""

    __slots__ = ("_began_s", "_ended_s", "_failed", "_first_s", "_sent", "_sent_at_first")

    def __init__(self) -> None:
        self._sent = 0
        #: when a failure came that nothing has disproved since, and what was sent by then
        self._first_s, self._sent_at_first = inf, 0
        #: failures of what was sent after it
        self._failed = 0
        self._began_s, self._ended_s = inf, -inf

    def sent(self) -> int:
        """Return the number of a request that is being sent."""
        self._sent += 1
        return self._sent

    def failed(self, number: int, now_s: float) -> None:
        """Count a failure that may be the endpoint's."""
        if self._first_s == inf:
            self._first_s, self._sent_at_first = now_s, self._sent
        elif number > self._sent_at_first:
            self._failed += 1

    def succeeded(self, number: int, now_s: float) -> bool:
        """Take in a success; True if it ends an outage."""
        if self._first_s == inf or number <= self._sent_at_first:
            return False
        since = number - 1 - self._sent_at_first
        was_down = self._failed >= FAILURES and self._failed > SHARE * since
        if was_down:
            self._began_s, self._ended_s = self._first_s, now_s
        self._first_s, self._failed = inf, 0
        return was_down

    def covers(self, at_s: float) -> bool:
        """Whether a moment falls into the latest outage that is over."""
        return self._began_s <= at_s <= self._ended_s
