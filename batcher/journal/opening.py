"""Opening the journal's database: what SQLite must be able to do, and what it must find."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from batcher.durable import fsync_folder
from batcher.errors import StorageError
from batcher.journal.filesystem import shared_file_system
from batcher.journal.tables import SCHEMA, Damaged

_log = logging.getLogger(__name__)

#: the first version with STRICT tables
OLDEST_SQLITE = (3, 37, 0)

_PRAGMAS = (
    "synchronous = FULL",
    "mmap_size = 0",
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "journal_size_limit = 67108864",
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, and make it where there is none.

    Raises:
        StorageError: SQLite is too old, or what was left by an unclean end is damaged.
        sqlite3.Error, OSError: it cannot be opened.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE[:2]))
        raise StorageError(
            f"SQLite {needed} or newer is needed, this Python has {sqlite3.sqlite_version}; use another build of Python"
        )
    shared = shared_file_system(path.parent)
    if shared is not None:
        _log.warning("%s is on a file system (%s) that several hosts may share: run it on one only", path, shared)
    log = path.with_name(f"{path.name}-wal")
    unclean = log.exists() and log.stat().st_size > 0
    db = sqlite3.connect(path, isolation_level=None)
    try:
        _set_up(db)
        fsync_folder(path.parent)  # SQLite does too, and does not look whether that succeeded
        if unclean or db.execute("SELECT 1 FROM attempts WHERE leased = 1 LIMIT 1").fetchone():
            _check(db)
    except BaseException:
        db.close()
        raise
    return db


def _set_up(db: sqlite3.Connection) -> None:
    mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise sqlite3.OperationalError(f"this file system does not support SQLite's write-ahead log (mode {mode})")
    for pragma in _PRAGMAS:
        db.execute(f"PRAGMA {pragma}")
    db.executescript(SCHEMA)


def _check(db: sqlite3.Connection) -> None:
    """Look through the whole database, which a clean end would have vouched for."""
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise Damaged(" ".join(found.split()))


def storage_error(path: Path, error: Exception) -> StorageError:
    """Return the error of the run for one that met the journal at `path`, with what to do."""
    if isinstance(error, StorageError):
        return error
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, Damaged) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StorageError(
            f"{path} is damaged ({error}). Put a good copy in its place; or move it away with its -wal and -shm files:"
            " finished parts stay, and every row of the others is asked, and paid for, again"
        )
    words = str(error) if isinstance(error, sqlite3.Error | OSError) else type(error).__name__  # others may quote a row
    return StorageError(
        f"{path}: {words}. What was acknowledged before is safe; free or repair the storage and run the same command"
        " again"
    )
