"""Run folders in any state, made by the code that makes them, row by row as a test wants it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from batcher.job import Job
from batcher.records import Outcome
from batcher.results import Results
from batcher.shard import OpenShard
from batcher.source import read
from tests.fakes import Begun, begun, body_of, make_job, outcome


def answer(row_index: int) -> Outcome:
    """A completed outcome whose answer names its row."""
    body = body_of(f"answer {row_index}", id=f"id-{row_index}", model="served", created=1_700_000_000)
    return outcome(row_index, body=body)


def write_records(folder: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write `rows.jsonl`."""
    (folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))


def record(run: Begun, outcomes: Iterable[Outcome]) -> None:
    """Commit outcomes to the journal."""
    for one in outcomes:
        run.rundir.journal.record(one)
    run.rundir.journal.open_totals()  # answered after they are committed


def publish(run: Begun, number: int) -> None:
    """Write the part of a shard all of whose outcomes are in the journal."""
    shard = OpenShard(run.plan.shards[number], run.rundir)
    for chunk in read(run.plan.files, [shard.shard], run.plan.schema):
        shard.carry(chunk.carried.select(run.rundir.form.carried.names))
    shard.finish()


def run_rows(job: Job, outcomes: Iterable[Outcome], parts: Iterable[int] = ()) -> None:
    """Leave a run folder behind that holds these outcomes, those of the shards `parts` in their part."""
    with begun(job) as run:
        record(run, outcomes)
        for number in parts:
            publish(run, number)


@contextmanager
def finished(folder: Path, records: list[dict[str, Any]], **changes: Any) -> Iterator[Results]:
    """The results of a finished run over these records, in which every row has its answer."""
    write_records(folder, records)
    job = make_job(folder, **changes)
    with begun(job) as run:
        record(run, map(answer, range(len(records))))
        for shard in run.plan.shards:
            publish(run, shard.number)
    with Results.open(job.output.path) as results:
        yield results


def rows_of(results: Results, *columns: str, **options: Any) -> list[dict[str, Any]]:
    """The rows that have an outcome, as plain values."""
    return [row for batch in results.batches(columns or None, **options) for row in batch.to_pylist()]


def table_of(results: Results) -> pa.Table:
    """All rows that have an outcome."""
    return pa.Table.from_batches(list(results.batches()), results.schema)
