"""What happens while nothing succeeds: growing pauses, then single probes, in the end giving up.

A *round* is what was sent since the last pause began; however many requests of it fail, it counts once, so a pool of
a thousand requests that fail together is one sign of trouble and not a thousand. Pauses double from round to round.
Ten failures in a row over thirty seconds open the breaker: from then on one request at a time is sent as a probe, ever
less often, until one succeeds.

A refusal for sending too much (429) makes the pauses grow but never opens the breaker: the endpoint is there.
Knows nothing of limits, buckets or the event loop. Time is an argument, in seconds of a monotonic clock.
"""

from __future__ import annotations

from math import inf
from random import Random

from batcher.limits.words import in_words
from batcher.records import Signal

#: this many failures without a success between, over at least this long, are an outage
FAILURES_OF_AN_OUTAGE = 10
FAILING_FOR_S = 30.0
#: failures in a row that cause no pause while the endpoint otherwise answers, at least and as a share of the requests
#: in flight: single connections do break, several may at once, and failures are quicker than the answers sent with
#: them. Where three in ten fail by chance, twenty in a row come once in 10^10 results; five would come every second
#: if an answer took milliseconds.
ISOLATED_FAILURES = 20
ISOLATED_SHARE = 0.5
#: the first pause; the second is twice as long, and so on
THROTTLED_PAUSE_S = 0.5
FAILED_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
#: a probe comes after this part of the time the outage has lasted, so that a recovery is noticed in time whether it
#: comes after minutes or hours; at least and at most so long after the one before
PROBE_SHARE = 0.125
PROBE_AFTER_S = 15.0
LONGEST_PROBE_WAIT_S = 300.0
#: an endpoint that was never reached, in this many rounds, has a wrong address
ROUNDS_UNREACHED = 4

_WORDS = {
    Signal.THROTTLED: "rate limited by the server",
    Signal.OVERLOADED: "endpoint overloaded",
    Signal.FAILING: "endpoint failing",
    Signal.UNREACHABLE: "endpoint unreachable",
}


