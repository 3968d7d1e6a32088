"""The journal's tables and the statements on them.

attempts   rows that were sent, or are about to be, and have no outcome yet.
           leased = 1: a request may be on its way at this moment. A process that dies leaves it so, and the next
           one counts exactly these as "may have been paid for". `spent` is what answers used that could not be kept
drafts     answers that do not match the job's schema, of rows that are asked for a better one; of a row with an outcome
           it says nothing any more
outcomes   the final result of a row of an open shard; `body` is the answer as it was received
parts      shards whose part is published, with their totals; their rows are gone from the other tables, but for those
           that are asked again (see reopened)

SQLite sees damage to the structure of its file, not to values in it, so what ends up in parts and sums has a checksum
of its own: a bit that flips on the disk is an error, never an answer.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, TypeVar

import orjson

from batcher.measured import Measured, Sums
from batcher.records import ApiError, Draft, Outcome, Spent, Totals

T = TypeVar("T")

SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
  row_index INTEGER PRIMARY KEY, attempts INTEGER NOT NULL, ambiguous INTEGER NOT NULL, leased INTEGER NOT NULL,
  spent TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS outcomes (
  row_index INTEGER PRIMARY KEY, status TEXT NOT NULL, body BLOB NOT NULL, attempts INTEGER NOT NULL,
  ambiguous INTEGER NOT NULL, latency_s REAL, requested_at REAL, error TEXT,
  prompt_tokens INTEGER, cached_tokens INTEGER, completion_tokens INTEGER, cost_usd REAL, valid INTEGER,
  job_version INTEGER NOT NULL, checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS reopenings (
  shard INTEGER PRIMARY KEY, revision INTEGER NOT NULL, selection TEXT NOT NULL, moved TEXT NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS reopened_rows (
  row_index INTEGER PRIMARY KEY, kept INTEGER NOT NULL, invalid INTEGER NOT NULL, job_version INTEGER NOT NULL,
  code TEXT, http_status INTEGER,
  checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS drafts (
  row_index INTEGER PRIMARY KEY, body BLOB NOT NULL, latency_s REAL NOT NULL, requested_at REAL NOT NULL,
  repairs INTEGER NOT NULL, checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS parts (
  shard INTEGER PRIMARY KEY, size_bytes INTEGER NOT NULL, totals TEXT NOT NULL, crc32 INTEGER, modified_ns INTEGER,
  revision INTEGER NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;
"""


#: after every row
END = (1 << 63) - 1

# Each statement takes many rows: SQLite lets go of Python's lock for every one, and the event loop's thread takes it.
_LEASE = (
    "INSERT INTO attempts SELECT value, 0, 0, 1, NULL FROM json_each(?) WHERE true"
    " ON CONFLICT (row_index) DO UPDATE SET leased = 1"
)
_SETTLE = "DELETE FROM attempts WHERE row_index IN (SELECT value FROM json_each(?))"
#: outcomes that one statement takes
_TOGETHER = 16
_RECORD, _RECORD_TOGETHER = (
    f"INSERT OR IGNORE INTO outcomes VALUES {', '.join(['(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)'] * rows)}"  # noqa: S608 - no values
    for rows in (1, _TOGETHER)
)


