"""The plan: which rows belong to which shard, the columns they have, and a fingerprint of both.

It is made once, before anything is sent, by a pass over the whole input, and kept in the run folder's manifest:

    {"files":   [[path, format, size_bytes, mtime_ns], ...],
     "shards":  [[sha256, file, start, rows, line, file, start, rows, line, ...], ...],     one span after another
     "schema":  base64 of the Arrow schema's IPC form,
     "bad_rows": 0}

Shard numbers and the index of each first row follow from the order. Does not know what a run does with rows.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batcher.errors import InputError
from batcher.plan.scan import Scanner, ShardTable
from batcher.records import Shard, Span
from batcher.source.inputs import InputFile

if TYPE_CHECKING:
    from batcher.job import Job

#: a shard also ends when it has this much input
SHARD_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """Which rows belong to which shard, and what they are."""

    files: tuple[InputFile, ...]
    shards: tuple[Shard, ...]
    #: all columns of the input
    schema: pa.Schema
    #: rows that cannot be read; they are among the rows of the shards (what is wrong inside Parquet shows only later)
    bad_rows: int
    #: of each shard, in hexadecimal; equal digests mean equal rows
    digests: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Rows of the whole input."""
        return self.shards[-1].end_row

    @property
    def input_bytes(self) -> int:
        """Size of the input on disk."""
        return sum(file.size_bytes for file in self.files)

    @property
    def columns_seen(self) -> tuple[str, ...]:
        """The names of all columns, in order of first appearance."""
        return tuple(self.schema.names)

    def same_input(self, other: Plan) -> str | None:
        """Say in words how the input of a later plan first differs from this one's; None if it has the same rows.

        Names, times and places of files do not matter; the rows, their order and the schema do.
        """
        if self._contents() == other._contents():
            return _schema_change(self.schema, other.schema)
        before, after = (Counter(file.name for file in plan.files) for plan in (self, other))
        if gone := list(before - after):
            return f"{gone[0]} is gone"
        if new := list(after - before):
            return f"{new[0]} is new"
        return self._first_change(other)

    def _first_change(self, other: Plan) -> str:
        for shard, mine, theirs in zip(self.shards, self._contents(), other._contents(), strict=False):
            if mine != theirs:
                files = " or ".join(self._names(shard))
                return f"{files} changed between rows {shard.first_row} and {shard.end_row - 1} (shard {shard.number})"
        what = "rows were added at the end" if self.rows < other.rows else "rows at the end are gone"
        return f"{what} ({self.rows}, now {other.rows})"

    def _contents(self) -> list[tuple[int, str]]:
        return [(shard.rows, digest) for shard, digest in zip(self.shards, self.digests, strict=True)]

    def _names(self, shard: Shard) -> list[str]:
        return [self.files[number].name for number in dict.fromkeys(span.file for span in shard.spans)]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as the manifest holds it."""
        return {
            "files": [[str(file.path), file.format, file.size_bytes, file.mtime_ns] for file in self.files],
            "shards": [
                [digest, *(number for span in shard.spans for number in (span.file, span.start, span.rows, span.line))]
                for shard, digest in zip(self.shards, self.digests, strict=True)
            ],
            "schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
            "bad_rows": self.bad_rows,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """Return the plan that `to_json` gave.

        Raises:
            ValueError: `value` is no such thing.
        """
        try:
            shards: list[Shard] = []
            first_row = 0
            for _, *numbers in value["shards"]:
                spans = tuple(Span(*numbers[i : i + 4]) for i in range(0, len(numbers), 4))
                shards.append(Shard(len(shards), first_row, sum(span.rows for span in spans), spans))
                first_row = shards[-1].end_row
            plan = cls(
                files=tuple(InputFile(Path(path), *facts) for path, *facts in value["files"]),
                shards=tuple(shards),
                schema=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(value["schema"], validate=True))),
                bad_rows=value["bad_rows"],
                digests=tuple(digest for digest, *_ in value["shards"]),
            )
        except (KeyError, TypeError, ValueError, OSError, pa.ArrowException) as error:
            raise ValueError("not a plan") from error
        if not first_row:
            raise ValueError("not a plan: it has no row")
        return plan


def make_plan(
    job: Job,
    files: Sequence[InputFile],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> Plan:
    """Read the whole input once and return its plan.

    Raises:
        InputError: the input cannot be read, has no row, lacks the column `input.id`, has columns that do not agree, or
            has a bad row and `input.on_bad_row` is `stop`.
    """
    table = ShardTable(job.output.rows_per_part, shard_bytes)
    scanner = Scanner(table, stop_on_bad_row=job.input.on_bad_row == "stop")
    for number, file in enumerate(files):
        scanner.scan(number, file)
    table.finish()
    if not table.rows:
        what = str(files[0].path) if len(files) == 1 else f"the input of {len(files)} files"
        raise InputError(f"{what} is empty: there is no row in it")
    schema = scanner.schema()
    if job.input.id is not None and job.input.id not in schema.names:
        some = ", ".join(schema.names[:20]) or "none"
        raise InputError(f"input.id: the input has no column {job.input.id!r}; it has {some}")
    return Plan(
        files=tuple(files),
        shards=tuple(table.shards),
        schema=schema,
        bad_rows=scanner.bad_rows,
        digests=tuple(table.digests),
    )


def carried_columns(schema: pa.Schema, job: Job) -> pa.Schema:
    """The input columns that `output.columns` asks for, in its order."""
    if job.output.columns == "all":
        return schema.remove_metadata()
    missing = [name for name in job.output.columns if name not in schema.names]
    if missing:
        raise InputError(
            f"output.columns: the input has no column {', '.join(map(repr, missing))}; it has {', '.join(schema.names)}"
        )
    return pa.schema([schema.field(name) for name in job.output.columns])


def files_unchanged(plan: Plan, files: Sequence[InputFile]) -> bool:
    """The files are, by path, size and time, those the plan was made from: there is no need to read them again."""
    return plan.files == tuple(files)


def _schema_change(before: pa.Schema, after: pa.Schema) -> str | None:
    if before.equals(after):
        return None
    for name in (*before.names, *after.names):
        old, new = (schema.field(name).type if name in schema.names else "missing" for schema in (before, after))
        if old != new:
            return f"column {name!r} was {old}, is {new}"
    return "the columns are in another order"
