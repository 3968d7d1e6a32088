"""How a run went over time: stretches of it, one a line, in `.batcher/timeline.jsonl`.

    {"since": 1763900000.0, "until": 1763900000.2, "active_s": 0.2, "completed": 61, "failed": 0, ...}

A stretch says what happened in it (rows, tokens, retries) and how it was on average (in flight, limit), so that two
neighbours are put together by adding them up. That is how the file stays small however long a run takes: when there
are too many stretches, neighbours are joined. A run of a minute is told in fifths of a second, one of a week in
quarters of an hour. A resumed run adds to the file; a line torn by a crash is passed over.

Nothing depends on this file: what goes wrong with it is logged once and harms no run. Knows no row and no request.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import orjson

from batcher.durable import replace_file
from batcher.progress import Figures

_log = logging.getLogger(__name__)

NAME = "timeline.jsonl"
#: above so many stretches neighbours are joined; at most 500 KB
MOST = 2000
#: a stretch is no shorter, but for the last one of a run
_SHORTEST_S = 0.2
_LONGEST_REASON = 200
#: servers may claim any number of tokens, of which JSON takes no more than this
_MOST_COUNTED = 1 << 53
#: within a run, a stretch begins when the one before ended, but for what is rounded
_SAME_TIME_S = 0.005


@dataclass(slots=True)
class Stretch:
    """A while of a run, or of several runs of one job with a rest between them."""

    #: seconds since 1970 UTC
    since: float
    until: float
    #: seconds of work in it; less than `until - since` where the run rested
    active_s: float
    #: rows that got their outcome in it
    completed: int
    failed: int
    #: tokens of the rows completed in it
    prompt_tokens: int
    completion_tokens: int
    #: attempts in it that were not a row's first
    retries: int
    #: means over its time
    in_flight: float
    limit: float
    #: seconds in which something held the run back, and what did so for longest
    waiting_s: float
    why: str | None

    def add(self, after: Stretch) -> None:
        """Join with a later stretch."""
        mine, theirs = self.active_s, after.active_s
        share = theirs / (mine + theirs) if mine + theirs else 0.5
        self.in_flight += (after.in_flight - self.in_flight) * share
        self.limit += (after.limit - self.limit) * share
        if after.waiting_s > self.waiting_s or self.why is None:
            self.why = after.why or self.why
        for name in ("active_s", "completed", "failed", "prompt_tokens", "completion_tokens", "retries", "waiting_s"):
            setattr(self, name, getattr(self, name) + getattr(after, name))
        self.until = after.until

    def continues(self, before: Stretch) -> bool:
        """There was no rest between the two."""
        return abs(self.since - before.until) < _SAME_TIME_S


class Timeline:
    """The record of one run folder while a run adds to it."""

    def __init__(
        self,
        state: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = state / NAME
        self._clock = clock
        #: time of day less the clock's; fixed, so that a run's stretches join though the time of day be corrected
        self._offset_s = wall_clock() - clock()
        self._told: list[Stretch] = []
        #: how many of them are in the file; -1 if it is to be written anew
        self._saved = -1
        self._complained = False
        #: figures at the last look, and its time
        self._last: tuple[Figures, float] | None = None
        self._open: Stretch | None = None
        try:
            self._told, whole = _read(self._path)
            self._saved = len(self._told) if whole else -1
        except OSError as error:
            self._complain(error)
        self._interval_s = _interval_s(self._told)

    def look(self, figures: Figures) -> None:
        """Add what happened since the last look, at the current figures. Writes nothing."""
        now = self._clock() + self._offset_s
        if self._last is not None:
            piece = _difference(*self._last, figures, now)
            if self._open is None:
                self._open = piece
            else:
                self._open.add(piece)
            if self._open.active_s > self._interval_s * 0.95:
                self._close()
        self._last = (replace(figures), now)

    def save(self) -> None:
        """Write what is new; an error is logged, once."""
        try:
            if len(self._told) > MOST or self._saved < 0:
                self._told = joined(self._told, MOST)
                self._interval_s = _interval_s(self._told)
                replace_file(self._path, b"".join(map(_line, self._told)), durable=False)
            elif self._saved < len(self._told):
                with self._path.open("ab") as file:
                    file.write(b"".join(map(_line, self._told[self._saved :])))
            self._saved = len(self._told)
        except OSError as error:
            self._saved = -1  # part of a line may have been written
            self._complain(error)

    def end(self, figures: Figures) -> None:
        """Add and write the rest."""
        self.look(figures)
        self._close()
        self.save()

    def _close(self) -> None:
        if self._open is not None and (self._open.active_s or self._open.completed or self._open.failed):
            self._told.append(self._open)
        self._open = None

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            _log.warning("%s could not be written: %s", NAME, error.strerror or error)
        self._complained = True


def read_timeline(state: Path) -> list[Stretch]:
    """Return the stretches of a run folder's `.batcher` in the order they were written; none if there is no record."""
    try:
        return _read(state / NAME)[0]
    except OSError as error:
        _log.warning("%s could not be read: %s", NAME, error.strerror or error)
        return []


