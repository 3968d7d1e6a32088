"""Watchers of a run."""

from __future__ import annotations

import pytest

from batcher.progress import Figures, Shielded, Silent


class Broken(Silent):
    """A watcher whose terminal went away."""

    def __init__(self) -> None:
        self.calls = 0

    def updated(self, figures: Figures) -> None:
        """Fail as a write to a closed terminal does."""
        self.calls += 1
        raise OSError(5, "Input/output error")


def test_a_watcher_that_fails_is_told_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    """A terminal that went away stops no run; it is logged once."""
    broken = Broken()
    shielded = Shielded(broken)
    shielded.started(Figures())
    for _ in range(3):
        shielded.updated(Figures())
    shielded.note("still going")
    shielded.finished(Figures())
    assert broken.calls == 1
    assert len(caplog.records) == 1
