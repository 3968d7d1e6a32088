"""The adaptive number of requests in flight: it grows while answers come and shrinks when the endpoint refuses.

Additive increase, multiplicative decrease, driven by explicit refusals. Latency says nothing here: how long a
completion takes is a matter of its length. An *episode* is everything that was sent before the latest cut: its failures
cannot cut again, or one burst of refusals would multiply the cut.

A self-hosted server refuses nothing and only gets slower; `Plateau` finds the point where more requests in flight stop
making it any faster. Time is an argument, in seconds of a monotonic clock.
"""

from __future__ import annotations

from math import inf

#: growth needs this share of the limit to be in use: what is not used proves nothing
USED_SHARE = 0.8
#: growth of the limit per limit's worth of successes, after the first cut
GROWTH = 0.05
#: from this share of the limit at which the server last refused, growth is five times slower, and getting there again
#: takes at least so many successes and seconds: refusals stay rare where the limit is a handful, and so do pauses where
#: an answer takes milliseconds
NEAR_SHARE = 0.95
NEAR_SLOWNESS = 5
NEAR_SUCCESSES = 200
NEAR_S = 10.0
#: a refusal from this share on confirms the former one
SAME_SHARE = 0.9
#: beyond this multiple of it the server allows more than it did, and growth is twice as fast
FAR_SHARE = 1.25
FAR_SPEED = 2
THROTTLED_FACTOR = 0.85
#: deeper where refusals come at any load, so that those that do not come to an end
CLEAR_FACTOR = 0.75
OVERLOADED_FACTOR = 0.5
#: overloads that make a burst, at least, and as a share of the limit; ten successes outweigh one of them, for there are
#: gateways that drop the odd request at any load
BURST = 5.0
BURST_SHARE = 0.05
RELIEF_PER_SUCCESS = 0.1
#: after an outage the limit starts again from this share of the former one
RESTART_SHARE = 0.1


class AdaptiveLimit:
    """How many requests may be in flight: at least 1, at most the ceiling."""

    __slots__ = (
        "_ceiling",
        "_cut_at_s",
        "_exact",
        "_held_until_s",
        "_refused_at",
        "_slow_start_to",
        "_strain",
        "limit",
    )

    def __init__(self, ceiling: int, start: int) -> None:
        self._ceiling = max(1, ceiling)
        self._exact = float(max(1, min(start, self._ceiling)))
        #: the whole part of `_exact`
        self.limit = int(self._exact)
        #: below this each success adds one
        self._slow_start_to = inf
        self._cut_at_s = -inf
        #: the limit at which a request was last refused; 0 for unknown
        self._refused_at = 0
        self._held_until_s = -inf
        #: recent overloads not yet outweighed by successes
        self._strain = 0.0

    def succeeded(self, in_flight: int, now_s: float) -> None:
        """Grow by a success that came while so many requests were in flight, the answered one included."""
        if self._strain:
            self._strain = max(0.0, self._strain - RELIEF_PER_SUCCESS)
        exact = self._exact
        if in_flight < USED_SHARE * self.limit or exact >= self._ceiling or now_s < self._held_until_s:
            return
        self._set(exact + self._step(exact, now_s))

    def _step(self, exact: float, now_s: float) -> float:
        """Return how much one success adds to a limit that is in use."""
        if exact < self._slow_start_to:
            return 1.0
        step, refused_at = max(1.0 / exact, GROWTH), self._refused_at
        if exact >= refused_at:
            return step if not refused_at or exact < FAR_SHARE * refused_at else step * FAR_SPEED
        near = NEAR_SHARE * refused_at
        if exact < near:
            return min(step, near - exact)
        step = min(step / NEAR_SLOWNESS, (refused_at - near) / NEAR_SUCCESSES)
        early = exact + step >= refused_at and now_s < self._cut_at_s + NEAR_S
        return 0.0 if early else step

    def throttled(self, sent_at_s: float, now_s: float, *, clearly: bool = False) -> bool:
        """Shrink a little for a refusal (429), or `clearly`, once per episode; return whether it did."""
        return self._cut(CLEAR_FACTOR if clearly else THROTTLED_FACTOR, sent_at_s, now_s)

    def overloaded(self, sent_at_s: float, now_s: float) -> bool:
        """Halve for a burst of overloads (503, no answer in time), once per episode; return whether it did."""
        if sent_at_s <= self._cut_at_s:
            return False
        self._strain += 1
        if self._strain < max(BURST, BURST_SHARE * self.limit):
            return False
        self._strain = 0.0
        return self._cut(OVERLOADED_FACTOR, sent_at_s, now_s)

    def _cut(self, factor: float, sent_at_s: float, now_s: float) -> bool:
        if sent_at_s <= self._cut_at_s:
            return False
        self._cut_at_s = now_s
        # refused much sooner than last time: what was remembered no longer holds
        self._refused_at = self.limit if self.limit >= SAME_SHARE * self._refused_at else 0
        self._set(self._exact * factor)
        self._slow_start_to = self._exact
        return True

    def settle(self, limit: float, hold_s: float, now_s: float) -> None:
        """Go to `limit` and stay there for `hold_s`: more than that gained nothing."""
        self._set(limit)
        self._slow_start_to = self._exact
        self.hold(now_s + hold_s)

    def hold(self, until_s: float) -> None:
        """Do not grow until then, or longer if that was said before."""
        self._held_until_s = max(self._held_until_s, until_s)

    def hasten(self) -> None:
        """Grow as at the start, unless a refusal has shown where the limit is."""
        if not self._refused_at:
            self._slow_start_to = inf

    def regrow(self, former: int) -> None:
        """Go back to the `former` limit and grow on from there as at the start: the cuts since were for nothing."""
        self._slow_start_to = inf
        self._refused_at = 0
        self._strain = 0.0
        self._set(former)

    def restart(self, former: int) -> None:
        """Start again after an outage, quickly up to the `former` limit if that had been found by a cut."""
        if self._slow_start_to < inf:
            self._slow_start_to = float(former)
        self._set(former * RESTART_SHARE)
        self._strain = 0.0

    def cap(self, ceiling: int) -> None:
        """Go no higher than `ceiling` from now on."""
        self._ceiling = max(1, ceiling)
        self._set(self._exact)

    def _set(self, exact: float) -> None:
        self._exact = max(1.0, min(exact, float(self._ceiling)))
        self.limit = int(self._exact)


