"""A part: the Parquet file of one finished shard.

Holds the carried input columns and, after them, the columns of `RESULT` (design: one input row, one output row, in
input order). Completed and failed rows share one schema, so that a folder of parts reads as one table. The footer
names batcher's version, the run's fingerprint, the shard and its totals; no host, path, key or user.

This module does not know where rows or outcomes come from, and never gives a file its final name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batcher.completion import parse
from batcher.durable import create
from batcher.errors import JobError, StorageError
from batcher.measured import Measured, Sums
from batcher.records import ApiError, Completion, Outcome, Shard, Totals
from batcher.structured.columns import AnswerColumns

#: a part is written in row groups of about this size, in Arrow's memory format; larger ones make the peak of memory
ROW_GROUP_BYTES = 4 << 20

_PROMPT_DETAILS = ("cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens", "text_tokens")
_COMPLETION_DETAILS = (
    "reasoning_tokens",
    "accepted_prediction_tokens",
    "rejected_prediction_tokens",
    "audio_tokens",
    "text_tokens",
)


def _counts(names: Sequence[str]) -> pa.DataType:
    return pa.struct([(name, pa.int64()) for name in names])


#: the columns that batcher adds, in order
RESULT = pa.schema(
    [
        ("row_index", pa.int64()),
        ("status", pa.string()),
        ("completion", pa.string()),
        ("reasoning", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("total_tokens", pa.int64()),
        ("prompt_tokens_details", _counts(_PROMPT_DETAILS)),
        ("completion_tokens_details", _counts(_COMPLETION_DETAILS)),
        ("usage_raw", pa.string()),
        ("cost_usd", pa.float64()),
        ("response_id", pa.string()),
        ("response_object", pa.string()),
        ("response_created", pa.timestamp("s", tz="UTC")),
        ("response_model", pa.string()),
        ("system_fingerprint", pa.string()),
        ("choices_raw", pa.string()),
        (
            "error",
            pa.struct(
                [
                    ("message", pa.string()),
                    ("type", pa.string()),
                    ("param", pa.string()),
                    ("code", pa.string()),
                    ("http_status", pa.int64()),
                ]
            ),
        ),
        ("attempts", pa.int64()),
        ("latency_s", pa.float64()),
        ("requested_at", pa.timestamp("us", tz="UTC")),
        ("job_version", pa.int64()),
    ]
)

#: columns of few different values; for the others a dictionary is built in vain
_DICTIONARY = ("status", "finish_reason", "response_object", "response_model", "system_fingerprint")


@dataclass(frozen=True, slots=True)
class PartFormat:
    """What all parts of a run have in common."""

    #: input columns that are carried over
    carried: pa.Schema
    #: put before the names of the columns that batcher adds
    prefix: str
    #: of the run, as in the manifest
    fingerprint: str
    version: str
    #: what answers with a schema add to the columns of `RESULT`; None without one
    answers: AnswerColumns | None = None

    @property
    def schema(self) -> pa.Schema:
        """Columns of a part.

        Raises:
            JobError: an input column has the name of an added one.
        """
        own = [*RESULT, *(self.answers.fields if self.answers else ())]
        added = [field.with_name(self.prefix + field.name) for field in own]
        _refuse_twice([field.name for field in own])
        taken = sorted({field.name for field in added} & set(self.carried.names))
        if taken:
            names = ", ".join(repr(name) for name in taken)
            raise JobError(
                f"the input has a column {names}, which batcher adds too: set output.prefix, for example"
                " 'batcher_', or leave the column out with output.columns"
            )
        return pa.schema([*self.carried, *added])

    def footer(self, shard: Shard, totals: Totals, revision: int) -> dict[str, str]:
        """Key-value metadata of one part."""
        return {
            "batcher.version": self.version,
            "batcher.fingerprint": self.fingerprint,
            "batcher.shard": str(shard.number),
            "batcher.rows": str(shard.rows),
            "batcher.totals": orjson.dumps(asdict(totals)).decode(),
            "batcher.revision": str(revision),
        }


def write_part(
    temporary: Path,
    shard: Shard,
    form: PartFormat,
    carried: Iterable[pa.RecordBatch],
    outcomes: Callable[[int, int], list[Outcome]],
) -> Totals:
    """Write and sync the part of `shard` and return its totals; memory does not grow with the shard.

    `carried` yields the input columns of all rows in order; `outcomes(first, end)` the outcomes of rows `first` to
    `end` in order, possibly fewer than asked for. On any error the file is removed.
    """
    totals = Totals()
    write_rows(temporary, shard, form, _with_results(shard, form, carried, outcomes, totals), totals)
    return totals


def write_rows(
    temporary: Path,
    shard: Shard,
    form: PartFormat,
    batches: Iterable[pa.RecordBatch],
    totals: Totals,
    *,
    revision: int = 0,
) -> None:
    """Write and sync a part of whole rows; `totals` is what they come to when the last of them was taken.

    `revision` counts how often a part of this shard was replaced. On any error the file is removed.
    """
    try:
        with create(temporary) as file, _writer(file, form) as writer:
            for table in row_groups(batches, form.schema, ROW_GROUP_BYTES):
                writer.write_table(table, row_group_size=max(1, table.num_rows))
            writer.add_key_value_metadata(form.footer(shard, totals, revision))
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        check_part(temporary, shard, form)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_part(path: Path, shard: Shard, form: PartFormat) -> Totals:
    """Return the totals of a part after making sure that it is this shard's, whole and in order.

    Raises:
        StorageError: it is not.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as part:
            footer = {
                key.decode(): value.decode()
                for key, value in (part.metadata.metadata or {}).items()
                if key.startswith(b"batcher.")
            }
            rows = part.read(columns=[form.prefix + "row_index"]).column(0).to_pylist()
        totals = Totals(**orjson.loads(footer["batcher.totals"]))
    except (OSError, pa.ArrowException, LookupError, TypeError, ValueError) as error:
        raise StorageError(f"{path} is not a whole part: {error}") from error
    if footer.get("batcher.fingerprint") != form.fingerprint or footer.get("batcher.shard") != str(shard.number):
        raise StorageError(f"{path} does not belong to this run")
    if rows != list(range(shard.first_row, shard.end_row)):
        raise StorageError(f"{path} does not hold the rows of its shard")
    return totals


