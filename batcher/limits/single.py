"""The three states in which one request at a time is let out, as one: a run's first, an outage, an inquiry.

They may hold together; then a request goes when each of them allows it, and is the probe of all. Time is an argument,
in seconds of a monotonic clock.
"""

from __future__ import annotations

from random import Random

from batcher.limits.breaker import Breaker
from batcher.limits.first import First
from batcher.limits.inquiry import Inquiry
from batcher.records import Signal


class Single:
    """Whether, when and why single requests are sent."""

    __slots__ = ("_max_outage_s", "breaker", "first", "inquiry", "states")

    def __init__(self, *, proven: bool, max_outage_s: float, random: Random) -> None:
        self._max_outage_s = max_outage_s
        self.first = First(proven=proven)
        self.breaker = Breaker(proven=proven, max_outage_s=max_outage_s, random=random)
        self.inquiry = Inquiry()
        #: those that hold just now; `look` brings it up to date
        self.states: tuple[First | Breaker | Inquiry, ...] = ()
        self.look()

    def look(self) -> None:
        """Find out which states hold; for after anything has happened to one of them."""
        self.states = tuple(state for state in (self.first, self.breaker, self.inquiry) if state.is_open)

    def room(self, room: int, in_flight: int, now_s: float) -> int:
        """Return how many requests may be sent of `room` that would be free otherwise."""
        if self.first.lapses(now_s):
            self.look()
        if not self.states:
            return room
        return int(all(state.may_probe(in_flight, now_s) for state in self.states))

    @property
    def next_probe_s(self) -> float:
        """When the next request may be sent, if no answer comes before; only while a state holds."""
        return max(state.next_probe_s for state in self.states)

    def probing(self, now_s: float) -> None:
        """Note that a request is being sent."""
        for state in self.states:
            state.probing(now_s)

    def failed(self, signal: Signal, sent_at_s: float, now_s: float) -> None:
        """A request did not succeed; what that means for an outage is told to the breaker itself."""
        self.inquiry.undecided(sent_at_s, now_s)
        self.first.answered(signal)
        if signal is Signal.NONE:
            self.breaker.undecided(sent_at_s, now_s)

    def succeeded(self, sent_at_s: float) -> bool:
        """A request succeeded; return whether another success would change nothing here."""
        if not self.breaker.is_calm:
            self.breaker.succeeded()
        self.inquiry.succeeded(sent_at_s)
        self.first.answered(Signal.SUCCESS)
        self.look()
        return self.inquiry.is_quiet

    def why(self, now_s: float, resume_at_s: float) -> str | None:
        """Say why only single requests are sent and when the next is; None if it is a pause that is waited for."""
        if not self.states:
            return None
        last = max(self.states, key=lambda state: state.next_probe_s)
        return last.why(now_s) if resume_at_s <= max(now_s, last.next_probe_s) else None

    def hopeless(self, now_s: float, asked_until_s: float) -> str | None:
        """Return why the run should stop, or None. A pause that the server asked for counts in advance."""
        return self.breaker.hopeless(now_s, asked_until_s) or self.inquiry.hopeless(now_s, self._max_outage_s)
