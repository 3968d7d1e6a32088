"""A run folder as its readers see it: what was planned, which parts there are, and its rows as record batches.

A row is read from the part of its shard; while there is none, its outcome comes from the journal and its input columns
from the input files. A row that is asked again is what its part says until it has a newer outcome. A run may publish a
part, or replace one, and forget its rows in the journal, at any moment: `batches` then goes on in the new part, so that
no row is missed, repeated or out of order. Rows without an outcome are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from batcher.errors import InputError, ResumeError, StorageError
from batcher.journal import JournalsReader
from batcher.manifest import Manifest
from batcher.part import PartFormat
from batcher.plan import Plan
from batcher.records import Shard, Status, Totals, Version
from batcher.results.partfile import part_rows, part_totals, renewed_rows
from batcher.results.wanted import Wanted, open_rows
from batcher.rundir import REOPENED
from batcher.structured.columns import AnswerColumns


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A finished shard."""

    path: Path
    shard: Shard
    totals: Totals


class Results:
    """What a run folder holds. Close it after use; use it from one thread."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        #: the run folder
        self.path = path
        #: which rows belong to which shard, the input files and all input columns
        self.plan = Plan.from_json(manifest.planned)
        self._manifest = manifest
        #: what determines the result, as `Job.identity` gives it: model, prompts, parameters, endpoint, output
        self.job: dict[str, Any] = manifest.job
        #: the same for every version of the job, by the number that rows have in `job_version`
        self.jobs: dict[int, dict[str, Any]] = {n: one["job"] for n, one in enumerate(manifest.versions, 1)}
        #: the version of batcher that began the run
        self.version: str = manifest.batcher
        #: what stands before the names of the columns that batcher added
        self.prefix: str = self.job["output"]["prefix"]
        #: what answers with a schema add to the columns; None without one
        self.answers = AnswerColumns.of(self.job)
        carried = _carried(self.plan.schema, self.job["output"]["columns"])
        #: the names of the input columns that the output carries
        self.carried: list[str] = carried.names
        #: all columns of a row, the carried ones first, with the types that a part has for whoever reads it
        self.schema = pa.schema(map(_as_stored, PartFormat(carried, self.prefix, "", "", self.answers).schema))
        self._totals: dict[tuple[int, int, int], Totals] = {}
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
            manifest = Manifest.read(path)
            if manifest is None:
                raise InputError(f"{path} holds no run yet")
            return cls(path, manifest)
        except ResumeError:
            raise InputError(f"{path} was written by another version of batcher") from None
        except (KeyError, TypeError, ValueError) as error:
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
        """Every row has an outcome in a part, and none is asked again."""
        return all(map(self._has_part, self.plan.shards)) and not self._reopened()

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
            reopened = self._reopened()
            parts = self.parts()
            totals = self._open_totals({part.shard.number for part in parts})
            for part in parts:
                totals.add(self._renewed(part.shard)[0] if part.shard.number in reopened else part.totals)
            # else a shard moved from the journal to its part meanwhile, or a part was replaced
            if len(self._names()) == len(parts) and self._reopened() == reopened:
                return totals

    def asked_again(self) -> int:
        """Return how many rows are to be asked again and have no newer outcome yet; `totals` has them as they were."""
        reopened = self._reopened()
        return sum(self._renewed(shard)[1] for shard in self.plan.shards if shard.number in reopened)

    def versions(self) -> tuple[Version, ...]:
        """Return the versions of the job and how many rows came from each; raises what `totals` raises."""
        return self._manifest.versions_with(self.totals())

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
        while shard.number in self._reopened():
            for batch, next_row in renewed_rows(self.part_path(shard), shard, wanted, self._journal, first, end):
                if shard.number not in self._reopened():  # replaced: its newer outcomes are being forgotten
                    break
                yield from wanted.chosen(batch)
                first = next_row
            if first >= end:
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
        path = self.part_path(shard)
        try:
            status = path.stat()
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
        key = (shard.number, status.st_ino, status.st_mtime_ns)  # a part may be replaced
        if key not in self._totals:
            self._totals[key] = part_totals(path, shard, self.schema)
        return self._totals[key]

    def _reopened(self) -> frozenset[int]:
        """Numbers of the shards some rows of whose part are asked again; a finished folder is read without a trace."""
        return self._journal.reopened() if (self.path / ".batcher" / REOPENED).exists() else frozenset()

    def _renewed(self, shard: Shard) -> tuple[Totals, int]:
        """The sums over a reopened part with its newer outcomes, and how many of its rows have none yet."""
        return self._journal.reopened_totals(shard.number, shard.first_row, shard.end_row)

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
