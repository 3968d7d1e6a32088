"""A look at data that a job is to be written for: its columns, what is in them, and which shape its rows have.

Reads the first rows only, and counts the others where that takes no time. It does not know what a job looks like.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal

import orjson

from batcher.errors import InputError
from batcher.source import InputFile
from batcher.source.columns import Columns, survey
from batcher.source.inputs import ByteStream
from batcher.source.jsonl import BYTE_ORDER_MARK, TooLong, parse, split_lines, whole_lines
from batcher.source.parquet import ParquetRows, carried_schema, plain_rows

#: rows that are looked at; of each file at least so many; bytes of a file after which no further one is
SAMPLE_ROWS: Final = 200
FILE_ROWS: Final = 20
SAMPLE_BYTES: Final = 16 << 20
#: bytes of text in which rows are counted; more would take longer than anybody wants to wait
COUNT_BYTES: Final = 256 << 20
_BLOCK_BYTES: Final = 1 << 18

#: columns: a template is needed; otherwise the key with which a row brings its own request
Shape = Literal["columns", "prompt", "messages", "body"]

_KINDS: Final[dict[type, str]] = {
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "number",
    list: "list",
    dict: "mapping",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen."""

    files: tuple[InputFile, ...]
    #: of all files; None where counting would have taken long
    rows: int | None
    #: the values of the first rows that can be read
    sample: tuple[dict[str, Any], ...]
    #: places and reasons of those that cannot
    bad: tuple[str, ...]

    @property
    def columns(self) -> dict[str, str]:
        """The columns in order of first appearance, and what is in them: `text`, `number`, `list`, ..."""
        names = dict.fromkeys(name for row in self.sample for name in row)
        return {name: _kind([row.get(name) for row in self.sample]) for name in names}

    @property
    def shape(self) -> Shape:
        """The shape that most rows have."""
        shapes = Counter(shape_of(row) for row in self.sample)
        return shapes.most_common(1)[0][0]

    @property
    def others(self) -> int:
        """Rows of the sample that have another shape than most."""
        return sum(shape_of(row) != self.shape for row in self.sample)


def look_at(files: Sequence[InputFile]) -> Look:
    """Read the first rows of some input files.

    Raises:
        InputError: a file cannot be read, there is no row, or none of the first rows can be read.
    """
    first = list(islice(_first_rows(files), SAMPLE_ROWS))
    sample = [values for _, _, values in first if isinstance(values, dict)]
    bad = [f"{place}: {values}" for _, place, values in first if isinstance(values, str)]
    if not sample:
        what = str(files[0].path) if len(files) == 1 else f"the input of {len(files)} files"
        raise InputError(
            f"{what} holds no row that can be read; {bad[0]}" if bad else f"{what} is empty: it has no row"
        )
    in_json = [values for file, _, values in first if isinstance(values, dict) and file.format == "jsonl"]
    _check_agreement(files, in_json)
    return Look(tuple(files), _count(files), tuple(sample), tuple(bad))


def first_values(files: Sequence[InputFile]) -> dict[str, Any]:
    """Return the values of the first row that can be read, with JSON text in `body` read as such; none if none can.

    Raises:
        InputError: a file cannot be read.
    """
    values = next((values for _, _, values in _first_rows(files) if isinstance(values, dict)), {})
    return {**values, "body": _nested(values.get("body"))}


def shape_of(row: dict[str, Any]) -> Shape:
    """Return the shape of one row: the first of the keys that a run looks for, if what it holds can be asked."""
    if isinstance(row.get("body"), dict | str):
        body = _nested(row["body"])
        return "body" if isinstance(body, dict) and body.keys() & {"messages", "prompt"} else "columns"
    if row.get("messages") is not None:
        messages = _nested(row["messages"])
        whole = isinstance(messages, list) and messages and all(isinstance(message, dict) for message in messages)
        return "messages" if whole else "columns"
    return "prompt" if isinstance(row.get("prompt"), str) else "columns"


def _nested(value: Any) -> Any:
    """A nested value; in a Parquet file it may be JSON text."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def _kind(values: Sequence[Any]) -> str:
    kinds = {_KINDS.get(type(value), "mixed") for value in values if value is not None}
    if kinds == {"whole number", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "empty"


def _check_agreement(files: Sequence[InputFile], in_json: Sequence[dict[str, Any]]) -> None:
    """Raise InputError if files have a column of the same name whose types do not go together."""
    columns = Columns()
    columns.add_json(survey(in_json))
    for file in files:
        if file.format == "parquet":
            with closing(ParquetRows(file)) as rows:
                columns.add_parquet(carried_schema(rows.schema), file.name)
    columns.schema()


# -- reading -----------------------------------------------------------------------------------------------------------


def _first_rows(files: Sequence[InputFile]) -> Iterator[tuple[InputFile, str, dict[str, Any] | str]]:
    """Yield file, place and values of some rows of every file; in place of values there may be what is wrong."""
    share = max(FILE_ROWS, SAMPLE_ROWS // len(files))
    for file in files:
        rows = _first_parquet_rows(file) if file.format == "parquet" else _first_lines(file)
        yield from ((file, place, values) for place, values in islice(rows, share))


def _first_lines(file: InputFile) -> Iterator[tuple[str, dict[str, Any] | str]]:
    number = 0
    with ByteStream(file) as stream:
        for piece in whole_lines(stream, block_bytes=_BLOCK_BYTES):
            for line in _lines(piece):
                number += 1
                values = parse(line if isinstance(line, TooLong) or number > 1 else line.removeprefix(BYTE_ORDER_MARK))
                if values is not None:
                    yield f"{file.name}:{number}", values
            if stream.position > SAMPLE_BYTES:
                return


def _lines(piece: bytes | TooLong) -> Sequence[bytes | TooLong]:
    return [piece] if isinstance(piece, TooLong) else split_lines(piece)


def _first_parquet_rows(file: InputFile) -> Iterator[tuple[str, dict[str, Any] | str]]:
    with closing(ParquetRows(file, max_rows=SAMPLE_ROWS, max_bytes=SAMPLE_BYTES)) as rows:
        position, end = 0, sum(count for count, _ in rows.groups)
        while position < end:
            for values in plain_rows(rows.take(position, SAMPLE_ROWS)):
                yield f"{file.name}: row {position}", values
                position += 1


def _count(files: Sequence[InputFile]) -> int | None:
    """Return the number of rows, or None if that would take long."""
    if sum(file.size_bytes for file in files if file.format == "jsonl") > COUNT_BYTES:
        return None
    total, left_bytes = 0, COUNT_BYTES
    for file in files:
        if file.format == "parquet":
            with closing(ParquetRows(file)) as rows:
                total += sum(count for count, _ in rows.groups)
            continue
        with ByteStream(file) as stream:
            for piece in whole_lines(stream, block_bytes=_BLOCK_BYTES):
                total += sum(isinstance(line, TooLong) or bool(line.strip()) for line in _lines(piece))
                if stream.position > left_bytes:  # a small file may hold very much
                    return None
            left_bytes -= stream.position
    return total
