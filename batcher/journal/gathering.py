"""Several journals of one run folder, and how rows get from one into another.

While several processes work, each has a journal of its own: `journal-0.sqlite`, `journal-1.sqlite` and so on. In
between only the first one counts: `gather` moves into it what the others hold, whatever number of processes left them,
and `deal` moves the rows of some shards out of it. Both are for whoever holds the folder's lock while no journal is
open.

A move copies, makes that durable, and then deletes. Cut short it leaves the same rows in two places, still equal when
the next `gather` goes on with it, since nobody works before. A file is taken away only once it is empty and its
write-ahead log is gone: a log that is left behind would be played into the next file of that name.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from batcher.errors import StorageError
from batcher.journal.opening import connect, storage_error
from batcher.journal.tables import in_transaction
from batcher.records import Shard

_log = logging.getLogger(__name__)

_NAME = re.compile(r"journal-(\d{1,6})\.sqlite")

#: a table, a condition on its rows, and the values in it
Which = tuple[str, str, tuple[int, ...]]


def journal_path(state: Path, number: int) -> Path:
    """Where the journal of a worker process is, in the `.batcher` of a run folder."""
    return state / f"journal-{number}.sqlite"


def journals_of(state: Path) -> list[Path]:
    """Return the journals that are there, the first one first."""
    found = {int(match[1]): path for path in state.glob("journal-*.sqlite") if (match := _NAME.fullmatch(path.name))}
    return [path for _, path in sorted(found.items())]


def gather(state: Path) -> int:
    """Move everything into the first journal; return how many others there were.

    Raises:
        StorageError: one of them cannot be read or written, or is damaged. Nothing is lost.
    """
    first = journal_path(state, 0)
    others = [path for path in journals_of(state) if path != first]
    for other in others:
        _move(other, first, _move_all)
        _discard(other)
    return len(others)


def deal(state: Path, shards: Sequence[Shard], count: int) -> list[list[Shard]]:
    """Deal those of `shards` that the first journal knows anything of to `count` journals; return them by journal.

    Raises:
        StorageError: a journal cannot be read or written. Nothing is lost.
    """
    first = journal_path(state, 0)
    known = _known(first, shards)
    hands = [known[number::count] for number in range(count)]
    for number, hand in enumerate(hands):
        if number and hand:
            _move(first, journal_path(state, number), partial(_move_rows, shards=hand))
    return hands


def _known(path: Path, shards: Sequence[Shard]) -> list[Shard]:
    try:
        with contextlib.closing(connect(path)) as db:
            tables = _tables(db, "main")
            return [shard for shard in shards if _knows(db, _rows_of(shard, *tables))]
    except (sqlite3.Error, OSError, StorageError) as error:
        raise storage_error(path, error) from error


def _move(source: Path, target: Path, move: Callable[[sqlite3.Connection], None]) -> None:
    """Run `move` on a connection to the target that knows the source by the name of `source`."""
    met = source
    try:
        connect(source).close()  # which looks whether an unclean end has damaged it
        met = target
        with contextlib.closing(connect(target)) as db:
            db.execute("ATTACH DATABASE ? AS source", (str(source),))
            db.execute("PRAGMA source.synchronous = FULL")
            move(db)
    except (sqlite3.Error, OSError, StorageError) as error:
        raise storage_error(met, error) from error


def _move_all(db: sqlite3.Connection) -> None:
    tables: list[Which] = [
        (name, "", ()) for (name,) in db.execute("SELECT name FROM source.sqlite_schema WHERE type = 'table'")
    ]
    in_transaction(db, partial(_copy, which=tables))
    in_transaction(db, partial(_delete, which=tables))


def _move_rows(db: sqlite3.Connection, shards: Sequence[Shard]) -> None:
    tables = _tables(db, "source")
    for shard in shards:
        which = _rows_of(shard, *tables)
        in_transaction(db, partial(_copy, which=which))
        in_transaction(db, partial(_delete, which=which))


def _tables(db: sqlite3.Connection, schema: str) -> tuple[list[str], list[str]]:
    """The tables with an entry for a row, and those with one for a shard."""
    query = f"SELECT t.name FROM {schema}.sqlite_schema t JOIN pragma_table_info(t.name) c WHERE c.name = ?"  # noqa: S608
    of_rows, of_shards = ([name for (name,) in db.execute(query, (key,))] for key in ("row_index", "shard"))
    return of_rows, of_shards


def _rows_of(shard: Shard, of_rows: Sequence[str], of_shards: Sequence[str]) -> list[Which]:
    bounds = (shard.first_row, shard.end_row)
    by_row: list[Which] = [(name, " WHERE row_index >= ? AND row_index < ?", bounds) for name in of_rows]
    return by_row + [(name, " WHERE shard = ?", (shard.number,)) for name in of_shards]


def _knows(db: sqlite3.Connection, which: Sequence[Which]) -> bool:
    queries = ((f"SELECT 1 FROM {table}{condition} LIMIT 1", values) for table, condition, values in which)  # noqa: S608
    return any(db.execute(query, values).fetchone() for query, values in queries)


def _copy(db: sqlite3.Connection, which: Sequence[Which]) -> None:
    """Copy rows as they are, with their checksums; what the target has already is the same, or newer."""
    for table, condition, values in which:
        query = f"INSERT OR IGNORE INTO main.{table} SELECT * FROM source.{table}{condition}"  # noqa: S608 - names of ours
        db.execute(query, values)
    db.execute("DELETE FROM main.attempts WHERE row_index IN (SELECT row_index FROM main.outcomes)")


def _delete(db: sqlite3.Connection, which: Sequence[Which]) -> None:
    for table, condition, values in which:
        db.execute(f"DELETE FROM source.{table}{condition}", values)  # noqa: S608 - names of ours


def _discard(path: Path) -> None:
    """Take an empty journal away, unless somebody who reads it keeps its log alive; it does no harm where it is."""
    try:
        path.with_suffix(".reserve").unlink(missing_ok=True)
        if not path.with_name(f"{path.name}-wal").exists():
            path.unlink()
    except OSError as error:
        _log.warning("%s could not be removed: %s", path, error.strerror or error)