class Plateau:
    """Notices that a higher limit stopped paying: tokens per second, before and after the limit rose."""

    __slots__ = (
        "_due_s",
        "_hold_s",
        "_latencies_s",
        "_limit",
        "_limit_at_start",
        "_rate",
        "_since_s",
        "_successes",
        "_work",
    )

    #: one measurement lasts this long and so many times the mean latency, or it sees single waves of answers; and it
    #: takes in at least so many successes, or it is noise
    WINDOW_S = 30.0
    LATENCIES = 2
    SUCCESSES = 100
    #: up to this rise it is the same limit; a measurement during which it did not rise by more refreshes the rate
    SAME_LIMIT = 1.08
    #: a rise of the limit to this multiple is judged; it gained nothing if the rate stayed below the second multiple
    LIMIT_ROSE = 1.5
    RATE_ROSE = 1.2
    #: back to a little below the limit that was as good; for so long at first, twice as long each further time in a row
    BACK = 0.95
    FIRST_HOLD_S = 60.0
    LONGEST_HOLD_S = 600.0

    def __init__(self) -> None:
        #: the measurement under way
        self._since_s = -inf
        self._due_s = -inf
        self._work = 0.0
        self._successes = 0
        self._latencies_s = 0.0
        #: answers come one latency after the limit rose, so a rate counts for the limit at the start of its measurement
        self._limit_at_start = 0
        #: the limit and the rate to compare with; a limit of 0 is none
        self._limit = 0
        self._rate = 0.0
        self._hold_s = self.FIRST_HOLD_S

    def succeeded(self, work: float, latency_s: float, limit: int, now_s: float) -> tuple[float, float] | None:
        """Count a success; if the latest rise gained nothing, return where to settle and for how many seconds."""
        self._work += work
        self._successes += 1
        self._latencies_s += latency_s
        if now_s < self._due_s or self._successes < self.SUCCESSES:
            return None
        length_s = now_s - self._since_s
        if length_s < self.LATENCIES * self._latencies_s / self._successes:
            return None
        rate = self._work / length_s
        before, self._limit_at_start = self._limit_at_start, limit
        self._since_s, self._due_s = now_s, now_s + self.WINDOW_S
        self._work, self._latencies_s, self._successes = 0.0, 0.0, 0
        if not before or limit < before:
            self._limit = 0  # what was measured belongs to no one limit
            return None
        return self._judge(rate, before, steady=limit <= before * self.SAME_LIMIT)

    def _judge(self, rate: float, limit: int, *, steady: bool) -> tuple[float, float] | None:
        if not self._limit:
            self._limit, self._rate = limit, rate
            return None
        if limit <= self._limit * self.SAME_LIMIT:
            if steady:
                self._limit, self._rate = min(limit, self._limit), rate
            return None
        if limit < self._limit * self.LIMIT_ROSE:
            return None
        former, gained = self._limit, rate >= self._rate * self.RATE_ROSE
        self._limit, self._rate = limit, rate
        if gained:
            self._hold_s = self.FIRST_HOLD_S
            return None
        hold_s, self._hold_s = self._hold_s, min(2 * self._hold_s, self.LONGEST_HOLD_S)
        return former * self.BACK, hold_s
