"""The window: a shard is ready when all its rows are read and all their outcomes committed."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.guard import FIRST, LATER
from batcher.journal import ReopenedRow
from batcher.progress import Figures
from batcher.records import Outcome
from batcher.window import Window, window_size
from tests.fakes import outcome


class FakeJournal:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.recorded: list[Outcome] = []

    def record(self, given: Outcome) -> None:
        self.recorded.append(given)


class FakeShard:
    """As much of an open shard as the window knows."""

    def __init__(self, missing: int) -> None:
        self.missing, self.all_read, self.abandoned, self.partial = missing, False, False, False
        self.job_version, self.place = 1, 1.0
        self.reopened: dict[int, ReopenedRow] = {}

    def keeps(self, row_index: int) -> bool:
        return row_index in self.reopened and self.reopened[row_index].kept

    @property
    def ready(self) -> bool:
        return self.all_read and self.missing == 0

    def abandon(self) -> None:
        self.abandoned = True


class Case:
    """A window and what stands around it."""

    def __init__(self, size: int = 3) -> None:
        journal: Any = FakeJournal()
        self.journal, self.figures = journal, Figures()
        self.window = Window(journal, size, self.figures)

    def shard(self, missing: int, *, all_read: bool = True) -> Any:
        """A shard that was just opened."""
        shard: Any = FakeShard(missing)
        self.window.opened(shard, all_read=all_read)
        return shard


def test_a_shard_becomes_ready() -> None:
    """Not when its last outcome is recorded, but when that is committed."""
    case = Case()
    shard = case.shard(2)
    given = [outcome(0), outcome(1, failed="x")]
    for one in given:
        case.window.record(one, shard)
    assert case.journal.recorded == given
    assert not case.window.ready
    case.window.committed(given[:1])
    assert not case.window.ready
    case.window.committed(given[1:])
    assert list(case.window.ready) == [shard]
    assert not case.window.at_rest
    case.window.closed(shard)
    assert case.window.at_rest


@pytest.mark.parametrize(("kept", "figures"), [(True, (1, 0, 1)), (False, (0, 1, 0))])
def test_a_row_that_is_asked_again_in_vain(kept: bool, figures: tuple[int, int, int]) -> None:
    """One that keeps its answer counts as completed, and as invalid if that answer is; any other one failed."""
    case = Case()
    shard = case.shard(1)
    shard.reopened[0] = ReopenedRow(0, kept=kept, invalid=True, job_version=1)
    case.window.record(failed := outcome(0, failed="x"), shard)
    case.window.committed([failed])
    assert (case.figures.completed, case.figures.failed, case.figures.invalid) == figures


def test_the_last_rows_are_read_last() -> None:
    """A shard whose outcomes are all committed waits until it is read to its end, and is ready once."""
    case = Case()
    shard = case.shard(1, all_read=False)
    case.window.record(outcome(0), shard)
    case.window.committed([outcome(0)])
    assert not case.window.ready
    case.window.opened(shard, all_read=True)
    assert list(case.window.ready) == [shard]


def test_a_shard_whose_rows_were_all_answered_before() -> None:
    """It is ready as soon as it is read."""
    case = Case()
    shard = case.shard(0)
    assert list(case.window.ready) == [shard]


def test_the_window_is_full() -> None:
    """A shard counts once however often some of its rows are read, until it is closed."""
    case = Case(size=2)
    first = case.shard(5, all_read=False)
    case.window.opened(first, all_read=False)
    assert not case.window.full
    case.shard(5)
    assert case.window.full
    first.missing, first.all_read = 0, True
    case.window.ready.append(first)
    case.window.closed(first)
    assert not case.window.full


def test_the_figures() -> None:
    """They count committed outcomes only; bytes wait until then."""
    case = Case()
    shard = case.shard(9)
    given = [outcome(0, body=b"12345", ambiguous=1), outcome(1, failed="x", ambiguous=2)]
    for one in given:
        case.window.record(one, shard)
    assert (case.figures.done, case.window.unsaved_bytes) == (0, 5)
    case.window.committed(given)
    assert (case.figures.completed, case.figures.failed, case.window.unsaved_bytes) == (1, 1, 0)


def test_abandoning() -> None:
    """Open shards are told; finished ones are not."""
    case = Case()
    first, second = case.shard(0), case.shard(1)
    case.window.closed(first)
    case.window.abandon()
    assert (first.abandoned, second.abandoned) == (False, True)


@pytest.mark.parametrize("concurrency", [1, 7, 256, 5000])
@pytest.mark.parametrize("rows_per_part", [1, 10, 10_000])
def test_how_wide_it_is(concurrency: int, rows_per_part: int) -> None:
    """There is room for sixteen rows a slot, and for all failures that may be held, beside the shard being written."""
    size = window_size(concurrency, rows_per_part)
    assert size >= 3
    assert (size - 1) * rows_per_part >= max(16 * concurrency, LATER, FIRST)
    assert window_size(256, 10_000) == 3
