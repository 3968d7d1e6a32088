"""The columns of the input: which there are, the one type each has in every part, and rows as Arrow columns.

The rule for JSON: booleans, integers (int64), numbers (float64) and strings keep their type; a column of integers and
other numbers is float64 if that loses nothing. Whatever else, or more than one of them, is a string column, in which
strings stay as they are and other values are JSON text. Strings are never parsed. Parquet columns keep the file's type.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from batcher.errors import InputError
from batcher.source.jsonl import is_far

#: more different keys than this are data, not columns
MAX_COLUMNS = 10_000

_INT64 = range(-(2**63), 2**63)
#: integers that a float64 holds without loss
_EXACT_IN_FLOAT = range(-(2**53), 2**53 + 1)


@dataclass(slots=True)
class Seen:
    """What the values of one JSON column were."""

    types: set[type] = field(default_factory=set)
    low: int = 0
    high: int = 0
    #: a float among them may stand for an integer that does not fit 64 bits
    doubtful: bool = False

    def add(self, values: Sequence[Any]) -> None:
        """Take note of `values`."""
        types = set(map(type, values))
        self.types |= types
        if int in types:
            integers = values if len(types) == 1 else [value for value in values if type(value) is int]
            self.low = min(self.low, min(integers))
            self.high = max(self.high, max(integers))
        if float in types:
            floats = values if len(types) == 1 else [value for value in values if type(value) is float]
            self.doubtful = self.doubtful or is_far(min(floats), max(floats))

    def merge(self, other: Seen) -> None:
        """Take note of what `other` saw."""
        self.types |= other.types
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    @property
    def arrow_type(self) -> pa.DataType:
        """The column's type; null if there was no value."""
        types = self.types - {type(None)}
        if not types:
            return pa.null()
        if types == {bool}:
            return pa.bool_()
        if types == {int} and self.low in _INT64 and self.high in _INT64:
            return pa.int64()
        if types == {float}:
            return pa.float64()
        if types == {int, float} and self.low in _EXACT_IN_FLOAT and self.high in _EXACT_IN_FLOAT:
            return pa.float64()
        return pa.string()


def survey(rows: Iterable[dict[str, Any]]) -> dict[str, Seen]:
    """Return what each column of `rows` holds, in order of first appearance."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for values in rows:
        alike.setdefault(tuple(values), []).append(values)
    seen: dict[str, Seen] = {}
    for names, members in alike.items():
        for name, column in zip(names, zip(*map(dict.values, members), strict=True), strict=True):
            if name not in seen:
                seen[name] = Seen()
            seen[name].add(column)
    return seen


@dataclass(slots=True)
class _Column:
    json: Seen = field(default_factory=Seen)
    parquet: pa.DataType = field(default_factory=pa.null)
    #: the last Parquet file with this column, for messages
    file: str = ""


class Columns:
    """Collects the columns of all files, in order of first appearance."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}

    def add_json(self, seen: dict[str, Seen]) -> None:
        """Add what `survey` saw.

        Raises:
            InputError: there are too many different columns.
        """
        for name, column in seen.items():
            self._column(name).json.merge(column)

    def add_parquet(self, schema: pa.Schema, file: str) -> None:
        """Add the columns of one Parquet file, with the types that they have in a part.

        Raises:
            InputError: a type does not agree with another file's.
        """
        for name, kind in zip(schema.names, schema.types, strict=True):
            column = self._column(name)
            common = _common_type(column.parquet, kind)
            if common is None:
                raise InputError(f"column {name!r} is {kind} in {file}, but {column.parquet} in {column.file}")
            column.parquet, column.file = common, file

    def schema(self) -> pa.Schema:
        """Return all columns with the type that each has in every part.

        Raises:
            InputError: JSON Lines and Parquet files do not agree.
        """
        return pa.schema([(name, _settle(name, column)) for name, column in self._columns.items()])

    def _column(self, name: str) -> _Column:
        column = self._columns.get(name)
        if column is None:
            if len(self._columns) == MAX_COLUMNS:
                raise InputError(f"the input has more than {MAX_COLUMNS} columns; are some of the keys data?")
            column = self._columns[name] = _Column()
        return column


def _settle(name: str, column: _Column) -> pa.DataType:
    in_json = column.json.arrow_type
    kind = _common_type(in_json, column.parquet)
    if kind is None:
        raise InputError(f"column {name!r} is {in_json} as JSON Lines, but {column.parquet} in {column.file}")
    return pa.string() if pa.types.is_null(kind) else kind


def _common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both without loss; None if they do not agree."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    whole = pa.types.is_integer(one) and pa.types.is_integer(other) and pa.uint64() not in (one, other)
    widening = whole or (pa.types.is_floating(one) and pa.types.is_floating(other))
    if not widening and not (pa.types.is_unsigned_integer(one) and pa.types.is_unsigned_integer(other)):
        return None
    both = [pa.schema([("", kind)]) for kind in (one, other)]
    return pa.unify_schemas(both, promote_options="permissive").field(0).type


def to_batch(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Return the columns of `schema` of JSON `rows`; a key that a row lacks is null.

    Raises:
        pyarrow.ArrowException: a value does not fit the schema; it was not made from these rows.
    """
    if not schema.names:
        return no_columns(len(rows))
    arrays = [_array([values.get(name) for values in rows], schema.field(name).type) for name in schema.names]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def no_columns(rows: int) -> pa.RecordBatch:
    """Return a batch that has rows but no column."""
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind != pa.string():
        return pa.array(values, kind)
    try:
        return pa.array(values, kind)
    except pa.ArrowTypeError:  # not only strings
        return pa.array([v if v is None or type(v) is str else json_text(v) for v in values], kind)


def json_text(value: Any) -> str:
    """Return a JSON value as text, every digit of its integers included."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # an integer beyond 64 bits, or nested deeper than orjson writes
        return "".join(_fragments(value))


def _fragments(value: Any) -> Iterable[str]:
    """The JSON text of `value` in fragments, without recursion."""
    closed = object()  # stands before a fragment that is written as it is
    stack = [value]
    while stack:
        value = stack.pop()
        if value is closed:
            yield stack.pop()
        elif isinstance(value, dict):
            stack += ["}", closed]
            for position, (name, inner) in reversed(list(enumerate(value.items()))):
                stack += [inner, ("," if position else "") + json_text(name) + ":", closed]
            yield "{"
        elif isinstance(value, list):
            stack += ["]", closed]
            for position, inner in reversed(list(enumerate(value))):
                stack += [inner, "," if position else "", closed]
            yield "["
        else:
            yield str(value) if type(value) is int else json_text(value)
