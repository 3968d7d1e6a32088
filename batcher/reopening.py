"""Which rows are asked again: failed ones, or answers that were cut off, as their parts say.

The parts are read column by column and shard by shard, so that memory depends on the rows of a shard, not of the run.
What is chosen goes to the journal in one transaction; from then on those shards are unfinished ones like others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batcher.errors import StorageError
from batcher.journal import ReopenedRow, Reopening, moved_by
from batcher.plan import Plan
from batcher.records import Shard, Spent, Totals
from batcher.rundir import RunDir

#: what a completed row shows whose answer was cut off by `max_tokens` or the model's context
_CUT_OFF = "length"
#: of a part, what decides and what the rows have used
_COLUMNS = (
    "status", "finish_reason", "prompt_tokens", "completion_tokens", "cost_usd", "error.code", "error.http_status",
    "attempts", "job_version",
)  # fmt: skip
_BATCH_ROWS = 8192
_READ_AHEAD_BYTES = 1 << 20
#: codes that are told apart, and those that are named
_MOST_CODES, _MOST_NAMED = 500, 12


@dataclass(frozen=True, slots=True)
class Retry:
    """Which rows that have an outcome are asked again.

    A failed row takes its new outcome, whatever that is. A completed one keeps its answer if it gets no new one.
    """

    #: failed rows; with `only`, those whose error code or HTTP status is one of these
    failed: bool = True
    only: tuple[str, ...] = ()
    #: completed rows whose answer was cut off (finish reason `length`)
    truncated: bool = False

    @property
    def text(self) -> str:
        """The same for equal choices."""
        return orjson.dumps(asdict(self)).decode()


class Choice:
    """The rows that a retry chooses among the finished parts of a run, and how many they are."""

    def __init__(self, retry: Retry, rundir: RunDir, plan: Plan) -> None:
        self._retry, self._rundir, self._plan = retry, rundir, plan
        #: rows that are chosen, and codes of failed rows that are not, with how many rows show each
        self.failed = self.truncated = 0
        self.others: Counter[str] = Counter()
        self._matched: set[str] = set()

    def reopenings(self) -> Iterator[Reopening]:
        """Yield the shards with chosen rows, in order.

        Raises:
            StorageError: a part cannot be read.
        """
        self.failed = self.truncated = 0
        self.others.clear()
        for shard in self._plan.shards:
            part = self._rundir.part_of(shard)
            if part is None or shard.number in self._rundir.reopenings or not self._may_hold(part.totals):
                continue
            rows = list(self._chosen_rows(shard))
            if rows:
                yield Reopening(shard.number, part.revision + 1, self._retry.text, moved_by(rows), rows)

    def words(self) -> str:
        """Say what is asked again, or that nothing is, and which codes there are if one was not found."""
        chosen = [
            f"{count:,} {words}{'' if count == 1 else 's'}"
            for count, words in ((self.failed, "failed row"), (self.truncated, "cut-off row"))
            if count
        ]
        said = f"asking {' and '.join(chosen)} again" if chosen else self._nothing()
        missing = [code for code in self._retry.only if code not in self._matched] if self._retry.failed else []
        if not missing:
            return said
        named = [f"{code} ({rows:,})" for code, rows in self.others.most_common(_MOST_NAMED)]
        more = ", ..." if len(self.others) > _MOST_NAMED else ""
        there = f"failed rows with other codes: {', '.join(named)}{more}" if named else "there are no other failed rows"
        return f"{said}; no row failed with {' or '.join(missing)}; {there}"

    def _nothing(self) -> str:
        wanted = ["failed"] * self._retry.failed + ["was cut off"] * self._retry.truncated
        such = " as wanted" if self._retry.only else ""
        return f"nothing to ask again: no row {' or '.join(wanted)}{such}"

    def _may_hold(self, totals: Totals) -> bool:
        return bool((self._retry.failed and totals.failed) or (self._retry.truncated and totals.completed))

    def _chosen_rows(self, shard: Shard) -> Iterator[ReopenedRow]:
        prefix, first = self._rundir.form.prefix, shard.first_row
        names = [prefix + name for name in (*_COLUMNS, *(["valid"] if self._rundir.form.answers else ()))]
        for batch in _read(self._rundir.part_path(shard), names):
            batch = batch.rename_columns([name.removeprefix(prefix) for name in batch.schema.names])
            rows = pa.array(range(first, first + batch.num_rows), pa.int64())
            batch = batch.append_column("row_index", rows)
            for row in batch.filter(self._is_candidate(batch)).to_pylist():
                if self._is_wanted(row):
                    yield _reopened(row)
            first += batch.num_rows

    def _is_candidate(self, batch: pa.RecordBatch) -> pa.Array:
        failed = pc.equal(batch["status"], "failed")
        if not self._retry.truncated:
            return failed
        cut_off = pc.and_(
            pc.invert(failed), pc.fill_null(pc.equal(pc.utf8_lower(batch["finish_reason"]), _CUT_OFF), False)
        )
        return pc.or_(cut_off, failed) if self._retry.failed else cut_off

    def _is_wanted(self, row: dict[str, Any]) -> bool:
        if row["status"] == "completed":
            self.truncated += 1
            return True
        error = row["error"] or {}
        code = error.get("code") or "unknown"  # as `batcher failures` calls it
        names = {code, str(error.get("http_status"))} & set(self._retry.only)
        if self._retry.only and not names:
            if code in self.others or len(self.others) < _MOST_CODES:
                self.others[code] += 1
            return False
        self._matched |= names
        self.failed += 1
        return True


def _reopened(row: dict[str, Any]) -> ReopenedRow:
    error = row["error"] or {}
    return ReopenedRow(
        row_index=row["row_index"],
        kept=row["status"] == "completed",
        invalid=row.get("valid") is False,
        job_version=row["job_version"],
        code=error.get("code"),
        http_status=error.get("http_status"),
        attempts=row["attempts"],
        spent=Spent(row["prompt_tokens"], None, row["completion_tokens"], row["cost_usd"]),
    )


def _read(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        # with pre_buffer, or without a buffer size, whole files are held in memory
        with pq.ParquetFile(
            path, pre_buffer=False, buffer_size=_READ_AHEAD_BYTES, page_checksum_verification=True
        ) as file:
            yield from file.iter_batches(_BATCH_ROWS, columns=columns)
    except (OSError, pa.ArrowException, LookupError, ValueError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
