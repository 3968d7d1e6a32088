"""All rows as CSV, which spreadsheets open too: no text is taken for a formula.

Text that begins with one of `= + - @`, a tab or a carriage return gets an apostrophe before it; so do column names.
Numbers and truth values are written as such, null as nothing, nested values as JSON text, times as ISO 8601 in UTC.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from batcher.results import Results
from batcher.results.plain import as_text, json_rows

_FORMULA = r"^([=+\-@\t\r])"


def write_csv(results: Results, file: BinaryIO) -> int:
    """Write a header and all rows that have an outcome; return their number."""
    rows, inputs = 0, set(results.carried)
    schema = pa.schema([_field(field) for field in results.schema])
    with csv.CSVWriter(file, schema, write_options=csv.WriteOptions(quoting_style="needed")) as writer:
        for batch in results.batches():
            writer.write_batch(pa.RecordBatch.from_arrays(_columns(batch, inputs), schema=schema))
            rows += batch.num_rows
    return rows


def _field(field: pa.Field) -> pa.Field:
    name = pc.replace_substring_regex(pa.scalar(field.name), _FORMULA, r"'\1").as_py()
    return pa.field(name, field.type if _is_number(field.type) else pa.string())


def _columns(batch: pa.RecordBatch, inputs: Collection[str]) -> list[pa.Array]:
    columns = {field.name: batch.column(field.name) for field in batch.schema if _is_plain(batch.column(field.name))}
    others = [name for name in batch.schema.names if name not in columns]
    if others:
        rows = json_rows(batch.select(others), inputs)
        columns |= {name: pa.array([as_text(row[name]) for row in rows], pa.string()) for name in others}
    ordered = [columns[name] for name in batch.schema.names]
    return [column if _is_number(column.type) else _guarded(column) for column in ordered]


def _guarded(column: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(column, _FORMULA, r"'\1")


def _is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(test(kind) for test in tests)


def _is_plain(column: pa.Array) -> bool:
    """Whether the values can be written as they are: numbers, and text that is UTF-8."""
    if not pa.types.is_string(column.type):
        return _is_number(column.type)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
