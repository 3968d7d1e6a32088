"""Tells refusals that come of sending too much from stray ones, which come at any load.

An endpoint that has a limit refuses what is above it and nothing below. A gateway with a bad replica, or one that drops
the odd request, refuses its share whatever is sent; cutting for it only makes a run slow. Cutting tells the two apart:
the share refused when the first cut was made says how much the endpoint could take, and refusals well below that, in a
share much like before, are stray. Then the limit may go back to where it was, and only a clear rise counts. After each
such rise the share is taken anew below it: if fewer are refused there, the endpoint has a limit after all, as one that
allows so many tokens a minute, which takes a while to show.

Shares are of requests sent, not of requests answered: a refusal comes at once and an answer takes seconds, so whoever
counts answers sees mostly refusals for a while. Each kind of refusal is watched by itself: where one in ten gateways is
overloaded at any load, a 429 still says what it says. Time is an argument, in seconds of a monotonic clock.
"""

from __future__ import annotations

from math import inf

#: the limit must be this far below what the endpoint seemed to take before a refusal is suspect
BELOW = 0.9
#: suspect refusals and requests needed for a verdict, and the part of the share that was refused at first
SUSPECTS = 4
EVIDENCE = 12
PART_OF_FIRST = 0.4
#: they come at any time; if all came within the last part of these requests, the endpoint has changed
SPREAD = 0.25
#: and if so many times the usual number passed without one, it was the cuts that helped
SILENCE = 5.0
#: a share below which it is not worth deciding, and one above which nothing is called stray
LEAST_SHARE = 0.01
MOST_SHARE = 0.5
#: a share that has become lower than this in the long run is none any more
FORGOTTEN_SHARE = 0.002
#: a share that is higher than before by more than this, as a factor and on top of it, is not the same trouble
SAME_FACTOR = 5.0
SAME_MARGIN = 0.05
#: once refusals are known to be stray, they count again above this multiple of their share, and this much more
RISE = 1.5
RISE_MARGIN = 0.08
#: after such a rise the share is taken anew, below this part of the limit at which it came, over so many requests or as
#: many as should hold so many refusals; a share less than this part of what was thought shows that nothing is stray
CHECKED_BELOW = 0.9
CHECKED = 60
CHECKED_REFUSALS = 6
MISTAKEN = 0.5
#: after that, refusals are suspect only this far below the limit of then, until the limit has outgrown it by so much
MISTAKEN_BELOW = 0.7
OUTGROWN = 1.5
#: requests over which the present share is taken, at least; and at most those over which the lasting one is
MEMORY = 100
LONG_MEMORY = 2000