@dataclass(slots=True)
class Batch:
    """Entries that are committed together."""

    #: rows about to be sent
    leases: list[int] = field(default_factory=list)
    #: (attempts, ambiguous, spent, row_index) of rows that are not on their way any more and have no outcome
    releases: list[tuple[int, int, str | None, int]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    #: answers that are kept in case no better one comes
    drafts: list[Draft] = field(default_factory=list)
    #: questions and who waits for their answers
    calls: list[tuple[Callable[[sqlite3.Connection], Any], Future[Any]]] = field(default_factory=list)

    @property
    def entries(self) -> int:
        """Number of entries that need a transaction."""
        return len(self.leases) + len(self.releases) + len(self.outcomes) + len(self.drafts)

    def then(self, later: Batch) -> Batch:
        """Return the entries and questions of both, these first."""
        return Batch(
            self.leases + later.leases,
            self.releases + later.releases,
            self.outcomes + later.outcomes,
            self.drafts + later.drafts,
            self.calls + later.calls,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """What the journal knows of a published part."""

    shard: int
    size_bytes: int
    totals: Totals
    #: checksum of the whole file, and when it was last changed; None where nobody looked
    crc32: int | None = None
    modified_ns: int | None = None
    #: how often the part was replaced by one with newer outcomes
    revision: int = 0


class Damaged(sqlite3.DatabaseError):
    """What is read is not what was written."""


def in_transaction(db: sqlite3.Connection, ask: Callable[[sqlite3.Connection], T]) -> T:
    db.execute("BEGIN IMMEDIATE")
    result = ask(db)
    db.execute("COMMIT")
    return result


def insert(db: sqlite3.Connection, batch: Batch) -> int:
    """Write the entries, within a transaction; return how many outcomes were not known before.

    The order matters where one row has two entries: a row may be released and leased again in one batch. It can not
    be leased and released or recorded in one batch, since it is sent only after its lease is committed.
    """
    new = 0
    if batch.releases:
        db.executemany(
            "UPDATE attempts SET leased = 0, attempts = ?, ambiguous = ?, spent = ? WHERE row_index = ?", batch.releases
        )
    if batch.drafts:
        db.executemany("INSERT OR REPLACE INTO drafts VALUES (?,?,?,?,?,?)", map(_row_of_draft, batch.drafts))
    if batch.outcomes:
        db.execute(_SETTLE, (_as_json([one.row_index for one in batch.outcomes]),))
        new = _record(db, [_row_of(one) for one in batch.outcomes])
    if batch.leases:
        db.execute(_LEASE, (_as_json(batch.leases),))
    return new


def _record(db: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> int:
    whole = len(rows) - len(rows) % _TOGETHER
    new = 0
    for first in range(0, whole, _TOGETHER):
        values = tuple(chain.from_iterable(rows[first : first + _TOGETHER]))
        new += db.execute(_RECORD_TOGETHER, values).rowcount
    return new + db.executemany(_RECORD, rows[whole:]).rowcount if whole < len(rows) else new


def _as_json(rows: list[int]) -> str:
    return orjson.dumps(rows).decode()


def _row_of(outcome: Outcome) -> tuple[Any, ...]:
    values = (
        outcome.row_index,
        outcome.status,
        outcome.attempts,
        outcome.ambiguous,
        _real(outcome.latency_s),
        _real(outcome.requested_at),
        None if outcome.error is None else orjson.dumps(outcome.error).decode(),
        outcome.prompt_tokens,
        outcome.cached_tokens,
        outcome.completion_tokens,
        _real(outcome.cost_usd),
        None if outcome.valid is None else int(outcome.valid),
        outcome.job_version,
    )
    return (*values[:2], outcome.body, *values[2:], _answer_checksum(values, outcome.body))


def _real(value: float | None) -> float | None:
    """The value as SQLite gives it back from a REAL column."""
    return None if value is None or value != value else float(value) + 0.0


def _answer_checksum(values: tuple[Any, ...], body: bytes) -> int:
    """Of an answer, for every one of them: writing numbers as JSON takes a tenth of the time that `repr` does."""
    return zlib.crc32(orjson.dumps(values), zlib.crc32(body))


def _checksum(values: tuple[Any, ...]) -> int:
    return zlib.crc32(repr(values).encode())


def outcome_of(row: tuple[Any, ...]) -> Outcome:
    """Return the outcome of a row of the table. Raises Damaged if it is not what was written."""
    index, status, body, attempts, ambiguous, latency_s, requested_at, error, *spent, checksum = row
    try:
        sound = checksum == _answer_checksum((*row[:2], *row[3:-1]), body)
    except TypeError:  # a value of a kind that was never written
        sound = False
    if not sound:
        raise Damaged(f"the answer to row {index} is not what was written")
    prompt_tokens, cached_tokens, completion_tokens, cost_usd, valid, job_version = spent
    return Outcome(
        row_index=index,
        status=status,
        body=body,
        attempts=attempts,
        ambiguous=ambiguous,
        latency_s=latency_s,
        requested_at=requested_at,
        error=None if error is None else ApiError(**orjson.loads(error)),
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
        cost_usd=cost_usd,
        valid=None if valid is None else bool(valid),
        job_version=job_version,
    )


def _row_of_draft(draft: Draft) -> tuple[Any, ...]:
    values = (draft.row_index, _real(draft.latency_s), _real(draft.requested_at), draft.repairs)
    return (draft.row_index, draft.body, *values[1:], _answer_checksum(values, draft.body))


def open_drafts(db: sqlite3.Connection) -> dict[int, Draft]:
    """Return `row_index -> draft` of rows without an outcome. Raises Damaged if one is not what was written."""
    found: dict[int, Draft] = {}
    query = "SELECT * FROM drafts WHERE row_index NOT IN (SELECT row_index FROM outcomes)"
    for index, body, latency_s, requested_at, repairs, checksum in db.execute(query):
        found[index] = Draft(index, body, latency_s, requested_at, repairs)
        if _row_of_draft(found[index])[-1] != checksum:
            raise Damaged(f"the first answer to row {index} is not what was written")
    return found


def note_part(db: sqlite3.Connection, part: Part) -> None:
    """Write that a part is published, within a transaction."""
    totals = orjson.dumps(asdict(part.totals)).decode()
    values = (part.shard, part.size_bytes, totals, part.crc32, part.modified_ns, part.revision)
    db.execute("INSERT OR REPLACE INTO parts VALUES (?,?,?,?,?,?,?)", (*values, _checksum(values)))


def part_of(row: tuple[Any, ...]) -> Part:
    """Return the part of a row of the table. Raises Damaged if it is not what was written."""
    shard, size_bytes, totals, crc32, modified_ns, revision, checksum = row
    if checksum != _checksum(row[:-1]):
        raise Damaged(f"the entry of part {shard} is not what was written")
    return Part(shard, size_bytes, Totals(**orjson.loads(totals)), crc32, modified_ns, revision)


def open_totals(db: sqlite3.Connection, first_row: int = 0, end_row: int = END) -> Totals:
    """Return the sums over all outcomes and attempts, of rows that are not in a part or of a range of rows.

    A completed row that was asked again and failed counts as completed: it keeps its answer.
    """
    bounds = (first_row, end_row)
    counts = db.execute(
        "SELECT coalesce(sum(status = 'completed' OR ifnull(kept, 0)), 0),"
        " coalesce(sum(status = 'failed' AND NOT ifnull(kept, 0)), 0),"
        " coalesce(sum(ambiguous), 0), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0),"
        " coalesce(sum(cached_tokens), 0), coalesce(sum(cost_usd), 0.0),"
        " coalesce(sum(cost_usd IS NULL AND (prompt_tokens > 0 OR completion_tokens > 0)), 0),"
        " coalesce(sum(iif(status = 'failed' AND ifnull(kept, 0), invalid, valid = 0)), 0)"
        " FROM outcomes LEFT JOIN reopened_rows USING (row_index) WHERE row_index >= ? AND row_index < ?",
        bounds,
    ).fetchone()
    totals = Totals(*counts)
    later = (
        "SELECT iif(status = 'failed' AND ifnull(r.kept, 0), r.job_version, o.job_version) AS version, count(*)"
        " FROM outcomes AS o LEFT JOIN reopened_rows AS r USING (row_index)"
        " WHERE row_index >= ? AND row_index < ? AND version > 1 GROUP BY version"
    )
    totals.later_versions = {str(version): rows for version, rows in db.execute(later, bounds)}
    unsure = "SELECT coalesce(sum(ambiguous), 0) FROM attempts WHERE row_index >= ? AND row_index < ?"
    totals.ambiguous += db.execute(unsure, bounds).fetchone()[0]
    used_in_vain = "SELECT spent FROM attempts WHERE row_index >= ? AND row_index < ? AND spent IS NOT NULL"
    for (used,) in db.execute(used_in_vain, bounds):
        totals.count(Spent(**orjson.loads(used)))
    return totals


def measured(db: sqlite3.Connection) -> Measured:
    """Return what the completed rows used that are not in a part."""
    names = ("prompt_tokens", "completion_tokens", "cost_usd", "latency_s")
    sums = ", ".join(f"count({name}), total({name}), total(1.0 * {name} * {name})" for name in names)
    found = db.execute(f"SELECT {sums} FROM outcomes WHERE status = 'completed'").fetchone()  # noqa: S608 - names of ours
    return Measured(*(Sums(*found[first : first + 3]) for first in range(0, len(found), 3)))


def outcomes_between(db: sqlite3.Connection, first_row: int, end_row: int, max_bytes: int) -> list[Outcome]:
    """Return outcomes in row order; stops early, after at least one, once the bodies exceed `max_bytes`."""
    query = "SELECT * FROM outcomes WHERE row_index >= ? AND row_index < ? ORDER BY row_index"
    found: list[Outcome] = []
    size = 0
    with contextlib.closing(db.execute(query, (first_row, end_row))) as rows:
        for row in rows:
            found.append(outcome_of(row))
            size += len(found[-1].body)
            if size > max_bytes:
                break
    return found
