"""Input files for tests: how to write them, plan them, and read them back."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batcher.plan import Plan, make_plan
from batcher.records import Row, Shard
from batcher.source import Chunk, read
from batcher.source.inputs import find_files

Record = dict[str, Any]


def pack(path: Path, data: bytes) -> Path:
    """Write `data`, compressed as the suffix says."""
    if path.suffix == ".gz":
        data = gzip.compress(data, compresslevel=1, mtime=0)
    elif path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


def write_records(path: Path, records: Sequence[Record], **options: Any) -> Path:
    """Write records as JSON Lines or, if the suffix says so, as Parquet with `options`."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(records)), path, **options)
        return path
    return pack(path, b"".join(json.dumps(record).encode() + b"\n" for record in records))


def job(*, rows_per_part: int = 10_000, on_bad_row: str = "fail", id: str | None = None) -> Any:
    """As much of a job as a plan is made from."""
    return SimpleNamespace(
        input=SimpleNamespace(on_bad_row=on_bad_row, id=id), output=SimpleNamespace(rows_per_part=rows_per_part)
    )


def plan_of(*paths: Path, shard_bytes: int = 256 << 20, **settings: Any) -> Plan:
    """The plan of these files."""
    return make_plan(job(**settings), find_files(paths), shard_bytes=shard_bytes)


def chunks_of(plan: Plan, shards: Iterable[Shard] | None = None, **limits: int) -> list[Chunk]:
    """What reading `shards` (all of them, if not given) yields, with every column carried."""
    return list(read(plan.files, plan.shards if shards is None else shards, plan.schema, **limits))


def rows_of(plan: Plan, shards: Iterable[Shard] | None = None, **limits: int) -> list[Row]:
    """The rows of `shards`."""
    return [row for chunk in chunks_of(plan, shards, **limits) for row in chunk.rows]


def carried_of(plan: Plan, **limits: int) -> pa.Table:
    """The carried columns of all rows."""
    return pa.Table.from_batches([chunk.carried for chunk in chunks_of(plan, None, **limits)], plan.schema)
