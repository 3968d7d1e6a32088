"""Parquet input: open a file with distrust, take batches of its rows, and turn them into plain Python values.

Memory is bounded by a batch and by what the decoder needs for one page of each column, not by a row group. For
templates, dates, times and decimals become text, and a struct loses the fields that are null. Does not know shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from batcher.errors import InputError
from batcher.source.columns import MAX_COLUMNS, no_columns
from batcher.source.inputs import InputFile, check_unchanged, failures_name
from batcher.source.jsonl import MAX_LINE_BYTES

_Tidier = Callable[[Any], Any]

_READ_AHEAD_BYTES = 1 << 20
#: 20 times what a column of nothing but nulls comes to; a plan must not grow with what a few bytes claim
_MOST_ROWS_PER_BYTE = 10_000

#: a row of more bytes than this is as bad as such a line of JSON: a few bytes on disk may unfold to any number
MAX_ROW_BYTES = MAX_LINE_BYTES

#: stands for a value that Python cannot hold
_UNREADABLE = object()


class ParquetRows:
    """The rows of one Parquet file, in batches, forwards."""

    def __init__(self, file: InputFile, *, max_rows: int = 1, max_bytes: int = 1) -> None:
        self._path = file.path
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        check_unchanged(file)
        with failures_name(file.path):
            # with pre_buffer, or without a buffer size, whole row groups are held in memory
            self._file = pq.ParquetFile(
                file.path, pre_buffer=False, buffer_size=_READ_AHEAD_BYTES, page_checksum_verification=True
            )
            self.schema: pa.Schema = self._file.schema_arrow
            groups = [self._file.metadata.row_group(i) for i in range(self._file.num_row_groups)]
        #: rows and uncompressed bytes of each row group
        self.groups = [(group.num_rows, group.total_byte_size) for group in groups]
        self._ends = list(accumulate(rows for rows, _ in self.groups))
        self._check()
        self._group = -1
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        #: the row that the next batch begins with, and the row after it
        self._first = self._end = 0

    def take(self, first: int, rows: int) -> pa.RecordBatch:
        """Return at least one and at most `rows` rows from row `first` on. `first` never goes back.

        Raises:
            InputError: they cannot be decoded.
        """
        while self._batch is None or first >= self._end:
            self._advance(first)
        return self._batch.slice(first - self._first, rows)

    def close(self) -> None:
        """Give the file back."""
        self._batches = iter(())
        self._file.close()

    def _check(self) -> None:
        sizes = [size for group in self.groups for size in group]
        rows = sum(rows for rows, _ in self.groups)
        if min(sizes, default=0) < 0 or rows != self._file.metadata.num_rows:
            raise InputError(f"{self._path} cannot be read: its metadata contradict each other")
        if rows > _MOST_ROWS_PER_BYTE * self._path.stat().st_size:
            raise InputError(f"{self._path} cannot be read: it cannot hold the {rows} rows that its metadata promise")
        if not 0 < len(self.schema.names) <= MAX_COLUMNS:
            raise InputError(
                f"{self._path} has {len(self.schema.names)} columns; from 1 to {MAX_COLUMNS} are supported"
            )
        if len(set(self.schema.names)) < len(self.schema.names):
            raise InputError(f"{self._path} has two columns of the same name")
        for field in self.schema:
            if not _is_supported(field.type):
                raise InputError(f"{self._path}: column {field.name!r} has the unsupported type {field.type}")

    def _advance(self, first: int) -> None:
        group = next(i for i, end in enumerate(self._ends) if first < end)
        with failures_name(self._path):
            if group != self._group:  # row groups between the two are never decoded
                self._group = group
                self._end = self._ends[group] - self.groups[group][0]
                self._batches = self._decode(group)
            self._batch = next(self._batches, None)
        if self._batch is None or not self._batch.num_rows:
            raise InputError(f"{self._path} cannot be read: row group {group} ends early")
        self._first, self._end = self._end, self._end + self._batch.num_rows

    def _decode(self, group: int) -> Iterator[pa.RecordBatch]:
        rows, size_bytes = self.groups[group]
        fitting = self._max_bytes * rows // max(size_bytes, 1)
        batch_size = max(1, min(self._max_rows, fitting))
        batches: Iterator[pa.RecordBatch] = self._file.iter_batches(batch_size, [group], use_threads=False)
        return batches


def carried_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns of a Parquet file with the types that they have in a part."""
    return pa.schema([(field.name, _carried_type(field.type)) for field in schema])