class Stray:
    """Watches one kind of refusals of one endpoint.

    `total` is in all of this how many requests have been sent so far, so that what is sent costs nothing to count.
    """

    __slots__ = (
        "_bad",
        "_bad_below",
        "_bad_first",
        "_bad_lately",
        "_below_since_s",
        "_bound",
        "_counted",
        "_first_cut_s",
        "_first_suspect",
        "_former",
        "_last_suspect",
        "_lately_since",
        "_mistaken_at",
        "_rose_at",
        "_sent",
        "_sent_below",
        "background",
    )

    def __init__(self) -> None:
        #: the share of requests that are refused whatever is sent; 0 while nothing is known
        self.background = 0.0
        #: refusals of the present stretch, and the total at which it began
        self._bad_lately = self._lately_since = 0
        #: requests and refusals of a long time, and the total up to which they are counted
        self._sent = self._bad = 0.0
        self._counted = 0
        #: the limit at the latest rise, and at the one that showed that nothing is stray; 0 for none
        self._rose_at = self._mistaken_at = 0
        self._forget()

    def _forget(self) -> None:
        #: the first cut of a series, and the limit before it
        self._first_cut_s, self._former = inf, 0
        #: since when the limit has been under the bound, which is well below what the endpoint seemed to take
        self._below_since_s, self._bound = inf, 0.0
        #: refusals of requests sent before the first cut, and below the bound; and how many were sent there
        self._bad_first = self._bad_below = self._sent_below = 0
        #: how many had been sent there when the first and the last of these refusals came
        self._first_suspect = self._last_suspect = 0

    @property
    def is_below(self) -> bool:
        """The limit is below the bound, so `sent_below` wants to know what is sent."""
        return self._below_since_s < inf

    def sent_below(self, limit: int) -> None:
        """Count a request that is being sent, if it is while the limit is below the bound."""
        if self._below_since_s < inf:
            if limit <= self._bound:
                self._sent_below += 1
            else:
                self._below_since_s = inf

    def refused(self, sent_at_s: float, limit: int, total: int) -> None:
        """Count a refusal."""
        self._catch_up(limit, total)
        self._bad += 1
        self._bad_lately += 1
        if sent_at_s <= self._first_cut_s < inf:
            self._bad_first += 1
        elif sent_at_s > self._below_since_s:
            self._suspect()

    def _suspect(self) -> None:
        if not self._bad_below:
            self._first_suspect = self._sent_below
        elif not self.background and self._sent_below - self._last_suspect > SILENCE * self._usual_gap():
            self._forget()  # the cuts had ended them: it was the load
            return
        self._last_suspect = self._sent_below
        self._bad_below += 1

    def _usual_gap(self) -> float:
        return max(float(EVIDENCE), self._last_suspect / self._bad_below)

    def _catch_up(self, limit: int, total: int) -> None:
        self._sent += total - self._counted
        self._counted = total
        if total - self._lately_since >= max(MEMORY, limit):
            self._begin_stretch()
            while self._sent >= LONG_MEMORY:
                self._sent, self._bad = self._sent / 2, self._bad / 2
            self.background = min(self.background, self._bad / self._sent)
            if self.background < FORGOTTEN_SHARE:
                self.background = 0.0

    def _begin_stretch(self) -> None:
        self._lately_since, self._bad_lately = self._counted, 0

    def ignores(self, limit: int) -> bool:
        """Whether a refusal now is one of the stray ones, to be borne by its row alone."""
        if not self.background:
            return False
        share = min(MOST_SHARE, RISE * self.background + RISE_MARGIN)
        return self._bad_lately <= share * max(MEMORY, limit)

    def was_cut(self, before: int, now: int, now_s: float) -> None:
        """Note that the limit was cut from `before` to `now`."""
        self._begin_stretch()  # the next cut wants evidence of its own
        if self.background:
            self._rose_at, self._bound = before, CHECKED_BELOW * before
        else:
            if before > self._former:
                self._forget()
                self._first_cut_s, self._former = now_s, before
            if before > OUTGROWN * self._mistaken_at:
                self._mistaken_at = 0
            self._bound = MISTAKEN_BELOW * self._mistaken_at or BELOW * (self._former - self._bad_first)
        if self._below_since_s == inf and now <= self._bound:
            self._below_since_s = now_s

    def verdict(self) -> int | None:
        """Return the limit to go back to, once refusals below what the endpoint could take show that they are stray."""
        if self.background:
            self._check()
            return None
        if self._bad_below < SUSPECTS or self._sent_below < EVIDENCE:
            return None
        share, first = self._share_below(), self._bad_first / self._former
        if share < max(LEAST_SHARE, PART_OF_FIRST * first):
            return None
        former = self._former
        lasting = self._bad / max(1.0, self._sent)
        self._forget()
        if max(share, lasting) > MOST_SHARE or share > SAME_FACTOR * lasting + SAME_MARGIN:
            return None
        self.background = share
        self._begin_stretch()
        return former

    def _share_below(self) -> float:
        """The share refused below the bound; of late, if the first refusal came late: what has begun is no chance."""
        since = self._sent_below - self._first_suspect
        return self._bad_below / max(1, since if since < SPREAD * self._sent_below else self._sent_below)

    def _check(self) -> None:
        """Take the share anew since the limit was cut for a rise, once enough was sent."""
        if self._sent_below < max(CHECKED, CHECKED_REFUSALS / self.background):
            return
        share = self._bad_below / self._sent_below
        least = max(LEAST_SHARE, MISTAKEN * self.background)
        self.background = share if least <= share <= MOST_SHARE else 0.0
        if share < least:
            self._mistaken_at = self._rose_at
        self._forget()
