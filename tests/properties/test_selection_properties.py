"""Whatever is done already and however many rows are wanted: as many are chosen, each once, and evenly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from batcher.records import Shard, Span
from batcher.selection import first_rows, spread_rows


@st.composite
def inputs(draw: st.DrawFn) -> tuple[list[Shard], set[int]]:
    """Shards in one or two spans, and the rows with an outcome."""
    shards, first = [], 0
    for number, rows in enumerate(draw(st.lists(st.integers(1, 12), min_size=1, max_size=8))):
        cut = draw(st.integers(1, rows))
        spans = [Span(0, 0, cut, 1)] + [Span(1, 0, rows - cut, 1)] * (cut < rows)
        shards.append(Shard(number, first, rows, tuple(spans)))
        first += rows
    return shards, draw(st.sets(st.integers(0, first - 1)))


def asked(shards: Sequence[Shard], done: set[int]) -> list[int]:
    """The rows that a run over these shards asks."""
    rows = (row for shard in shards for row in range(shard.first_row, shard.end_row) if row not in done)
    only = {row: shard.only for shard in shards for row in range(shard.first_row, shard.end_row)}
    return [row for row in rows if (kept := only[row]) is None or row in kept]


@given(given_input=inputs(), count=st.integers(1, 100))
def test_a_choice(given_input: tuple[list[Shard], set[int]], count: int) -> None:
    """Spans hold the rows of their shard, a whole shard is the shard, and what is chosen is still to be asked."""
    shards, done = given_input

    def within(shard: Shard) -> set[int]:
        return done & set(range(shard.first_row, shard.end_row))

    left = [row for row in range(shards[-1].end_row) if row not in done]
    expected = min(count, len(left))
    assert asked(first_rows(shards, within, count), done) == left[:expected]
    for at_heads in (False, True):
        chosen = spread_rows(shards, within, count, at_heads=at_heads)
        assert len(asked(chosen, done)) == expected
        for shard in chosen:
            assert sum(span.rows for span in shard.spans) == shard.rows
            assert all(span.rows > 0 for span in shard.spans)
            assert shard.only is not None or shard == shards[shard.number]
    places = [left.index(row) for row in asked(spread_rows(shards, within, count), done)]
    gaps = {after - before for before, after in pairwise(places)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert not places or abs(places[0] - (len(left) - 1 - places[-1])) <= 1