def joined(stretches: list[Stretch], most: int) -> list[Stretch]:
    """Join neighbours until at most about half of `most` are left; over a rest only if there are too many of those."""
    if len(stretches) <= most:
        return stretches
    longest_s = 4 * sum(stretch.active_s for stretch in stretches) / most
    without_rests = list(_join(stretches, longest_s, over_rests=False))
    return without_rests if len(without_rests) <= most * 3 // 4 else list(_join(stretches, longest_s, over_rests=True))


def _join(stretches: Iterable[Stretch], longest_s: float, *, over_rests: bool) -> Iterator[Stretch]:
    last: Stretch | None = None
    for stretch in stretches:
        fits = last is not None and last.active_s + stretch.active_s <= longest_s
        if last is not None and fits and (over_rests or stretch.continues(last)):
            last.add(stretch)
            continue
        if last is not None:
            yield last
        last = replace(stretch)
    if last is not None:
        yield last


def _interval_s(stretches: Iterable[Stretch]) -> float:
    """How long the next stretches should be, given those there are."""
    return max(_SHORTEST_S, 2 * sum(stretch.active_s for stretch in stretches) / MOST)


def _difference(before: Figures, then: float, after: Figures, now: float) -> Stretch:
    """What happened between two looks, and how it was at the second one."""

    def grown(name: str) -> int:
        difference: int = getattr(after, name) - getattr(before, name)
        return max(0, difference)

    active_s = now - then
    return Stretch(
        since=then,
        until=now,
        active_s=active_s,
        completed=grown("completed"),
        failed=grown("failed"),
        prompt_tokens=grown("prompt_tokens"),
        completion_tokens=grown("completion_tokens"),
        retries=grown("retries"),
        in_flight=float(after.in_flight),
        limit=float(after.limit),
        waiting_s=active_s if after.why_waiting else 0.0,
        why=after.why_waiting and after.why_waiting[:_LONGEST_REASON],
    )


def _line(stretch: Stretch) -> bytes:
    values = asdict(stretch)
    for name, value in values.items():
        if isinstance(value, float):
            values[name] = round(value, 3)
        elif isinstance(value, int):
            values[name] = min(value, _MOST_COUNTED)
    return orjson.dumps(values) + b"\n"


def _read(path: Path) -> tuple[list[Stretch], bool]:
    """Return the stretches of a file, and whether every line of it is whole."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], True
    lines = content.splitlines()
    stretches = [stretch for stretch in map(_parsed, lines) if stretch is not None]
    return stretches, len(stretches) == len(lines) and (not content or content.endswith(b"\n"))


def _parsed(line: bytes) -> Stretch | None:
    """The stretch of a line; None if it is torn, or is something else."""
    try:
        values = orjson.loads(line)
        stretch = Stretch(**{field.name: values[field.name] for field in fields(Stretch)})
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    numbers = [getattr(stretch, field.name) for field in fields(Stretch) if field.name != "why"]
    sound = all(type(number) in (int, float) and math.isfinite(number) and number >= 0 for number in numbers)
    return stretch if sound and isinstance(stretch.why, str | None) else None
