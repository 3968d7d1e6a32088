"""The timeline of a run as equal slices of the time it worked, which is what plots over time are made of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from batcher.timeline import Stretch

_UNTIL_WHEN = re.compile(r", (next (request|probe) in|waiting for a probe's answer).*| since .*")
_NUMBER = re.compile(r"held to \d+ requests")


@dataclass(slots=True)
class Slice:
    """A while of work; rates are per second of it, the others means over it."""

    #: seconds of work before it, and before its end
    start_s: float
    end_s: float
    completed: float = 0.0
    failed: float = 0.0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    in_flight: float = 0.0
    limit: float = 0.0


#: of a stretch, sums that become rates; and means
_SUMS = ("completed", "failed", "prompt_tokens", "completion_tokens")
_MEANS = ("in_flight", "limit")


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a run went, and what held it back."""

    stretches: Sequence[Stretch]

    @property
    def active_s(self) -> float:
        """Seconds of work, of all its runs together."""
        return sum(stretch.active_s for stretch in self.stretches)

    @property
    def rows(self) -> int:
        """Rows that got their outcome while the record was kept."""
        return sum(stretch.completed + stretch.failed for stretch in self.stretches)

    @property
    def retries(self) -> int:
        """Attempts after a row's first one."""
        return sum(stretch.retries for stretch in self.stretches)

    def slices(self, most: int) -> list[Slice]:
        """Return the time of work in at most so many equal slices, no finer than the record is."""
        number = min(most, len(self.stretches))
        if not number or not self.active_s:
            return []
        width = self.active_s / number
        slices = [Slice(position * width, (position + 1) * width) for position in range(number)]
        done_s = 0.0
        for stretch in self.stretches:
            _spread(stretch, done_s, slices, width)
            done_s += stretch.active_s
        return slices

    def restarts(self) -> list[float]:
        """Return the seconds of work after which the run rested and was resumed."""
        found: list[float] = []
        done_s = 0.0
        for before, after in zip(self.stretches, self.stretches[1:], strict=False):
            done_s += before.active_s
            if not after.continues(before):
                found.append(done_s)
        return found

    def waits(self) -> list[tuple[str, float]]:
        """Return what held the run back, and for how many seconds, the longest first."""
        seconds: Counter[str] = Counter()
        for stretch in self.stretches:
            if stretch.why is not None and stretch.waiting_s > 0:
                reason = _NUMBER.sub("held to fewer requests", _UNTIL_WHEN.sub("", stretch.why))
                seconds[reason] += stretch.waiting_s  # type: ignore[assignment]  # a Counter of floats
        return sorted(seconds.items(), key=lambda entry: (-entry[1], entry[0]))


def _spread(stretch: Stretch, start_s: float, slices: list[Slice], width: float) -> None:
    """Add a stretch to the slices it lies in, to each by its share of it."""
    end_s = start_s + stretch.active_s
    first = min(int(start_s / width), len(slices) - 1)
    for part in slices[first:]:
        if part.start_s >= end_s:
            return
        overlap_s = min(end_s, part.end_s) - max(start_s, part.start_s)
        if overlap_s <= 0:
            continue
        for name in _SUMS:
            share = getattr(stretch, name) * overlap_s / stretch.active_s
            setattr(part, name, getattr(part, name) + share / width)
        for name in _MEANS:
            setattr(part, name, getattr(part, name) + getattr(stretch, name) * overlap_s / width)