def carry(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the columns of `schema` of `batch`; a column that the file lacks is null."""
    if not schema.names:
        return no_columns(batch.num_rows)
    there = set(batch.schema.names)
    arrays = [
        batch.column(name).cast(kind) if name in there else pa.nulls(batch.num_rows, kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def plain_rows(batch: pa.RecordBatch) -> list[dict[str, Any] | str]:
    """Return the values of each row, or what is wrong with the row in words that show nothing of it."""
    if batch.nbytes <= MAX_ROW_BYTES:
        return _plain_rows(batch)
    rows: list[dict[str, Any] | str] = []
    for one in (batch.slice(position, 1) for position in range(batch.num_rows)):
        rows += [f"longer than {MAX_ROW_BYTES >> 20} MiB"] if one.nbytes > MAX_ROW_BYTES else _plain_rows(one)
    return rows


def _plain_rows(batch: pa.RecordBatch) -> list[dict[str, Any] | str]:
    names = batch.schema.names
    columns = [_plain_column(column) for column in batch.columns]
    rows: list[dict[str, Any] | str] = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    for name, column in zip(names, columns, strict=True):
        if any(value is _UNREADABLE for value in column):
            for position in (i for i, value in enumerate(column) if value is _UNREADABLE):
                rows[position] = f"column {name!r} holds no valid {batch.schema.field(name).type}"
    return rows


def _plain_column(column: pa.Array) -> list[Any]:
    tidy = _tidier(column.type)
    column = column.cast(_map_leaves(column.type, _without_zone)).cast(_map_leaves(column.type, _spoken))
    try:
        values = column.to_pylist()
    except ValueError:  # such as text that is not UTF-8
        values = [_plain_scalar(scalar) for scalar in column]
    if tidy is None:
        return values  # type: ignore[no-any-return]
    return [value if value is None or value is _UNREADABLE else tidy(value) for value in values]


def _plain_scalar(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except ValueError:
        return _UNREADABLE


def _tidier(kind: pa.DataType) -> _Tidier | None:
    """What turns a value that is not None, and was cast as in `_plain_column`, into a plain one; None if it is one."""
    if pa.types.is_dictionary(kind):
        return _tidier(kind.value_type)
    if isinstance(kind, pa.UuidType):
        return UUID.__str__
    if pa.types.is_timestamp(kind):
        return _instant if kind.tz else _moment
    if pa.types.is_time(kind):
        return _moment
    if pa.types.is_duration(kind):
        return lambda value: f"{value} {kind.unit}"
    if pa.types.is_struct(kind):
        fields = {field.name: _tidier(field.type) for field in kind}
        return partial(_without_nulls, fields)
    if pa.types.is_map(kind):
        inner = _tidier(kind.item_type) or (lambda value: value)
        return lambda value: {key: None if item is None else inner(item) for key, item in value}
    if _is_list(kind) and (tidy := _tidier(kind.value_type)):
        return lambda value: [None if item is None else tidy(item) for item in value]
    return None


def _without_nulls(fields: dict[str, _Tidier | None], value: dict[str, Any]) -> dict[str, Any]:
    there = ((name, value[name], tidy) for name, tidy in fields.items() if value[name] is not None)
    return {name: tidy(inner) if tidy else inner for name, inner, tidy in there}


def _moment(text: str) -> str:
    text = text.replace(" ", "T")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _instant(text: str) -> str:
    return _moment(text) + "Z"


def _map_leaves(kind: pa.DataType, leaf: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """`kind` with `leaf` applied to every type in it that holds no other."""
    if pa.types.is_dictionary(kind):
        return _map_leaves(kind.value_type, leaf)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_map_leaves(field.type, leaf)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_map_leaves(kind.key_type, leaf), _map_leaves(kind.item_type, leaf))
    if _is_list(kind):
        inner = kind.value_field.with_type(_map_leaves(kind.value_type, leaf))
        return pa.list_(inner, kind.list_size) if pa.types.is_fixed_size_list(kind) else pa.list_(inner)
    return leaf(kind)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _without_zone(kind: pa.DataType) -> pa.DataType:
    """The moment in UTC: to write another zone's would need a database of zones."""
    return pa.timestamp(kind.unit) if pa.types.is_timestamp(kind) and kind.tz else kind


def _spoken(kind: pa.DataType) -> pa.DataType:
    as_text = (pa.types.is_temporal(kind) and not pa.types.is_interval(kind)) or pa.types.is_decimal(kind)
    return pa.string() if as_text or isinstance(kind, pa.JsonType) else kind


def _carried_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _carried_type(kind.value_type)
    texts = pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or isinstance(kind, pa.JsonType)
    return pa.string() if texts else kind


def _is_supported(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, (pa.UuidType, pa.JsonType)):
        return False
    try:
        empty = pa.nulls(0, kind)
        _plain_column(empty)
        empty.cast(_carried_type(kind))
    except (pa.ArrowException, TypeError):
        return False
    return True
