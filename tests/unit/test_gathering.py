"""Rows that move between the journals of a run folder: none is lost, none is there twice, wherever it is cut short."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from batcher.errors import StorageError
from batcher.journal import Journal, JournalsReader, Part, deal, gather, journal_path
from batcher.records import Shard, Totals
from tests.fakes import outcome

SHARDS = [Shard(number, 10 * number, 10, ()) for number in range(6)]


def write(
    state: Path, number: int, *, done: range = range(0), leased: range = range(0), part: int | None = None
) -> None:
    """Leave a journal behind that holds outcomes, leases and perhaps a part."""
    journal = Journal(journal_path(state, number))
    for row in done:
        journal.record(outcome(row))
    journal.lease(leased)
    if part is not None:
        journal.published(Part(part, 1, Totals(completed=10)))
    journal.close()


def rows(state: Path, number: int, table: str = "outcomes", column: str = "row_index") -> list[int]:
    """What a table of a journal holds."""
    if not journal_path(state, number).exists():
        return []
    db = sqlite3.connect(journal_path(state, number))
    found = [row for (row,) in db.execute(f"SELECT {column} FROM {table} ORDER BY 1")]
    db.close()
    return found


def test_all_journals_become_one(tmp_path: Path) -> None:
    """Outcomes, leases and parts of any number of journals end up in the first one, and the others are gone."""
    write(tmp_path, 0, done=range(5), part=5)
    write(tmp_path, 1, done=range(10, 15), leased=range(15, 17))
    write(tmp_path, 7, done=range(20, 22), part=4)
    assert gather(tmp_path) == 2
    assert rows(tmp_path, 0) == [*range(5), *range(10, 15), 20, 21]
    assert rows(tmp_path, 0, "attempts") == [15, 16]
    assert rows(tmp_path, 0, "parts", "shard") == [4, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal-0.sqlite"]
    journal = Journal(journal_path(tmp_path, 0))
    assert journal.recover() == 2, "rows on their way in any of them are counted once"
    journal.close()


def test_rows_that_are_in_two_journals_count_once(tmp_path: Path) -> None:
    """A move cut short before the deletion, or undone by a power cut, leaves nothing to be asked or paid twice."""
    write(tmp_path, 1, done=range(5), leased=range(5, 8))
    shutil.copy(journal_path(tmp_path, 1), tmp_path / "copy")
    gather(tmp_path)
    write(tmp_path, 0, done=range(5, 6))  # the run goes on before the other journal comes back
    (tmp_path / "copy").rename(journal_path(tmp_path, 1))
    gather(tmp_path)
    assert rows(tmp_path, 0) == [0, 1, 2, 3, 4, 5]
    assert rows(tmp_path, 0, "attempts") == [6, 7]


def test_open_shards_are_dealt_out(tmp_path: Path) -> None:
    """The shards of which anything is known are dealt to the journals in turn, rows and all."""
    write(tmp_path, 0, done=range(3), leased=range(10, 12), part=5)
    with JournalsReader(tmp_path) as reader:
        hands = deal(tmp_path, SHARDS[:5], 2)
        assert [[shard.number for shard in hand] for hand in hands] == [[0], [1]]
        assert (rows(tmp_path, 0), rows(tmp_path, 0, "attempts")) == ([0, 1, 2], [])
        assert (rows(tmp_path, 1), rows(tmp_path, 1, "attempts")) == ([], [10, 11])
        assert reader.on_their_way() == 2
        assert reader.knows_part(5)


def test_a_reader_sees_all_journals_as_one(tmp_path: Path) -> None:
    """Outcomes come in row order from all of them, cut off where one of them had to stop, and sums are over all."""
    write(tmp_path, 0, done=range(4))
    write(tmp_path, 1, done=range(4, 40, 2))
    write(tmp_path, 2, done=range(5, 40, 2))
    with JournalsReader(tmp_path) as reader:
        assert reader.totals([(0, 100)]).completed == 40
        found: list[int] = []
        while more := reader.outcomes(found[-1] + 1 if found else 0, 100, max_bytes=300):
            found += [one.row_index for one in more]
        assert found == list(range(40))
        assert reader.holds_outcomes(39, 40)
        assert not reader.holds_outcomes(40, 50)


def test_a_journal_that_is_read_meanwhile_stays_as_an_empty_file(tmp_path: Path) -> None:
    """A reader keeps a journal's log alive: the file is left, since the log would be played into the next one."""
    write(tmp_path, 1, done=range(3))
    with JournalsReader(tmp_path) as reader:
        assert len(reader.outcomes(0, 10)) == 3
        gather(tmp_path)
        assert len(reader.outcomes(0, 10)) == 3
        assert rows(tmp_path, 1) == []


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    """What cannot be read is not taken for empty: the run does not begin, and says which file it is."""
    write(tmp_path, 0)
    journal_path(tmp_path, 1).write_bytes(b"no database at all" * 500)
    with pytest.raises(StorageError, match=r"journal-1\.sqlite is damaged"):
        gather(tmp_path)
