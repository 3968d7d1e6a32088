"""Rows that a program gives to a run in place of input files.

They are written into the run folder before anything is sent, and from then on are an input file like any other:
`.batcher/rows.jsonl` for mappings, `.batcher/rows.pq`, which is Parquet, for tables with their types. Rows are taken
one after the other or a batch at a time, so that there may be any number of them. Given to a run that has begun, they
are written beside those it began with and only compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, runtime_checkable

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batcher.durable import create, fsync_folder
from batcher.errors import InputError, StorageError

#: rows of a row group: a fixed number, so that equal tables make equal files however they are cut into batches
_GROUP_ROWS: Final = 8192
_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY


@runtime_checkable
class ArrowStream(Protocol):
    """A table of any library that speaks Arrow: pyarrow, pandas, polars, DuckDB."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """See Arrow's PyCapsule interface."""


#: what a program may give: a table, or mappings of column names to JSON values
Rows = ArrowStream | Iterable[Mapping[str, Any]]


@contextmanager
def kept(rows: Rows, state: Path) -> Iterator[Path]:
    """The file that holds `rows`, in the folder `state`; if a run has begun there, one that is gone afterwards.

    A file of a run that does not begin is taken away again.

    Raises:
        InputError: these are no rows, or one of them cannot be written.
        StorageError: the folder cannot be written.
    """
    begun = _has_begun(state)
    name, write = ("rows.pq", _write_table) if isinstance(rows, ArrowStream) else ("rows.jsonl", _write_mappings)
    path = (state / "tmp" if begun else state) / name
    unfinished = path.with_name("rows.new")
    disk = _disk_errors(path)
    try:
        with disk:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _remove(*_names(path.parent))
            file = create(unfinished)
        with file:
            write(rows, file, disk)
            with disk:
                file.flush()
                os.fsync(file.fileno())
        with disk:
            unfinished.replace(path)
            fsync_folder(path.parent)
        yield path
    except BaseException:
        if not _has_begun(state):
            _remove(*_names(state))
        raise
    finally:
        _remove(unfinished, *([path] if begun else []))


def _has_begun(state: Path) -> bool:
    return (state / "manifest.json").exists()


def kept_before(state: Path) -> Path | None:
    """The file with the rows that were given to an earlier call; None if there is none."""
    return next(filter(Path.exists, _names(state)), None)


def _names(folder: Path) -> tuple[Path, Path]:
    return folder / "rows.jsonl", folder / "rows.pq"


def _remove(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):  # it is not there, or another step has told what is wrong
            path.unlink()


class _disk_errors(AbstractContextManager[None]):  # noqa: N801 - used like a function
    """Turn what the disk raises into a `StorageError`; not what the program's own iterator raises."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StorageError(f"{self._path} cannot be written: {error.strerror or error}") from error


def _write_mappings(rows: Any, file: BinaryIO, disk: AbstractContextManager[None]) -> None:
    if isinstance(rows, Mapping | str | bytes) or not isinstance(rows, Iterable):
        raise InputError(f"rows must be a table or an iterable of mappings, not {_kind(rows)}")
    for number, row in enumerate(rows):
        line = _line(number, row)
        with disk:
            file.write(line)


def _line(number: int, row: object) -> bytes:
    if not isinstance(row, Mapping):
        raise InputError(f"row {number} of those given is {_kind(row)}, not a mapping")
    try:
        return orjson.dumps(row if type(row) is dict else dict(row), _as_json, _OPTIONS)
    except orjson.JSONEncodeError as error:
        raise InputError(f"row {number} of those given cannot be written as JSON: {error}") from None


def _as_json(value: Any) -> Any:
    """What JSON has no word for: the digits of a decimal number, and mappings of other types."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"it holds {_kind(value)}")


def _write_table(rows: Any, file: BinaryIO, disk: AbstractContextManager[None]) -> None:
    with _table_errors():
        reader = pa.RecordBatchReader.from_stream(rows)
        schema = reader.schema.remove_metadata()
        writer = pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)
        for table in _groups(reader, schema):
            with disk:
                writer.write_table(table.combine_chunks(), row_group_size=_GROUP_ROWS)
        with disk:
            writer.close()


@contextmanager
def _table_errors() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise InputError(f"the table given cannot be kept: {str(error).partition(chr(10))[0]}") from error


def _groups(reader: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows in tables of equal size, the last one perhaps smaller."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in reader:
        position = 0
        while position < batch.num_rows:
            piece = batch.slice(position, _GROUP_ROWS - rows)
            waiting.append(piece)
            position, rows = position + piece.num_rows, rows + piece.num_rows
            if rows == _GROUP_ROWS:
                yield pa.Table.from_batches(waiting, schema)
                waiting, rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting, schema)


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"
