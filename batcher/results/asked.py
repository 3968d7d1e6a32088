"""What a row was asked: its request, built once more by the code that built it for sending.

The output carries input columns, not requests. They suffice where the template uses nothing else and no value may have
been of another kind in the input (a list is carried as its JSON text, `1` among fractions as `1.0`). Otherwise the row
is read from the input again, if that is still there and unchanged; if not, the question says what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from batcher.catalogue import FormSchema, load_catalogue
from batcher.errors import BatcherError
from batcher.job import Job
from batcher.plan import Plan
from batcher.prompt import Builder, PromptError
from batcher.records import Shard
from batcher.results.folder import Results
from batcher.results.plain import input_rows
from batcher.source import Chunk, read
from batcher.structured import json_schema_of

#: error codes of rows that no request was made for
_NEVER_SENT = ("invalid_row", "row_cannot_be_asked")


@dataclass(frozen=True, slots=True)
class Question:
    """The conversation that a row's request held, in the API's shape, or None; and what is to be said about it."""

    messages: list[dict[str, Any]] | None
    note: str | None = None


class Questions:
    """Builds the requests of a run's rows again."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._builders = {version: _builder(job) for version, job in results.jobs.items()}
        for builder in self._builders.values():
            builder.check_columns(results.plan.schema.names)
        self._originals = _Originals(results.plan)

    def of(self, batch: pa.RecordBatch) -> list[Question]:
        """Return the questions of the rows of a batch that has all columns of the output."""
        names = [self._results.column(name) for name in ("row_index", "job_version", "error")]
        columns = (batch.column(name).to_pylist() for name in names)
        carried = input_rows(batch, set(self._results.carried))
        return [
            Question(None, "never sent")
            if error is not None and error["code"] in _NEVER_SENT
            else self._question(row_index, job_version, values)
            for row_index, job_version, error, values in zip(*columns, carried, strict=True)
        ]

    def _question(self, row_index: int, job_version: int, values: dict[str, Any]) -> Question:
        """What a row was asked by the version of the job that it came from."""
        shard = next(shard for shard in self._results.plan.shards if row_index < shard.end_row)
        verbatim = _is_verbatim(self._results.jobs[job_version])
        same = verbatim or self._is_parquet(shard) or not any(map(_may_differ, values.values()))
        exact = same and not self._builders[job_version].needs_whole_rows  # of which some may not be carried
        try:
            if exact:
                return Question(self._build(job_version, values))
        except PromptError:
            pass  # a column is not carried
        original = self._originals.row(shard, row_index)
        try:
            if original is not None:
                return Question(self._build(job_version, original))
            note = "built from the output's columns, in which lists and some numbers look different; the input changed"
            return Question(self._build(job_version, values), note)
        except PromptError as error:
            why = "" if original is not None else "; output.columns left it out, and the input changed or is gone"
            return Question(None, f"not shown: {error}{why}")

    def _build(self, job_version: int, values: dict[str, Any]) -> list[dict[str, Any]]:
        request = orjson.loads(self._builders[job_version].build(values).body)
        if "messages" in request:
            return list(request["messages"])
        texts = {"system": request.get("system_prompt"), "user": request.get("prompt")}
        return [{"role": role, "content": text} for role, text in texts.items() if text is not None]

    def _is_parquet(self, shard: Shard) -> bool:
        return all(self._results.plan.files[span.file].format == "parquet" for span in shard.spans)


class _Originals:
    """Rows as they are in the input, read forwards as long as they are asked for in order."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._chunks: Iterator[Chunk] = iter(())
        self._chunk: Chunk | None = None

    def row(self, shard: Shard, row_index: int) -> dict[str, Any] | None:
        """Return a row; None if it is not to be had any more."""
        try:
            chunk = self._chunk_with(shard, row_index)
        except BatcherError:
            self._chunk = None
            return None
        row = chunk.rows[row_index - chunk.rows[0].row_index]
        return row.values if row.problem is None else None

    def _chunk_with(self, shard: Shard, row_index: int) -> Chunk:
        chunk = self._chunk
        if chunk is None or chunk.shard != shard or row_index < chunk.rows[0].row_index:
            self._chunks = read(self._plan.files, [shard], self._plan.schema)
            chunk = next(self._chunks)
        while row_index > chunk.rows[-1].row_index:
            chunk = next(self._chunks)
        self._chunk = chunk
        return chunk


def _may_differ(value: Any) -> bool:
    """Whether a value that was carried from JSON Lines may have been of another kind there."""
    if isinstance(value, float):
        return value.is_integer()
    if not isinstance(value, str):
        return False
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True


def _is_verbatim(identity: dict[str, Any]) -> bool:
    """Whether requests are what rows hold, with nothing rendered."""
    return identity["prompt"] is None and "{" not in (identity["system_prompt"] or "")


def _builder(identity: dict[str, Any]) -> Builder:
    """The builder of a run's prompts; without parameters, of which only a schema may say something there."""
    wanted = {"response_format": identity["parameters"].get("response_format")}
    job = Job.model_validate(
        {
            "version": 1,
            "model": identity["model"],
            "endpoint": {"base_url": "simulator", "request_format": identity["endpoint"]["request_format"]},
            "input": {"path": "input.jsonl"},
            "system_prompt": identity["system_prompt"],
            "prompt": identity["prompt"],
            "parameters": wanted if json_schema_of(identity["parameters"]) else {},
            "output": {"path": "out"},
        }
    )
    known = load_catalogue().schema_of(job.model)
    return Builder(job, FormSchema(model=job.model, title=job.model, takes_json_schema=known.takes_json_schema))