@contextmanager
def _writer(file: Any, form: PartFormat) -> Iterator[pq.ParquetWriter]:
    """A writer that an exception leaves without a footer: pyarrow's own would write one, and the torso read as good."""
    added = [form.prefix + name for name in _DICTIONARY]
    writer = pq.ParquetWriter(
        file,
        form.schema,
        compression="zstd",
        use_dictionary=added,
        write_page_index=True,
        write_page_checksum=True,
    )
    try:
        yield writer
    finally:
        writer.is_open = False  # or it would be closed when it is collected


def _with_results(
    shard: Shard,
    form: PartFormat,
    carried: Iterable[pa.RecordBatch],
    outcomes: Callable[[int, int], list[Outcome]],
    totals: Totals,
) -> Iterator[pa.RecordBatch]:
    """Put the result columns beside the carried ones, and add up `totals`."""
    first, schema = shard.first_row, form.schema
    for batch in carried:
        end = first + batch.num_rows
        start = first
        while start < end:
            found = outcomes(start, end)
            if [o.row_index for o in found] != list(range(start, start + len(found))) or not found:
                raise StorageError(f"the journal lacks outcomes of rows {start} to {end - 1}")
            columns = batch.slice(start - first, len(found)).columns
            results = result_columns(found, totals, form.answers)
            yield pa.RecordBatch.from_arrays([*columns, *results], schema=schema)
            start += len(found)
        first = end


def row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema, size_bytes: int) -> Iterator[pa.Table]:
    """Yield the rows of `batches` in tables of at least `size_bytes` of Arrow memory, the last one perhaps smaller."""
    waiting: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        waiting.append(batch)
        size += batch.nbytes
        if size >= size_bytes:
            yield pa.Table.from_batches(waiting, schema)
            waiting, size = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting, schema)


