"""The rows of given shards, in order, reading each file forwards and once.

A row comes with its values as plain Python, for the request, and beside it the columns to carry as Arrow, for the part.
Plain JSON Lines are entered at the shard's byte offset; compressed ones are decompressed up to it; of Parquet only
row groups with a wanted row are decoded. Everything here blocks on the disk: call it on a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import pyarrow as pa

from batcher.records import Row, Shard, Span
from batcher.source import parquet
from batcher.source.columns import to_batch
from batcher.source.inputs import ByteStream, InputFile, changed, find_files
from batcher.source.jsonl import TooLong, parse, split_lines, whole_lines

__all__ = ["Chunk", "InputFile", "find_files", "read"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of one shard, in order."""

    shard: Shard
    rows: list[Row]
    #: the columns to carry, for exactly these rows
    carried: pa.RecordBatch


class _Reader(Protocol):
    """Reads one file."""

    def read(self, span: Span, row_index: int) -> Iterator[tuple[list[Row], pa.RecordBatch]]:
        """Yield the rows of `span`, the first of which is row `row_index`; spans must come in order."""

    def close(self) -> None:
        """Give the file back."""


def read(
    files: Sequence[InputFile],
    shards: Iterable[Shard],
    schema: pa.Schema,
    *,
    max_rows: int = 256,
    max_bytes: int = 1 << 20,
    given_up: Callable[[], bool] = lambda: False,
) -> Iterator[Chunk]:
    """Yield the rows of `shards` (ascending) in chunks of at most `max_rows` rows and about `max_bytes` of input.

    `files` are the plan's, `schema` holds the columns to carry. A chunk has at least one row and is of one shard.

    Raises:
        InputError: a file cannot be read, or is not as it was when the plan was made.
        GivenUp: `given_up` said so while rows were passed over, which may take minutes in a compressed file.
    """
    places = ((span.file, shard, span, row_index) for shard in shards for span, row_index in _spans(shard))
    for number, wanted in groupby(places, key=lambda place: place[0]):
        with closing(_open(files[number], schema, max_rows, max_bytes, given_up)) as reader:
            for _, shard, span, row_index in wanted:
                for rows, carried in reader.read(span, row_index):
                    yield Chunk(shard, rows, carried)


def _spans(shard: Shard) -> Iterator[tuple[Span, int]]:
    """The spans of a shard, each with the index of its first row."""
    row_index = shard.first_row
    for span in shard.spans:
        yield span, row_index
        row_index += span.rows


def _open(file: InputFile, schema: pa.Schema, max_rows: int, max_bytes: int, given_up: Callable[[], bool]) -> _Reader:
    if file.format == "parquet":
        return _ParquetReader(file, schema, max_rows, max_bytes)
    return _JsonlReader(file, schema, max_rows, _Lines(ByteStream(file), max_bytes, given_up))


class _JsonlReader:
    def __init__(self, file: InputFile, schema: pa.Schema, max_rows: int, lines: _Lines) -> None:
        self._file = file
        self._schema = schema
        self._max_rows = max_rows
        self._lines = lines

    def read(self, span: Span, row_index: int) -> Iterator[tuple[list[Row], pa.RecordBatch]]:
        self._lines.move_to(span.start)
        end, line_number = row_index + span.rows, span.line
        while row_index < end:
            lines = self._lines.take(min(end - row_index, self._max_rows))
            if not lines:
                raise changed(self._file)
            rows = self._rows(lines, row_index, line_number)
            row_index += len(rows)
            line_number += len(lines)
            if rows:
                with _as_planned(self._file):
                    carried = to_batch([row.values for row in rows], self._schema)
                yield rows, carried

    def close(self) -> None:
        self._lines.close()

    def _rows(self, lines: list[bytes | TooLong], row_index: int, line_number: int) -> list[Row]:
        rows: list[Row] = []
        for number, line in enumerate(lines, line_number):
            values = parse(line)
            if isinstance(values, dict):
                rows.append(Row(row_index + len(rows), values))
            elif values is not None:
                rows.append(Row(row_index + len(rows), {}, f"{self._file.name}:{number}: {values}"))
        return rows


class _Lines:
    """The lines of a stream, a few at a time, forwards."""

    def __init__(self, stream: ByteStream, block_bytes: int, given_up: Callable[[], bool]) -> None:
        self._stream, self._given_up = stream, given_up
        self._block_bytes = max(1, block_bytes)
        self._held: list[bytes | TooLong] = []
        #: position among those held, and offset in the stream, of the next line
        self._next = self._offset = 0
        self._restart(0)

    def move_to(self, offset: int) -> None:
        """Let the line at byte `offset` be the next one."""
        if offset == self._offset:
            return
        if self._stream.can_jump or offset >= self._stream.position:
            self._stream.move_to(offset, self._given_up)
            self._restart(offset)
        while self._offset < offset and self.take(1):
            pass

    def take(self, limit: int) -> list[bytes | TooLong]:
        """Return the next lines: at most `limit`, and none only at the end."""
        if self._next == len(self._held):
            piece = next(self._pieces, b"")
            self._held.clear()
            self._held += [piece] if isinstance(piece, TooLong) else split_lines(piece)
            self._next = 0
        lines = self._held[self._next : self._next + limit]
        self._next += len(lines)
        self._offset += sum(line.size_bytes if isinstance(line, TooLong) else len(line) + 1 for line in lines)
        return lines

    def close(self) -> None:
        self._stream.close()

    def _restart(self, offset: int) -> None:
        self._pieces = whole_lines(self._stream, block_bytes=self._block_bytes)
        self._offset = offset
        self._next = 0
        self._held.clear()


class _ParquetReader:
    def __init__(self, file: InputFile, schema: pa.Schema, max_rows: int, max_bytes: int) -> None:
        self._file = file
        self._schema = schema
        self._max_rows = max_rows
        self._rows = parquet.ParquetRows(file, max_rows=max_rows, max_bytes=max_bytes)

    def read(self, span: Span, row_index: int) -> Iterator[tuple[list[Row], pa.RecordBatch]]:
        position, end = span.start, span.start + span.rows
        while position < end:
            batch = self._rows.take(position, min(end - position, self._max_rows))
            rows = []
            for offset, values in enumerate(parquet.plain_rows(batch)):
                if isinstance(values, str):
                    problem = f"{self._file.name}: row {position + offset}: {values}"
                    rows.append(Row(row_index + offset, {}, problem))
                else:
                    rows.append(Row(row_index + offset, values))
            with _as_planned(self._file):
                carried = parquet.carry(batch, self._schema)
            yield rows, carried
            position += len(rows)
            row_index += len(rows)

    def close(self) -> None:
        self._rows.close()


@contextmanager
def _as_planned(file: InputFile) -> Iterator[None]:
    """Values that do not fit the plan's schema are not those it was made from."""
    try:
        yield
    except pa.ArrowException as error:
        raise changed(file) from error
