"""Thousands of small schedules against the core, and a way to repeat one: `SEED=123 pytest tests/simulation -k replay`.

`SCHEDULES` sets how many are played; ordinarily 2,000, in less than a minute.
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.simulation.virtual_loop import StuckError, VirtualLoop
from tests.simulation.world import play

_BLOCK = 100
_SCHEDULES = int(os.environ.get("SCHEDULES", "2000"))
_SEED = os.environ.get("SEED")


@pytest.mark.parametrize("first", range(0, _SCHEDULES, _BLOCK))
def test_whatever_happens_every_row_is_decided_once_or_pending_for_a_reason(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No order of answers, faults, commits, full disks, signals and crashes breaks the promises of a run."""
    for seed in range(first, min(first + _BLOCK, _SCHEDULES)):
        play(seed, monkeypatch)


@pytest.mark.skipif(_SEED is None, reason="for one schedule: SEED=123 pytest tests/simulation -k replay -s")
def test_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule of one seed can be played alone."""
    story = play(int(_SEED or 0), monkeypatch)
    sys.stdout.write("\n".join([*story, ""]))


def test_a_seed_decides_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule played twice goes the same way to the last digit, so a seed that fails can be repeated."""
    for seed in range(20):
        assert play(seed, monkeypatch) == play(seed, monkeypatch)


def test_a_loop_with_nothing_to_do_is_stuck() -> None:
    """A run that waits for something that cannot happen is found at once, not by a timeout."""
    loop = VirtualLoop(0.0, 10.0)
    with pytest.raises(StuckError, match="hangs"):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_a_loop_that_turns_for_nothing_is_stuck() -> None:
    """A timer that rings every millisecond although nothing happens is found."""
    loop = VirtualLoop(0.0, 10.0)

    def ring() -> None:
        loop.call_later(0.001, ring)

    ring()
    with pytest.raises(StuckError, match="spins"):
        loop.run_until_complete(loop.create_future())
    loop.close()
