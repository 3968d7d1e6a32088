"""Everything a report says about a run, read from its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from batcher.errors import InputError
from batcher.job import Job
from batcher.records import Version
from batcher.report.configuration import prompts, settings
from batcher.report.facts import COLUMNS, Facts, collect
from batcher.report.pace import Pace
from batcher.results import Results
from batcher.timeline import read_timeline

#: rows that are added up at once, and bytes of what is read of them
_BATCH_ROWS = 16_384
_BATCH_BYTES = 32 << 20
#: causes of failures that are shown with examples
CAUSES = 20


@dataclass(frozen=True, slots=True)
class Findings:
    """What a report is made of."""

    name: str
    model: str
    endpoint: str
    #: rows of the input
    rows: int
    #: rows in parts, and number of these
    parts: int
    in_parts: int
    #: requests that may have been paid for though no answer was seen
    ambiguous: int
    #: of the completed rows those whose answers do not match the job's JSON schema
    invalid: int
    facts: Facts
    pace: Pace
    #: of the input column that names rows, for the rows that are listed: `row_index -> value`
    ids: Mapping[int, str]
    id_column: str | None
    settings: list[tuple[str, str]]
    prompts: list[tuple[str, str]]
    #: the job and its accepted changes, with the rows that came from each
    versions: tuple[Version, ...]
    #: `summary.json` of the run folder; None if there is none
    summary: Mapping[str, Any] | None
    version: str
    made_at: datetime


def gather(folder: Path, *, job: Job | None = None, summary: Mapping[str, Any] | None = None) -> Findings:
    """Read a run folder. `job` adds the configuration that the folder does not keep.

    Raises:
        InputError: there is no run in it.
        StorageError: a part is damaged or gone.
    """
    with Results.open(folder) as results:
        facts = collect(_batches(results))
        parts = results.parts()
        identity, totals = results.job, results.totals()
        return Findings(
            name=folder.resolve().name if job is None else job.name,
            model=identity["model"],
            endpoint=identity["endpoint"]["base_url"],
            rows=results.rows,
            parts=len(parts),
            in_parts=sum(part.shard.rows for part in parts),
            ambiguous=totals.ambiguous,
            invalid=totals.invalid,
            facts=facts,
            pace=Pace(read_timeline(folder / ".batcher")),
            ids=_ids(results, identity["input"]["id"], _listed(facts)),
            id_column=identity["input"]["id"],
            settings=settings(identity, results.plan, job),
            prompts=prompts(identity),
            versions=results.versions(),
            summary=summary,
            version=results.version,
            made_at=datetime.now(UTC),
        )


def _batches(results: Results) -> Iterator[pa.RecordBatch]:
    """The rows with an outcome, under the names of `part.RESULT`, in batches that are worth their while."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in results.batches([results.column(name) for name in COLUMNS]):
        waiting.append(pa.RecordBatch.from_arrays(batch.columns, names=list(COLUMNS)))
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield pa.concat_batches(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_batches(waiting)


def _listed(facts: Facts) -> list[int]:
    """The rows that the report shows one by one."""
    examples = (row for cause in facts.causes.sorted()[:CAUSES] for row in cause.examples.values())
    return [*(row["row_index"] for row in facts.slowest), *examples]


def _ids(results: Results, column: str | None, rows: Iterable[int]) -> dict[int, str]:
    """The values of the id column for some rows; none where the output does not carry it, or the input is gone."""
    found: dict[int, str] = {}
    if column is None or column not in results.carried:
        return found
    with contextlib.suppress(InputError):
        for row in rows:
            for batch in results.batches([column], first_row=row, end_row=row + 1):
                found[row] = str(batch.column(0)[0].as_py())
    return found
