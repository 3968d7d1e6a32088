"""What a run tells whoever watches it: a protocol, the figures, and a watcher that ignores everything.

The worker reports here a few times a second. It does not know what a terminal is; `cli` does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ParamSpec, Protocol, runtime_checkable

P = ParamSpec("P")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Figures:
    """How a run stands. Counts are of rows of the whole job unless they say otherwise."""

    #: rows the input holds
    total: int = 0
    #: rows with an outcome, of this run and of earlier ones
    completed: int = 0
    failed: int = 0
    #: requests sent whose answer is awaited
    in_flight: int = 0
    #: rows that wait for their next attempt
    waiting: int = 0
    #: attempts of this run after the first one of a row
    retries: int = 0
    #: attempts, of this run and of earlier ones, that may have been paid for though no answer was seen
    ambiguous: int = 0
    #: tokens that answers used, those that could not be kept included, of this run and of earlier ones
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: US dollars that the answers cost, of this run and of earlier ones; None if that is not known of any
    cost_usd: float | None = None
    #: answers whose cost is not known, so that `cost_usd` is too low
    unpriced: int = 0
    #: of the completed rows those whose answers do not match the job's JSON schema
    invalid: int = 0
    #: how many requests the limiter allows at the moment
    limit: int = 0
    #: why nothing is being sent, in words, or None
    why_waiting: str | None = None

    @property
    def done(self) -> int:
        """Rows with an outcome."""
        return self.completed + self.failed

    def paid(self, cost_usd: float | None) -> None:
        """Count what an answer cost, kept or not; None if that is not known."""
        if cost_usd is None:
            self.unpriced += 1
        else:
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd


@runtime_checkable
class Progress(Protocol):
    """A watcher of one run. Its methods should return at once; one that raises is not told anything more."""

    def started(self, figures: Figures) -> None:
        """The plan is made and the run folder is open; `figures` counts what earlier runs finished."""

    def updated(self, figures: Figures) -> None:
        """Called a few times a second while rows are asked, with the figures as they stand."""

    def note(self, message: str) -> None:
        """Something a person should know, in one line without prompt, completion or key."""

    def finished(self, figures: Figures) -> None:
        """No more rows will be asked in this run, for whatever reason."""


class Silent:
    """A `Progress` that ignores everything."""

    def started(self, figures: Figures) -> None: ...
    def updated(self, figures: Figures) -> None: ...
    def note(self, message: str) -> None: ...
    def finished(self, figures: Figures) -> None: ...


class Told:
    """A `Progress` that calls a function with the figures, a copy each time, and logs the rest."""

    def __init__(self, tell: Callable[[Figures], object]) -> None:
        self._tell = tell

    def started(self, figures: Figures) -> None:
        """See `Progress`."""
        self._tell(replace(figures))

    updated = finished = started

    def note(self, message: str) -> None:
        """See `Progress`."""
        _log.info("%s", message)


def watcher_of(progress: Progress | Callable[[Figures], object] | None) -> Progress:
    """The watcher that a caller means: one of his own, a function that is called with the figures, or none."""
    if progress is None:
        return Silent()
    return progress if isinstance(progress, Progress) else Told(progress)


class Shielded:
    """Passes everything on to a watcher until that raises: a terminal that went away stops no run."""

    def __init__(self, watcher: Progress) -> None:
        self._watcher: Progress = watcher

    def started(self, figures: Figures) -> None:
        """See `Progress`."""
        self._tell(self._watcher.started, figures)

    def updated(self, figures: Figures) -> None:
        """See `Progress`."""
        self._tell(self._watcher.updated, figures)

    def note(self, message: str) -> None:
        """See `Progress`."""
        self._tell(self._watcher.note, message)

    def finished(self, figures: Figures) -> None:
        """See `Progress`."""
        self._tell(self._watcher.finished, figures)

    def _tell(self, method: Callable[P, None], *news: P.args, **options: P.kwargs) -> None:
        try:
            method(*news, **options)
        except Exception as error:
            self._watcher = Silent()
            _log.warning("the watcher of this run failed (%s) and is told nothing more", type(error).__name__)
