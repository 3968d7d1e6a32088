"""Shards of which only some rows are asked: nothing is kept for a part, and they take no place in the window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batcher.feed import Feed
from batcher.measured import Measured, Sums
from batcher.progress import Figures
from batcher.rundir import figures_of
from batcher.selection import first_rows, spread_rows
from batcher.shard import OpenShard
from batcher.window import Window
from tests.fakes import Begun, begun, builder_of, make_job, outcome, write_numbers


def test_the_feed_gives_the_chosen_rows(tmp_path: Path) -> None:
    """Of a partial shard those that are wanted and have no outcome, without keeping columns; of others all."""
    write_numbers(tmp_path, 20)
    with begun(make_job(tmp_path)) as run:
        run.rundir.journal.record(outcome(1))
        chosen = first_rows(run.plan.shards, run.rundir.journal.rows_with_outcome, 7)
        feed = Feed(run.plan, chosen, run.rundir, builder_of(run.job))
        whole, part = feed.next(), feed.next()
        assert whole is not None
        assert part is not None
        assert feed.next() is None
        assert [row.row_index for row in whole.pending] == [0, 2, 3, 4]
        assert [row.row_index for row in part.pending] == [5, 6, 7]
        assert (whole.shard.partial, part.shard.partial, part.is_last) == (False, True, True)
        assert [path.name for path in run.rundir.tmp.iterdir()] == ["shard-00000.columns.arrow"]
        part.shard.abandon()


def test_partial_shards_do_not_fill_the_window(tmp_path: Path) -> None:
    """However many are open, the next one may be opened, and none becomes ready to be written."""
    write_numbers(tmp_path, 40)
    with begun(make_job(tmp_path)) as run:
        journal: Any = run.rundir.journal
        window = Window(journal, 2, Figures())
        for shard in spread_rows(run.plan.shards, lambda shard: set(), 8):
            opened = OpenShard(shard, run.rundir)
            window.opened(opened, all_read=True)
            (row,) = shard.only or ()
            window.record(outcome(row), opened)
            window.committed([outcome(row)])
        assert not window.full
        assert window.at_rest


def sums_of(values: list[float]) -> tuple[int, float, float]:
    """What is to be known of these values."""
    return (len(values), sum(values), sum(value * value for value in values))


def of(sums: Sums) -> tuple[int, float, float]:
    return sums.rows, sums.sum, sums.squares


def measured(run: Begun) -> Measured:
    report = run.rundir.report(run.plan)
    assert report.measured is not None
    return report.measured


def test_what_rows_used(tmp_path: Path) -> None:
    """It is summed over completed rows, in the journal and in parts alike; where nothing is known nothing counts."""
    write_numbers(tmp_path, 20)
    with begun(make_job(tmp_path, output={"path": "out", "rows_per_part": 5, "prefix": "x_"})) as run:
        journal = run.rundir.journal
        journal.record(outcome(0, cost_usd=0.25, latency_s=2.0, prompt_tokens=7))
        journal.record(outcome(1, completion_tokens=None))
        journal.record(outcome(2, failed="x", prompt_tokens=100, cost_usd=9.0))
        journal.record(outcome(3))
        journal.record(outcome(4))
        in_journal = measured(run)
        feeding = Feed(run.plan, run.plan.shards[:1], run.rundir, builder_of(run.job)).next()
        assert feeding is not None
        feeding.shard.finish()
        in_part = measured(run)
        for found in (in_journal, in_part):
            assert of(found.prompt_tokens) == sums_of([7, 3, 3, 3])
            assert of(found.completion_tokens) == sums_of([5, 5, 5])
            assert of(found.cost_usd) == sums_of([0.25])
            assert of(found.latency_s) == sums_of([2.0, 0.5, 0.5, 0.5])
        assert run.rundir.report(run.plan).parts == 1
        journal.record(outcome(10, prompt_tokens=50))
        assert of(measured(run).prompt_tokens) == sums_of([7, 3, 3, 3, 50])


def test_the_figures_at_the_start(tmp_path: Path) -> None:
    """They say what earlier runs cost, as far as that is known."""
    write_numbers(tmp_path, 5)
    with begun(make_job(tmp_path)) as run:
        assert figures_of(run.plan, run.rundir.totals()).cost_usd is None
        run.rundir.journal.record(outcome(0, cost_usd=0.5))
        run.rundir.journal.record(outcome(1))
        figures = figures_of(run.plan, run.rundir.totals())
        assert (figures.cost_usd, figures.unpriced) == (0.5, 1)
