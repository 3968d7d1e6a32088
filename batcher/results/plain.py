"""Output rows as plain values, ready to be written as JSON.

Input columns become what a template saw: dates, times and decimals are text. Nested values stay nested, times are UTC,
binary values become base64, and what no JSON can hold (NaN) null. Text that is not UTF-8 is mended, never left out.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from typing import Any

import orjson
import pyarrow as pa

from batcher.source.parquet import plain_rows


def json_rows(batch: pa.RecordBatch, inputs: Collection[str]) -> list[dict[str, Any]]:
    """Return the rows of a batch by column name; `inputs` says which columns come from the input."""
    own = [name for name in batch.schema.names if name not in inputs]
    given = input_rows(batch, inputs)
    added = batch.select(own).to_pylist() if own else [{}] * batch.num_rows
    merged = ({**carried, **results} for carried, results in zip(given, added, strict=True))
    return [{name: row[name] for name in batch.schema.names} for row in merged]


def input_rows(batch: pa.RecordBatch, inputs: Collection[str]) -> list[dict[str, Any]]:
    """Return only the values of the input columns of a batch."""
    names = [name for name in batch.schema.names if name in inputs]
    if not names:
        return [{} for _ in range(batch.num_rows)]
    columns = batch.select(names)
    rows = plain_rows(columns)
    return [row if isinstance(row, dict) else _mended(columns.slice(place, 1)) for place, row in enumerate(rows)]


def dumps(value: Any) -> bytes:
    """Return a plain value as JSON."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)


def as_text(value: Any) -> str | None:
    """Return a plain value as the text that stands for it where there are no types; None stays None."""
    if value is None or isinstance(value, str):
        return value
    written = dumps(value)
    text: str = orjson.loads(written) if written.startswith(b'"') else written.decode()
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"no JSON for {type(value).__name__}")


def _mended(row: pa.RecordBatch) -> dict[str, Any]:
    """The values of one row, some of which Python cannot hold as they are."""
    values: dict[str, Any] = {}
    for name in row.schema.names:
        (plain,) = plain_rows(row.select([name]))
        values[name] = plain[name] if isinstance(plain, dict) else _mended_value(row.column(name))
    return values


def _mended_value(column: pa.Array) -> str | None:
    if not pa.types.is_string(column.type):
        return None
    value: bytes = column.cast(pa.binary())[0].as_py()
    return value.decode("utf-8", "replace")
