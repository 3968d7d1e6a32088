"""The one pass over the whole input before a run: where shards begin, which columns there are, what has which digest.

A shard ends after a number of rows or of bytes, wherever that is: it may begin in one file and end in another. Its
digest covers the bytes of its lines; for Parquet it covers the whole file and the place in it.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import accumulate

import pyarrow as pa

from batcher.errors import InputError
from batcher.records import Shard, Span
from batcher.source.columns import Columns, survey
from batcher.source.inputs import ByteStream, InputFile, check_unchanged
from batcher.source.jsonl import BYTE_ORDER_MARK, TooLong, parse, parse_all, split_lines, whole_lines
from batcher.source.parquet import ParquetRows, carried_schema

#: what stays in the processor's cache is read fastest
_BLOCK_BYTES = 1 << 18
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class ShardTable:
    """Cuts a stream of rows into shards."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self.shards: list[Shard] = []
        #: sha256 of each shard in hexadecimal
        self.digests: list[str] = []
        #: rows in all shards, the open one included
        self.rows = 0
        self._begin()

    @property
    def room(self) -> tuple[int, int]:
        """How many rows the open shard still takes, and after how many bytes it ends; at least 1 each."""
        return self._max_rows - self._rows, max(1, self._max_bytes - self._bytes)

    def continues(self, file: int) -> bool:
        """Rows of `file` that come next go on where the last span ends."""
        return bool(self._spans) and self._spans[-1].file == file

    def add(self, span: Span, size_bytes: int, content: bytes | memoryview) -> None:
        """Add rows that fit in the open shard; `content` stands for them in its digest."""
        self._digest.update(content)
        self._bytes += size_bytes
        self._rows += span.rows
        self.rows += span.rows
        if self.continues(span.file):
            self._spans[-1] = replace(self._spans[-1], rows=self._spans[-1].rows + span.rows)
        elif span.rows:
            self._spans.append(span)
        if self._rows == self._max_rows or (self._rows and self._bytes >= self._max_bytes):
            self.finish()

    def finish(self) -> None:
        """End the open shard, if it has rows."""
        if self._rows:
            self.shards.append(Shard(len(self.shards), self.rows - self._rows, self._rows, tuple(self._spans)))
            self.digests.append(self._digest.hexdigest())
            self._begin()

    def _begin(self) -> None:
        self._spans: list[Span] = []
        self._rows = self._bytes = 0
        self._digest = hashlib.sha256()


class Scanner:
    """Reads files one after the other and keeps what a plan is made of."""

    def __init__(self, table: ShardTable, *, stop_on_bad_row: bool) -> None:
        self.table = table
        self.bad_rows = 0
        self._columns = Columns()
        self._stop_on_bad_row = stop_on_bad_row

    def schema(self) -> pa.Schema:
        """Return all columns of the files so far."""
        return self._columns.schema()

    def scan(self, number: int, file: InputFile) -> None:
        """Read the file that has this place in the plan's list.

        Raises:
            InputError: it cannot be read, has a bad row that is to stop the run, or changes meanwhile.
        """
        (self._scan_parquet if file.format == "parquet" else self._scan_jsonl)(number, file)
        check_unchanged(file)

    def _scan_jsonl(self, number: int, file: InputFile) -> None:
        with ByteStream(file) as stream:
            start = stream.read(len(BYTE_ORDER_MARK))
            if start.startswith(_UTF16):
                raise InputError(f"{file.path} is UTF-16; JSON Lines are UTF-8")
            at = Span(number, len(start) if start == BYTE_ORDER_MARK else 0, 0, 1)
        with ByteStream(file) as stream:
            stream.move_to(at.start)
            for piece in whole_lines(stream, block_bytes=_BLOCK_BYTES):
                if isinstance(piece, TooLong):
                    self._bad(file, at.line, parse(piece))
                    self.table.add(replace(at, rows=1), piece.size_bytes, b"%d" % piece.size_bytes)
                    at = replace(at, start=at.start + piece.size_bytes, line=at.line + 1)
                else:
                    at = self._place(file, at, piece)

    def _place(self, file: InputFile, at: Span, piece: bytes) -> Span:
        """Add the lines of a piece that lies at `at`; return where the next one lies."""
        lines = split_lines(piece)
        done = offset = 0
        while done < len(lines):
            count, size_bytes = self._fitting(lines, done, len(piece) - offset)
            some = lines[done : done + count]
            if not self.table.continues(at.file) and not some[0].strip():  # no span begins with a blank line
                some = some[:1]
                count, size_bytes = 1, min(len(some[0]) + 1, len(piece) - offset)
            place = Span(at.file, at.start + offset, self._examine(file, some, at.line + done), at.line + done)
            self.table.add(place, size_bytes, memoryview(piece)[offset : offset + size_bytes])
            done += count
            offset += size_bytes
        return replace(at, start=at.start + offset, line=at.line + done)

    def _fitting(self, lines: list[bytes], done: int, left_bytes: int) -> tuple[int, int]:
        """How many lines from `done` on, and bytes, the open shard takes for sure."""
        max_rows, max_bytes = self.table.room
        count = min(max_rows, len(lines) - done)
        if count < len(lines) - done:
            left_bytes = sum(map(len, lines[done : done + count])) + count
        if left_bytes <= max_bytes:
            return count, left_bytes
        sizes = accumulate(len(line) + 1 for line in lines[done : done + count])
        return next((n, size) for n, size in enumerate(sizes, 1) if size >= max_bytes or n == count)

    def _examine(self, file: InputFile, lines: list[bytes], line_number: int) -> int:
        """Take note of the columns of `lines`; return how many are rows."""
        rows = parse_all(lines)
        if rows is not None:
            seen = survey(rows)
            if not any(column.doubtful for column in seen.values()):
                self._columns.add_json(seen)
                return len(rows)
        rows, bad = [], 0
        for number, line in enumerate(lines, line_number):
            values = parse(line)
            if isinstance(values, dict):
                rows.append(values)
            elif values is not None:
                self._bad(file, number, values)
                bad += 1
        self._columns.add_json(survey(rows))
        return len(rows) + bad

    def _bad(self, file: InputFile, line_number: int, problem: object) -> None:
        if self._stop_on_bad_row:
            raise InputError(f"{file.path}:{line_number}: {problem}")
        self.bad_rows += 1

    def _scan_parquet(self, number: int, file: InputFile) -> None:
        rows = ParquetRows(file)
        rows.close()
        self._columns.add_parquet(carried_schema(rows.schema), file.name)
        digest = self._digest(file)
        position = 0
        for group_rows, size_bytes in rows.groups:
            end, row_bytes = position + group_rows, size_bytes / max(group_rows, 1)
            while position < end:
                max_rows, max_bytes = self.table.room
                count = min(end - position, max_rows, max(1, int(max_bytes / max(row_bytes, 1))))
                content = b"%b %d %d" % (digest, position, count)
                self.table.add(Span(number, position, count), round(count * row_bytes), content)
                position += count

    def _digest(self, file: InputFile) -> bytes:
        digest = hashlib.sha256()
        with ByteStream(file) as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
        return digest.digest()
