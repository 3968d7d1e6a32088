"""Finds out by single requests whether a refusal concerns the whole run.

A refused key may be one row's bad luck with a gateway, a key that is being replaced, or the end of the run. So nothing
is sent but one request at a time, after the waits its caller names: one that succeeds ends the inquiry, and when the
last of them is refused as well the suspicion is confirmed. A probe that ends in another way decides nothing and is sent
again after the same wait.

Where such refusals turn out to be single rows' own, each further inquiry takes twice as many of them in a row as the
one before, or a few bad rows in a hundred would make the run wait for each of them.

Knows no status and no row. Time is an argument, in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from batcher.limits.words import in_words

#: a wait of nothing is this long, so that a probe is always sent later than what led to it
MOMENT_S = 0.001
#: refusals in a row, at most, before they are looked into however often they were for nothing
MOST_DOUBTS = 1000


class Inquiry:
    """A suspicion against the run, and the requests that are to confirm it."""

    __slots__ = (
        "_cleared_s",
        "_doubted_s",
        "_doubts",
        "_needed",
        "_opened_at_s",
        "_probing",
        "_reason",
        "_refused",
        "_waits_s",
        "is_open",
        "next_probe_s",
    )

    def __init__(self) -> None:
        self.is_open = False
        self.next_probe_s = -inf
        self._reason = ""
        self._waits_s: Sequence[float] = ()
        self._opened_at_s = -inf
        self._probing = False
        #: probes that were refused
        self._refused = 0
        #: refusals since a success, the sending of the first of them, and how many open an inquiry
        self._doubts, self._doubted_s, self._needed = 0, inf, 1
        #: when the last probe that succeeded was sent: refusals of what was sent before it are disproved
        self._cleared_s = -inf

    @property
    def is_quiet(self) -> bool:
        """Whether a success would change nothing here."""
        return not self.is_open and not self._doubts

    def refused(self, reason: str, waits_s: Sequence[float], sent_at_s: float, now_s: float) -> bool:
        """Count a refusal; True if the suspicion is confirmed by it."""
        if self.is_open:
            return sent_at_s > self._opened_at_s and self._probe_refused(reason, now_s)
        if sent_at_s <= self._cleared_s:
            return False
        self._doubts += 1
        self._doubted_s = min(self._doubted_s, sent_at_s)
        if self._doubts < self._needed:
            return False
        self.is_open, self._reason, self._waits_s = True, reason, tuple(waits_s)
        self._opened_at_s, self._refused = now_s, 0
        return self._wait_for_probe(now_s)

    def _probe_refused(self, reason: str, now_s: float) -> bool:
        self._reason = reason
        self._refused += 1
        return self._wait_for_probe(now_s)

    def _wait_for_probe(self, now_s: float) -> bool:
        """Set the time of the next probe; True if there was none left."""
        self._probing = False
        left = self._waits_s[self._refused :] or self._waits_s[-1:] or (0.0,)
        self.next_probe_s = now_s + max(MOMENT_S, left[0])
        return self._refused >= len(self._waits_s)

    def undecided(self, sent_at_s: float, now_s: float) -> None:
        """A result that is neither success nor refusal: a probe that ended so is followed by another."""
        if self.is_open and sent_at_s > self._opened_at_s:
            self._wait_for_probe(now_s)

    def succeeded(self, sent_at_s: float) -> None:
        """Close, if what succeeded was sent late enough to say something."""
        if self.is_open:
            if sent_at_s > self._opened_at_s:
                self.is_open, self._cleared_s = False, sent_at_s
                self._doubts, self._doubted_s = 0, inf
                self._needed = min(MOST_DOUBTS, 2 * self._needed)
        elif sent_at_s > self._doubted_s:
            self._doubts, self._doubted_s = 0, inf

    def may_probe(self, in_flight: int, now_s: float) -> bool:
        """Return whether one request may be sent; those sent before do not count."""
        return now_s >= self.next_probe_s and (in_flight == 0 or not self._probing)

    def probing(self, now_s: float) -> None:
        """Note that the request being sent is the probe."""
        self._probing = True

    def why(self, now_s: float) -> str:
        """Say what was refused and when it is tried again."""
        if self._probing:
            return f"{self._reason}, waiting for the answer to one request"
        return f"{self._reason}, asking again in {in_words(max(0.0, self.next_probe_s - now_s))}"

    def hopeless(self, now_s: float, max_outage_s: float) -> str | None:
        """Return why the run should stop if no probe has decided for too long, or None."""
        open_s = now_s - self._opened_at_s
        if not self.is_open or open_s <= max_outage_s:
            return None
        return f"{self._reason} since {in_words(open_s)}, longer than limits.max_outage_s ({max_outage_s:g})"
