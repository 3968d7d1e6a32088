"""The first request of a run goes alone: a wrong key, model or address costs one request and not a pool of them.

The rest follows once an answer has come that shows that the endpoint takes such requests: a completion, or an error of
the row's own. What the endpoint refuses, cuts or breaks is tried again alone a few times, but not for ever: it may be
the row that it cannot bear. A slow model is not waited for: after a few seconds without a refusal the rest follows.
Time is an argument, in seconds of a monotonic clock.
"""

from __future__ import annotations

from math import inf

from batcher.records import Signal

#: an answer that takes longer than this is not waited for; refusals come faster
ALONE_S = 5.0
#: requests that go alone, at most
TRIES = 4

_TELLING = (Signal.SUCCESS, Signal.NONE)


class First:
    """Holds back all requests but one until the first answer that tells."""

    __slots__ = ("_tries", "is_open", "next_probe_s")

    def __init__(self, *, proven: bool) -> None:
        #: one request at a time
        self.is_open = not proven
        #: when the request under way is no longer waited for; -inf if there is none
        self.next_probe_s = -inf
        self._tries = 0

    def may_probe(self, in_flight: int, now_s: float) -> bool:
        """Return whether a request may be sent although the endpoint has not answered yet."""
        return in_flight == 0

    def probing(self, now_s: float) -> None:
        """Note that a request is being sent."""
        self._tries += 1
        self.next_probe_s = now_s + ALONE_S

    def answered(self, signal: Signal) -> None:
        """Note a result."""
        self.next_probe_s = -inf
        if signal in _TELLING or self._tries >= TRIES:
            self.is_open = False

    def lapses(self, now_s: float) -> bool:
        """Whether the answer takes so long that the rest may follow."""
        if self.is_open and now_s >= self.next_probe_s > -inf:
            self.is_open = False
            return True
        return False

    def why(self, now_s: float) -> str | None:
        """Say what is waited for, if a request is under way."""
        return "waiting for the first answer" if now_s < self.next_probe_s else None