class Breaker:
    """The trouble since the last success, and what it means for sending."""

    __slots__ = (
        "_failing_since_s",
        "_failures",
        "_max_outage_s",
        "_opened_at_s",
        "_probing",
        "_proven",
        "_random",
        "_round_at_s",
        "_rounds",
        "_succeeded",
        "_troubled_since_s",
        "_unreached",
        "is_calm",
        "is_open",
        "next_probe_s",
        "signal",
    )

    def __init__(self, *, proven: bool, max_outage_s: float, random: Random) -> None:
        self._proven = proven
        self._max_outage_s = max_outage_s
        self._random = random
        #: in this process, whereas `proven` may stem from an earlier one
        self._succeeded = False
        self._clear()

    def _clear(self) -> None:
        self.is_open = False
        #: the latest result was a success
        self.is_calm = self._succeeded
        #: the latest failure's signal
        self.signal = Signal.NONE
        self._troubled_since_s = inf
        self._failing_since_s = inf
        self._failures = 0
        self._rounds = 0
        self._round_at_s = -inf
        self._unreached = 0
        self._opened_at_s = inf
        self._probing = False
        self.next_probe_s = -inf

    def succeeded(self) -> None:
        """Forget all trouble; close."""
        self._proven = self._succeeded = True
        self._clear()

    def failed(self, signal: Signal, sent_at_s: float, now_s: float, limit: int) -> float:
        """Count a result that is neither success nor `NONE`; return how long to send nothing because of it.

        `limit` is how many requests may be in flight.
        """
        self.is_calm, self.signal = False, signal
        self._troubled_since_s = min(self._troubled_since_s, now_s)
        if signal is not Signal.UNREACHABLE:
            self._unreached = 0
        if self.is_open:
            if sent_at_s > self._opened_at_s:
                self._wait_for_probe(now_s)
            return 0.0
        if signal is Signal.THROTTLED:
            self._failures, self._failing_since_s = 0, inf
            return max(THROTTLED_PAUSE_S, self._pause_s(THROTTLED_PAUSE_S, sent_at_s, now_s))
        self._failures += 1
        self._failing_since_s = min(self._failing_since_s, now_s)
        if self._failures >= FAILURES_OF_AN_OUTAGE and now_s - self._failing_since_s >= FAILING_FOR_S:
            self.open(now_s)
            return 0.0
        if self._succeeded and self._failures <= max(ISOLATED_FAILURES, ISOLATED_SHARE * limit):
            return 0.0
        return self._pause_s(FAILED_PAUSE_S, sent_at_s, now_s)

    def _pause_s(self, first_s: float, sent_at_s: float, now_s: float) -> float:
        if sent_at_s <= self._round_at_s:
            return 0.0
        self._round_at_s = now_s
        self._unreached += self.signal is Signal.UNREACHABLE
        pause_s = min(LONGEST_PAUSE_S, first_s * 2 ** min(self._rounds, 10))
        self._rounds += 1
        return float(pause_s)

    def open(self, now_s: float) -> None:
        """Take it for an outage from now on, if it is not one already."""
        if self.is_open:
            return
        if self.signal in (Signal.NONE, Signal.THROTTLED):
            self.signal = Signal.FAILING
        self.is_calm, self.is_open = False, True
        self._troubled_since_s = min(self._troubled_since_s, now_s)
        self._failing_since_s = min(self._failing_since_s, now_s)
        self._opened_at_s = now_s
        self._wait_for_probe(now_s)

    def _wait_for_probe(self, now_s: float) -> None:
        part_s = PROBE_SHARE * (now_s - self._failing_since_s)
        self._probe_after(min(LONGEST_PROBE_WAIT_S, max(PROBE_AFTER_S, part_s)), now_s)

    def _probe_after(self, wait_s: float, now_s: float) -> None:
        self._probing = False
        self.next_probe_s = now_s + wait_s + self._random.uniform(0, wait_s / 10)

    def undecided(self, sent_at_s: float, now_s: float) -> None:
        """A probe ended in a way that says nothing about the endpoint: another one follows, as soon as the first."""
        if self.is_open and sent_at_s > self._opened_at_s:
            self._probe_after(PROBE_AFTER_S, now_s)

    def may_probe(self, in_flight: int, now_s: float) -> bool:
        """Return whether an open breaker lets one request through; those sent before it opened do not count."""
        return now_s >= self.next_probe_s and (in_flight == 0 or not self._probing)

    def probing(self, now_s: float) -> None:
        """Note that the request being sent is the probe."""
        self._probing = True

    @property
    def last_word(self) -> str:
        """The trouble in words, `THROTTLED` included."""
        return _WORDS.get(self.signal, "endpoint failing")

    def why(self, now_s: float) -> str:
        """Say since when the breaker is open and when the next probe is sent."""
        next_s = self.next_probe_s - now_s
        probe = "waiting for a probe's answer" if self._probing else "next probe in " + in_words(max(0.0, next_s))
        return f"{self.last_word} since {in_words(now_s - self._failing_since_s)}, {probe}"

    def hopeless(self, now_s: float, paused_until_s: float) -> str | None:
        """Return why going on makes no sense, or None. A pause asked for by the server counts in advance."""
        if self._unreached >= ROUNDS_UNREACHED and not self._proven:
            return "the endpoint cannot be reached"
        outage_s = max(now_s, paused_until_s) - min(now_s, self._troubled_since_s)
        if outage_s <= self._max_outage_s:
            return None
        if paused_until_s > now_s:
            asked = f"the server asks to wait {in_words(paused_until_s - now_s)}"
            return f"{asked}, longer than limits.max_outage_s ({self._max_outage_s:g}) allows"
        return f"{self.last_word} since {in_words(outage_s)}, longer than limits.max_outage_s ({self._max_outage_s:g})"