def measure_part(path: Path, prefix: str) -> Measured:
    """Return what the completed rows of a part used; `prefix` stands before the names of batcher's columns.

    Raises:
        StorageError: it cannot be read.
    """
    import pyarrow.compute as pc  # takes 50 ms, which few runs need

    names = ("prompt_tokens", "completion_tokens", "cost_usd", "latency_s")
    try:
        table = pq.read_table(path, columns=[prefix + name for name in ("status", *names)])
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    completed = table.filter(pc.equal(table[prefix + "status"], "completed"))

    def sums(values: pa.ChunkedArray) -> Sums:
        numbers = values.cast(pa.float64())
        total, squares = (pc.sum(some).as_py() or 0.0 for some in (numbers, pc.multiply(numbers, numbers)))
        return Sums(pc.count(numbers).as_py(), total, squares)

    return Measured(*(sums(completed[prefix + name]) for name in names))


def _refuse_twice(names: Sequence[str]) -> None:
    """Raise JobError if a field of the answers has the name of another column that is added."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise JobError(
            f"output.flatten: the answers have a field {', '.join(map(repr, twice))}, which is the name of a column"
            " that batcher adds: give output.flatten a text to put before the fields, for example 'answer_'"
        )


def result_columns(outcomes: list[Outcome], totals: Totals, answers: AnswerColumns | None = None) -> list[pa.Array]:
    """Return the columns of `RESULT` and those of `answers` of some rows, and add the rows up in `totals`."""
    rows = [_result_row(outcome, totals, answers) for outcome in outcomes]
    fields = [*RESULT, *(answers.fields if answers else ())]
    return [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), fields, strict=True)]


def _result_row(outcome: Outcome, totals: Totals, answers: AnswerColumns | None) -> tuple[Any, ...]:
    """Values of one row in the order of `RESULT`, then those of its answer's own columns."""
    answer = parse(outcome.body) if outcome.body else None
    totals.ambiguous += outcome.ambiguous
    totals.count(outcome)
    if outcome.status == "completed" and isinstance(answer, Completion):
        error = None
    else:
        unreadable = ApiError("the stored answer cannot be read as a completion", code="unreadable")
        error = asdict(outcome.error or unreadable)
    status = "completed" if error is None else "failed"
    totals.count_row(completed=error is None, job_version=outcome.job_version)
    valid = outcome.valid if error is None else None
    totals.invalid += valid is False
    content = answer.content if isinstance(answer, Completion) else None
    return (
        outcome.row_index, status, *_answer_columns(outcome, answer if isinstance(answer, Completion) else None),
        error, outcome.attempts, outcome.latency_s, _microseconds(outcome.requested_at), outcome.job_version,
        *(answers.values(content, valid) if answers else ()),
    )  # fmt: skip


def _answer_columns(outcome: Outcome, answer: Completion | None) -> tuple[Any, ...]:
    """Values from `completion` to `choices_raw`; an answer that was not good enough is paid for and stays readable."""
    prompt, completion = outcome.prompt_tokens, outcome.completion_tokens
    total = None if prompt is None and completion is None else (prompt or 0) + (completion or 0)
    if answer is None:
        return (None, None, None, prompt, completion, total, None, None, None, outcome.cost_usd, *(None,) * 6)
    usage = answer.usage
    if (prompt, completion) == (usage.prompt_tokens, usage.completion_tokens):  # it took one answer: as the API says
        total = usage.total_tokens
    return (
        answer.content, answer.reasoning, answer.finish_reason, prompt, completion, total,
        usage.prompt_tokens_details or None, usage.completion_tokens_details or None, usage.raw, outcome.cost_usd,
        answer.id, answer.object, _second(answer.created), answer.model, answer.system_fingerprint, answer.choices_raw,
    )  # fmt: skip


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e6)


def _second(created: int | None) -> int | None:
    """Leave out what is no time a Parquet timestamp can hold; a server may send anything."""
    return created if created is not None and 0 <= created < 253_402_300_800 else None
