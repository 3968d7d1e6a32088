"""Which rows a run asks that is not to ask all: so many of those that are left, the first ones or evenly spread.

The choice is put into the shards themselves (`Shard.only`), so that whoever works on shards needs to know nothing else.
A shard all of whose open rows are chosen is left as it is, and its part is written; of any other one only the beginning
is kept, up to the last chosen row, and it stays unfinished.

Pure; the same rows are chosen whenever the same ones are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from batcher.records import Shard, Span


class AllBut(AbstractSet[int]):
    """All rows of a shard but some: as small as these are few, however large the shard is."""

    def __init__(self, shard: Shard, others: AbstractSet[int]) -> None:
        self._rows, self._others = range(shard.first_row, shard.end_row), others

    def __contains__(self, row: object) -> bool:
        return row in self._rows and row not in self._others

    def __iter__(self) -> Iterator[int]:
        return (row for row in self._rows if row not in self._others)

    def __len__(self) -> int:
        return len(self._rows) - len(self._others)


def first_rows(shards: Sequence[Shard], done: Callable[[Shard], AbstractSet[int]], count: int) -> list[Shard]:
    """Return the shards with the first `count` rows without an outcome; `done` gives the rows of a shard with one."""
    chosen = []
    for shard in shards:
        open_rows = _open_rows(shard, done)
        chosen.append(_narrowed(shard, open_rows, range(min(count, len(open_rows)))))
        count -= min(count, len(open_rows))
        if not count:
            break
    return chosen


def spread_rows(
    shards: Sequence[Shard], done: Callable[[Shard], AbstractSet[int]], count: int, *, at_heads: bool = False
) -> list[Shard]:
    """Return the shards with `count` rows without an outcome, evenly spread over all such rows.

    `at_heads`: within a shard the first ones, so that only the beginnings of shards have to be read.
    """
    left = [shard.rows - len(done(shard)) for shard in shards]
    total = sum(left)
    count = min(count, total)
    chosen, before, number = [], 0, 0
    for shard, rows in zip(shards, left, strict=True):
        places = []
        while number < count and (rank := _rank(number, count, total)) < before + rows:
            places.append(rank - before)
            number += 1
        if places or not rows:
            chosen.append(_narrowed(shard, _open_rows(shard, done), range(len(places)) if at_heads else places))
        before += rows
    return chosen


def _rank(number: int, count: int, total: int) -> int:
    """Where the chosen row of this number is among all: in the middle of its share of them."""
    return (2 * number + 1) * total // (2 * count)


def _open_rows(shard: Shard, done: Callable[[Shard], AbstractSet[int]]) -> list[int]:
    known = done(shard)
    return [row for row in range(shard.first_row, shard.end_row) if row not in known]


def _narrowed(shard: Shard, open_rows: Sequence[int], places: Sequence[int]) -> Shard:
    """The shard with the choice among its open rows; itself if all are chosen."""
    if len(places) == len(open_rows):
        return shard
    only = frozenset(open_rows[place] for place in places)
    rows = max(only) + 1 - shard.first_row
    return replace(shard, rows=rows, spans=_beginning(shard.spans, rows), only=only)


def _beginning(spans: Sequence[Span], rows: int) -> tuple[Span, ...]:
    """The first `rows` rows of some spans."""
    kept = []
    for span in spans:
        if rows <= 0:
            break
        kept.append(replace(span, rows=min(rows, span.rows)))
        rows -= span.rows
    return tuple(kept)
