"""Watchers of a run: a bar on a terminal, a line now and then elsewhere, or nothing unless there is trouble."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from batcher.cli.talk import say, visible
from batcher.pricing import dollars
from batcher.progress import Figures, Progress

#: seconds between two lines where there is no terminal
_LINE_S = 30.0
#: seconds over which rates are averaged
_RATE_S = 10.0
#: rows after which the cost of all is foretold from them
_ENOUGH_ROWS = 20


def watcher(*, quiet: bool, stream: TextIO | None = None) -> Progress:
    """Return what suits the stream (default: stderr)."""
    stream = stream or sys.stderr
    if quiet:
        return Quiet()
    return Bar(stream) if stream.isatty() else Lines(stream)


def cost_words(cost_usd: float | None, unpriced: int, done: int, total: int) -> str:
    """What the answers to `done` of `total` rows cost and what all may cost: `$0.12, about $3.40 in all`."""
    if cost_usd is None:
        return "unknown"
    if unpriced:
        return f"at least {dollars(cost_usd)}"
    if not min(_ENOUGH_ROWS, total - 1) <= done < total or not done:
        return dollars(cost_usd)
    return f"{dollars(cost_usd)}, about {dollars(cost_usd * total / done)} in all"


class Rates:
    """Rows and tokens per second over the last ten seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int, int]] = deque()

    def update(self, figures: Figures) -> tuple[float, float]:
        """Note the figures and return (rows per second, completion tokens per second)."""
        now = self._clock()
        if self._seen and figures.done < self._seen[-1][1]:
            self._seen.clear()  # rows are asked again: they are not done any more
        self._seen.append((now, figures.done, figures.completion_tokens))
        while len(self._seen) > 2 and self._seen[0][0] < now - _RATE_S:
            self._seen.popleft()
        then, rows, tokens = self._seen[0]
        passed = max(now - then, 1e-9)
        return ((figures.done - rows) / passed, (figures.completion_tokens - tokens) / passed) if now > then else (0, 0)


class Quiet:
    """Says nothing; what is wrong is said by whoever ends the run."""

    def started(self, figures: Figures) -> None: ...
    def updated(self, figures: Figures) -> None: ...
    def note(self, message: str) -> None: ...
    def finished(self, figures: Figures) -> None: ...


class Bar:
    """A tqdm bar that also says ok, failed, in flight, rates, and why it waits."""

    def __init__(self, stream: TextIO) -> None:
        from tqdm import tqdm

        self._stream = stream
        self._rates = Rates()
        self._tqdm = tqdm
        self._bar: tqdm[None] | None = None

    def started(self, figures: Figures) -> None:
        """See `Progress`."""
        self._bar = self._tqdm(
            total=figures.total,
            initial=figures.done,
            file=self._stream,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}",
        )
        self.updated(figures)

    def updated(self, figures: Figures) -> None:
        """See `Progress`."""
        if self._bar is None:
            return
        rows_s, tokens_s = self._rates.update(figures)
        words = (
            f"ok {figures.completed} failed {figures.failed} in flight {figures.in_flight}"
            f" {rows_s:.0f} rows/s {tokens_s:.0f} tok/s{_cost_so_far(figures, ' · ')}"
        )
        if figures.why_waiting:
            words += f" · {figures.why_waiting}"
        self._bar.set_postfix_str(visible(words), refresh=False)
        self._bar.update(figures.done - self._bar.n)
        self._bar.refresh()

    def note(self, message: str) -> None:
        """See `Progress`."""
        if self._bar is None:
            say(message, self._stream)
        else:
            self._bar.clear()
            say(message, self._stream)
            self._bar.refresh()

    def finished(self, figures: Figures) -> None:
        """See `Progress`."""
        self.updated(figures)
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Lines:
    """A line at the start, at the end, every 30 seconds, and when the reason for waiting changes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._rates = Rates(clock)
        self._next_s = 0.0
        self._waiting = False

    def started(self, figures: Figures) -> None:
        """See `Progress`."""
        self._say(figures)

    def updated(self, figures: Figures) -> None:
        """See `Progress`."""
        self._rates.update(figures)
        waiting = figures.why_waiting is not None
        if self._clock() >= self._next_s or waiting != self._waiting:
            self._say(figures)
        self._waiting = waiting

    def note(self, message: str) -> None:
        """See `Progress`."""
        say(f"{_time_of_day()} {message}", self._stream)

    def finished(self, figures: Figures) -> None:
        """See `Progress`."""
        self._say(figures)

    def _say(self, figures: Figures) -> None:
        self._next_s = self._clock() + _LINE_S
        rows_s, tokens_s = self._rates.update(figures)
        words = (
            f"{figures.done}/{figures.total} rows, {figures.completed} ok, {figures.failed} failed,"
            f" {figures.in_flight} in flight, {rows_s:.1f} rows/s, {tokens_s:.0f} tokens/s"
        )
        left = figures.total - figures.done
        if rows_s > 0 and left:
            words += f", about {duration(left / rows_s)} left"
        words += _cost_so_far(figures, "; ")
        self.note(f"{words}; {figures.why_waiting}" if figures.why_waiting else words)


def _cost_so_far(figures: Figures, before: str) -> str:
    """The cost with what stands before it; nothing while it is not known."""
    if figures.cost_usd is None:
        return ""
    return before + cost_words(figures.cost_usd, figures.unpriced, figures.done, figures.total)


def _time_of_day() -> str:
    return time.strftime("%H:%M:%S")


def duration(seconds: float) -> str:
    """Some seconds as people say them."""
    minutes, _ = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
