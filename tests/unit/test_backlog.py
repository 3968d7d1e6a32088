"""The backlog: which row is sent next, within a bound on bytes and on rows that wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from batcher.backlog import Backlog
from batcher.pending import Pending
from batcher.records import Prompt


def pending(row_index: int, size: int = 1) -> Pending:
    """A row whose request has so many bytes."""
    shard: Any = SimpleNamespace()
    return Pending(row_index, shard, Prompt(b"x" * size))


def backlog(*sizes: int, max_bytes: int = 100, max_waiting: int = 10) -> Backlog:
    """A backlog of fresh rows."""
    rows = Backlog(max_bytes=max_bytes, max_waiting=max_waiting)
    rows.add(pending(row, size) for row, size in enumerate(sizes))
    return rows


def test_fresh_rows() -> None:
    """They are chosen in order, as many as asked for; a chosen row is leasing until its lease is committed."""
    rows = backlog(3, 4, 5)
    assert (rows.fresh, rows.fresh_bytes, rows.empty) == (3, 12, False)
    assert rows.choose(0, 0.0) == rows.choose(-5, 0.0) == []
    assert rows.choose(2, 0.0) == [0, 1]
    assert (rows.fresh, rows.fresh_bytes, rows.leasing) == (1, 5, 2)
    assert rows.leased(1).row_index == 1
    assert rows.choose(9, 0.0) == [2]
    rows.leased(0)
    rows.leased(2)
    assert rows.empty


def test_rows_that_are_due_again() -> None:
    """They come before fresh ones, the first due first, and not before their time."""
    rows = backlog(1, 1, 1, 1)
    rows.choose(3, 0.0)
    for row, due in ((0, 5.0), (1, 3.0), (2, 3.0)):
        rows.wait(rows.leased(row), due)
    assert (rows.waiting, rows.next_due_s) == (3, 3.0)
    assert rows.choose(1, 2.9) == [3]
    assert rows.choose(9, 3.0) == [1, 2]
    assert rows.next_due_s == 5.0
    assert rows.choose(9, 9.0) == [0]
    assert rows.next_due_s is None


def test_the_bound_on_bytes() -> None:
    """Fresh rows wait until enough bytes are settled; those that are due again are within the bound already."""
    rows = backlog(60, 40, 1, max_bytes=100)
    assert rows.choose(9, 0.0) == [0, 1]
    first = rows.leased(0)
    rows.wait(first, 1.0)
    assert rows.choose(9, 1.0) == [0]
    rows.settled(rows.leased(1))
    assert rows.choose(9, 1.0) == [2]


def test_a_request_larger_than_the_bound() -> None:
    """It is sent when nothing else is unsettled, and nothing else beside it."""
    rows = backlog(1, 500, 1, max_bytes=100)
    assert rows.choose(9, 0.0) == [0]
    rows.settled(rows.leased(0))
    assert rows.choose(9, 0.0) == [1]
    assert rows.choose(9, 0.0) == []
    rows.settled(rows.leased(1))
    assert rows.choose(9, 0.0) == [2]


def test_another_request_counts_with_its_own_bytes() -> None:
    """A row that is asked again in other words takes as much of the bound as these have, until it is settled."""
    rows = backlog(50, 40, 20, max_bytes=100)
    assert rows.choose(9, 0.0) == [0, 1]
    first, second = rows.leased(0), rows.leased(1)
    rows.rewritten(first, b"x" * 30)
    assert rows.choose(9, 0.0) == [2]
    rows.rewritten(second, b"x" * 400)
    rows.add([pending(3, 60)])
    rows.settled(second)
    assert rows.choose(9, 0.0) == []
    rows.settled(first)
    assert rows.choose(9, 0.0) == [3]


def test_the_bound_on_rows_that_wait() -> None:
    """In an outage the input is not read to its end: as many wait as may, and the others stay fresh."""
    rows = backlog(*[1] * 10, max_waiting=2)
    for row in rows.choose(2, 0.0):
        rows.wait(rows.leased(row), 9.0)
    assert rows.choose(9, 0.0) == []
    assert rows.fresh == 8
    assert rows.choose(1, 9.0) == [0]
    assert rows.choose(1, 0.0) == [2]


def test_ready_rows_are_not_forgotten() -> None:
    """A backlog with nothing but a ready row is not empty."""
    rows = backlog(1)
    rows.choose(1, 0.0)
    assert not rows.empty
    rows.ready.append(rows.leased(0))
    assert not rows.empty
