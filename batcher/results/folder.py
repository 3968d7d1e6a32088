"""A run folder as its readers see it: what was planned, which parts there are, and its rows as record batches.

A row is read from the part of its shard; while there is none, its outcome comes from the journal and its input columns
from the input files. A run may publish a part, and forget its rows in the journal, at any moment: `batches` then goes
on in the part, so that no row is missed, repeated or out of order. Rows without an outcome are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import pyarrow as pa

from batcher.errors import InputError, StorageError
from batcher.journal import JournalsReader
from batcher.part import PartFormat
from batcher.plan import Plan
from batcher.records import Shard, Status, Totals
from batcher.results.partfile import part_rows, part_totals
from batcher.results.wanted import Wanted, open_rows
from batcher.rundir import FORMAT_VERSION
from batcher.structured.columns import AnswerColumns


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A finished shard."""

    path: Path
    shard: Shard
    totals: Totals


class Results:
    """What a run folder holds. Close it after use; use it from one thread."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        #: the run folder
        self.path = path
        #: which rows belong to which shard, the input files and all input columns
        self.plan = Plan.from_json(manifest["plan"])
        #: what determines the result, as `Job.identity` gives it: model, prompts, parameters, endpoint, output
        self.job: dict[str, Any] = manifest["job"]
        #: the version of batcher that began the run
        self.version: str = manifest["batcher"]
        #: what stands before the names of the columns that batcher added
        self.prefix: str = self.job["output"]["prefix"]
        #: what answers with a schema add to the columns; None without one
        self.answers = AnswerColumns.of(self.job)
        carried = _carried(self.plan.schema, self.job["output"]["columns"])
        #: the names of the input columns that the output carries
        self.carried: list[str] = carried.names
        #: all columns of a row, the carried ones first, with the types that a part has for whoever reads it
        self.schema = pa.schema(map(_as_stored, PartFormat(carried, self.prefix, "", "", self.answers).schema))
        self._totals: dict[int, Totals] = {}
        self._journal = JournalsReader(path / ".batcher")

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the run in an output folder.

        Raises:
            InputError: there is none, or it is of another version of batcher.
            StorageError: its manifest is damaged.
        """
        file = path / ".batcher" / "manifest.json"
        try:
            manifest = orjson.loads(file.read_bytes())
            if manifest["format"] != FORMAT_VERSION:
                raise InputError(f"{path} was written by another version of batcher")
            return cls(path, manifest)
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{path} holds no run yet") from None
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{file} cannot be read, or is not what batcher wrote: {error}") from error

    # -- what was planned

    @property
    def rows(self) -> int:
        """Rows of the input."""
        return self.plan.rows

    def column(self, name: str) -> str:
        """Return what a column that batcher added, such as `status`, is called in this run."""
        return self.prefix + name

    @property
    def input_fingerprint(self) -> str:
        """Twelve hexadecimal digits that are equal for equal inputs."""
        return hashlib.sha256("".join(self.plan.digests).encode()).hexdigest()[:12]

    # -- what is done

    @property
    def finished(self) -> bool:
        """Every row has an outcome in a part."""
        return all(map(self._has_part, self.plan.shards))

    def parts(self) -> list[StoredPart]:
        """Return the parts that are in place, in order.

        Raises:
            StorageError: one is damaged, or not of this run.
        """
        there = self._names()
        return [
            StoredPart(self.part_path(shard), shard, self._totals_of(shard))
            for shard in self.plan.shards
            if self.part_path(shard).name in there or self._has_part(shard)
        ]

    def part_path(self, shard: Shard) -> Path:
        """Where the part of a shard is, or will be."""
        return self.path / f"part-{shard.number:05d}.parquet"

    def totals(self) -> Totals:
        """Return the sums over all rows that have an outcome, in a part or not yet.

        Raises:
            StorageError: a part is damaged or gone, or the journal cannot be read.
        """
        while True:
            parts = self.parts()
            totals = self._open_totals({part.shard.number for part in parts})
            if len(self._names()) == len(parts):  # else a shard moved from the journal to its part meanwhile
                break
        for part in parts:
            totals.add(part.totals)
        return totals

    def on_their_way(self) -> int:
        """Return how many rows are noted as sent and not answered; if no process is at work, they may be paid for."""
        return 0 if self.finished else self._journal.on_their_way()

    def attempts(self, row_index: int) -> int:
        """Return how often a row that has no outcome yet was asked so far."""
        return self._journal.attempts(row_index)

    # -- the rows

    def batches(
        self,
        columns: Sequence[str] | None = None,
        *,
        first_row: int = 0,
        end_row: int | None = None,
        status: Status | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows that have an outcome, in row order, in batches of some MB; none is empty.

        `columns` are names of `schema` (default: all of them); `first_row` and `end_row` are row indexes; `status`
        leaves out the rows of the other one, and most of the work with them.

        Raises:
            StorageError: a part is damaged or gone, or the journal cannot be read.
            InputError: columns of the input are wanted of rows without a part, and the input is not there any more.
        """
        names = self.schema.names if columns is None else list(columns)
        wanted = Wanted(self.schema, self.carried, self.prefix, names, status, self.answers)
        end = self.rows if end_row is None else min(end_row, self.rows)
        for shard in self.plan.shards:
            if shard.first_row < end and shard.end_row > first_row:
                yield from self._shard_rows(shard, wanted, max(first_row, shard.first_row), min(end, shard.end_row))

    def close(self) -> None:
        """Give the files back."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- one shard

    def _shard_rows(self, shard: Shard, wanted: Wanted, first: int, end: int) -> Iterator[pa.RecordBatch]:
        if not self._has_part(shard):
            for batch, next_row in open_rows(self.plan, shard, self._journal, wanted, first, end):
                if self._has_part(shard):  # its rows are being forgotten: some may lack in what was just read
                    break
                yield from wanted.chosen(batch)
                first = next_row
            if not self._has_part(shard):
                return
        if wanted.status != "failed" or self._totals_of(shard).failed:
            yield from part_rows(self.part_path(shard), shard, wanted, first, end)

    def _has_part(self, shard: Shard) -> bool:
        """Whether the part is in place; refuses a folder from which it was taken away."""
        path = self.part_path(shard)
        if path.exists():
            return True
        if self._journal.knows_part(shard.number) and not path.exists():
            raise StorageError(f"{path} is missing, though it was finished")
        return False

    def _names(self) -> set[str]:
        try:
            return {path.name for path in self.path.glob("part-*.parquet")} & {
                self.part_path(shard).name for shard in self.plan.shards
            }
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def _totals_of(self, shard: Shard) -> Totals:
        if shard.number not in self._totals:
            self._totals[shard.number] = part_totals(self.part_path(shard), shard, self.schema)
        return self._totals[shard.number]

    def _open_totals(self, done: set[int]) -> Totals:
        """The sums over the journal's rows of shards that are not `done`: of those it may hold remains."""
        ranges: list[tuple[int, int]] = []
        for shard in self.plan.shards:
            if shard.number not in done:
                joins = bool(ranges) and ranges[-1][1] == shard.first_row
                first = ranges.pop()[0] if joins else shard.first_row
                ranges.append((first, shard.end_row))
        return self._journal.totals(ranges) if ranges else Totals()


def _carried(schema: pa.Schema, columns: str | list[str]) -> pa.Schema:
    """The input columns that a part holds, as the run folder chose them."""
    return schema.remove_metadata() if columns == "all" else pa.schema([schema.field(name) for name in columns])


def _as_stored(field: pa.Field) -> pa.Field:
    """A field as it comes back from Parquet, which knows no time in whole seconds."""
    kind = field.type
    whole = pa.types.is_timestamp(kind) and kind.unit == "s"
    return field.with_type(pa.timestamp("ms", kind.tz)) if whole else field
