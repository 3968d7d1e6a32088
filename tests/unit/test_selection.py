"""The choice of some rows: which ones, in which shards, and what is left of a shard that is not asked whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from batcher.plan import make_plan
from batcher.records import Shard, Span
from batcher.selection import first_rows, spread_rows
from batcher.source import find_files, read
from tests.fakes import make_job
from tests.input_files import write_records

#: five shards of ten rows
SHARDS = [Shard(number, 10 * number, 10, (Span(0, 100 * number, 10, 10 * number + 1),)) for number in range(5)]


def within(done: Iterable[int]) -> Callable[[Shard], set[int]]:
    """Say of a shard which of its rows are done."""
    rows = set(done)
    return lambda shard: rows & set(range(shard.first_row, shard.end_row))


def asked(shards: Sequence[Shard], done: frozenset[int] = frozenset()) -> list[int]:
    """The rows that a run over these shards asks."""
    return [
        row
        for shard in shards
        for row in range(shard.first_row, shard.end_row)
        if row not in done and (shard.only is None or row in shard.only)
    ]


def test_the_first_rows() -> None:
    """So many are chosen from the beginning; whole shards stay as they are, of the last one the beginning is kept."""
    chosen = first_rows(SHARDS, within(()), 23)
    assert asked(chosen) == list(range(23))
    assert chosen[:2] == SHARDS[:2]
    assert chosen[2] == Shard(2, 20, 3, (Span(0, 200, 3, 21),), only=frozenset({20, 21, 22}))


def test_rows_with_an_outcome_do_not_count() -> None:
    """They are passed over; a shard the rest of which is chosen is whole, and one without open rows is kept."""
    done = frozenset({0, 1, 5, *range(10, 20), 21})
    chosen = first_rows(SHARDS, within(done), 9)
    assert asked(chosen, done) == [2, 3, 4, 6, 7, 8, 9, 20, 22]
    assert chosen[:2] == SHARDS[:2]
    assert chosen[2].only == {20, 22}


def test_rows_spread_over_the_input() -> None:
    """They are in the middle of equal shares of what is left; shards without any are left out."""
    chosen = spread_rows(SHARDS, within(()), 4)
    assert asked(chosen) == [6, 18, 31, 43]
    assert [shard.number for shard in chosen] == [0, 1, 3, 4]
    assert (chosen[1].rows, chosen[1].spans) == (9, (Span(0, 100, 9, 11),))


def test_rows_at_the_heads_of_shards() -> None:
    """As many of each shard, but its first ones, so that little has to be read."""
    chosen = spread_rows(SHARDS, within({10}), 4, at_heads=True)
    assert asked(chosen) == [0, 11, 30, 40]
    assert [shard.rows for shard in chosen] == [1, 2, 1, 1]


@pytest.mark.parametrize("count", [50, 51, 10_000])
def test_all_rows(count: int) -> None:
    """A choice of as many rows as there are, or more, changes nothing."""
    assert first_rows(SHARDS, within(()), count) == SHARDS
    assert spread_rows(SHARDS, within(()), count) == SHARDS


def test_no_row_is_left() -> None:
    """Shards that only miss their part are kept, so that it is written."""
    everything = frozenset(range(50))
    assert first_rows(SHARDS, within(everything), 3) == SHARDS
    assert spread_rows(SHARDS, within(everything), 3) == SHARDS


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_what_is_read_of_a_choice(tmp_path: Path, name: str) -> None:
    """The beginning of a shard up to the last chosen row, from whichever kind of file, also over several files."""
    for letter in "ab":
        write_records(tmp_path / name.replace("a.", f"{letter}."), [{"text": f"{letter}{n}"} for n in range(25)])
    job = make_job(tmp_path, input={"path": f"*.{name[2:]}"}, output={"path": "out", "rows_per_part": 20})
    plan = make_plan(job, find_files(job.input.path))
    chosen = spread_rows(plan.shards, within(()), 5)
    rows = [row for chunk in read(plan.files, chosen, plan.schema) for row in chunk.rows]
    texts = {row.row_index: row.values["text"] for row in rows}
    assert [texts[row] for row in asked(chosen)] == ["a5", "a15", "b0", "b10", "b20"]
    assert [max(shard.only or ()) + 1 for shard in chosen] == [shard.end_row for shard in chosen]
