"""A limiter that is one of several for the same endpoint, each in a process of its own.

Each finds its own limit below its share of the ceiling. A refusal concerns them all, since the endpoint counts what
they send together: whoever is refused cuts, and says so, and the others cut as well. Otherwise one cut would be too
little, the next refusals would follow soon, and would look as if they came at any load. Where a share is a handful of
requests such a cut is too much, and each goes by its own refusals.

Measured in simulated hours, 500 slots, 100 slots and a quota of two million tokens a minute: refused are 0.03, 0.15 and
0.13 % of the requests, by two processes or four, as by one; 0.2, 1.3 and up to 30 % without a word to the others.
"""

from __future__ import annotations

from batcher.limits.bound import RATE_LIMIT
from batcher.limits.breaker import THROTTLED_PAUSE_S
from batcher.limits.limiter import Limiter
from batcher.records import Signal

#: a cut of our own and one elsewhere within so many seconds are for the same refusals
_SAME_S = 1.0
#: with fewer requests at once than this, others' refusals are not heeded
_HANDFUL = 12


class SharedLimiter(Limiter):
    """A `Limiter` that can be given another share, and hears of refusals elsewhere."""

    #: how often a refusal for sending too much (429) was a reason to cut the limit, here
    cuts = 0

    @property
    def alone(self) -> bool:
        """Whether the first answer is still waited for, so that one request at a time is sent."""
        return self._single.first.is_open

    @property
    def requests_sent(self) -> int:
        """How many requests were sent so far."""
        return self._sent

    def share(self, ceiling: int, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Keep to this part of the limits from now on: other processes have the rest. What has no limit stays so."""
        self._ceiling = ceiling
        self._adaptive.cap(ceiling)
        for bucket, per_minute in ((self._requests, requests_per_minute), (self._tokens, tokens_per_minute)):
            if bucket is not None and per_minute is not None:
                bucket.pace(per_minute)

    def refused_elsewhere(self, now_s: float) -> None:
        """Heed that the endpoint has just refused another process for sending too much (429)."""
        if self._single.states or now_s - self._cut_at_s < _SAME_S or self.limit < _HANDFUL:
            return
        self._pause(THROTTLED_PAUSE_S, now_s, "rate limited by the server", RATE_LIMIT)
        super()._cut(Signal.THROTTLED, now_s, now_s)

    def _cut(self, signal: Signal, sent_at_s: float, now_s: float) -> None:
        before = self._cut_at_s
        super()._cut(signal, sent_at_s, now_s)
        self.cuts += signal is Signal.THROTTLED and self._cut_at_s > before
