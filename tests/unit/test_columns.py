"""The schema rule, and rows as Arrow columns."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow as pa
import pytest

from batcher.errors import InputError
from batcher.source import columns
from batcher.source.columns import Columns, json_text, survey, to_batch

BIG = 2**64


def schema_of(*batches: list[dict[str, Any]]) -> pa.Schema:
    found = Columns()
    for rows in batches:
        found.add_json(survey(rows))
    return found.schema()


@pytest.mark.parametrize(
    ("values", "kind", "carried"),
    [
        ([True, None, False], pa.bool_(), [True, None, False]),
        ([1, None, -(2**63), 2**63 - 1], pa.int64(), [1, None, -(2**63), 2**63 - 1]),
        ([1.5, None], pa.float64(), [1.5, None]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([2**53, 0.5], pa.float64(), [float(2**53), 0.5]),
        (["a", None, "2021-01-01", "1"], pa.string(), ["a", None, "2021-01-01", "1"]),
        ([None, None], pa.string(), [None, None]),
        ([1, "a", 1.5, True, None], pa.string(), ["1", "a", "1.5", "true", None]),
        ([True, 1], pa.string(), ["true", "1"]),
        ([True, 0.5], pa.string(), ["true", "0.5"]),
        ([2**63], pa.string(), [str(2**63)]),
        ([-(2**63) - 1, 1], pa.string(), [str(-(2**63) - 1), "1"]),
        ([BIG, 1.5], pa.string(), [str(BIG), "1.5"]),
        ([2**53 + 1, 0.5], pa.string(), [str(2**53 + 1), "0.5"]),
        ([[1, {"b": "ü\n"}], None], pa.string(), ['[1,{"b":"ü\\n"}]', None]),
        ([{"a": 1}, "x", []], pa.string(), ['{"a":1}', "x", "[]"]),
        ([{"a": [BIG]}], pa.string(), [f'{{"a":[{BIG}]}}']),
    ],
)
def test_a_json_column_has_one_type_that_loses_nothing(
    values: list[Any], kind: pa.DataType, carried: list[Any]
) -> None:
    """Scalars of one kind keep it; any other mixture is text, in which strings stay and the rest is JSON."""
    rows: list[dict[str, Any]] = [{"c": value} for value in values]
    assert schema_of(rows).field("c").type == kind
    assert schema_of(*([row] for row in rows)).field("c").type == kind
    assert to_batch(rows, schema_of(rows)).column(0).to_pylist() == carried


def test_a_column_that_appears_late_or_is_null_at_first_is_carried() -> None:
    """All rows decide about the columns, not the first few."""
    first: list[dict[str, Any]] = [{"a": None}, {"b": 1}]
    later: list[dict[str, Any]] = [{"c": "x", "a": 2.5}]
    schema = schema_of(first, later)
    assert schema.names == ["a", "b", "c"]
    assert to_batch(first + later, schema).to_pylist() == [
        {"a": None, "b": None, "c": None},
        {"a": None, "b": 1, "c": None},
        {"a": 2.5, "b": None, "c": "x"},
    ]


def test_a_float_that_may_be_a_long_integer_is_marked_as_doubtful() -> None:
    """Such rows are parsed again, exactly."""
    seen = survey([{"a": 1.0, "b": float(BIG)}, {"a": -5e18, "b": None}])
    assert {name: column.doubtful for name, column in seen.items()} == {"a": False, "b": True}


def test_keys_that_are_data_do_not_grow_the_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of columns is bounded."""
    monkeypatch.setattr(columns, "MAX_COLUMNS", 3)
    assert schema_of([{"a": 1, "b": 1}, {"c": 1}, {"a": 2}]).names == ["a", "b", "c"]
    with pytest.raises(InputError, match="more than 3 columns"):
        schema_of([{str(n): 1} for n in range(4)])


@pytest.mark.parametrize("depth", [1, 200, 1000, 5000])
def test_json_text_has_any_depth_and_every_digit(depth: int) -> None:
    """What is carried as text is the same value, however it is nested."""
    value: Any = {"n": BIG, "s": 'a"\\', "l": [], "m": {}, "x": [None, True, -0.5]}
    text = json.dumps(value, separators=(",", ":"))
    for _ in range(depth):
        value = [value, {"": value}] if depth == 1 else [value]
        text = f'[{text},{{"":{text}}}]' if depth == 1 else f"[{text}]"
    assert json_text(value) == text


def test_a_batch_without_columns_still_has_rows() -> None:
    """`output.columns: []` carries nothing, for every row."""
    assert to_batch([{"a": 1}] * 3, pa.schema([])).num_rows == 3


@pytest.mark.parametrize(
    ("kinds", "common"),
    [
        ([pa.int8(), pa.int64()], pa.int64()),
        ([pa.uint8(), pa.uint64()], pa.uint64()),
        ([pa.uint8(), pa.int8()], pa.int16()),
        ([pa.float32(), pa.float64()], pa.float64()),
        ([pa.null(), pa.date32()], pa.date32()),
        ([pa.null(), pa.null()], pa.string()),
        ([pa.date32(), pa.null(), pa.date32()], pa.date32()),
        ([pa.list_(pa.int8())] * 2, pa.list_(pa.int8())),
        ([pa.int64(), pa.uint64()], None),
        ([pa.int64(), pa.float64()], None),
        ([pa.string(), pa.int64()], None),
        ([pa.timestamp("us"), pa.timestamp("ns")], None),
    ],
)
def test_parquet_files_agree_on_a_type_or_are_refused(kinds: list[pa.DataType], common: pa.DataType | None) -> None:
    """Widths grow so that nothing is lost; whatever else differs is an error that names column and file."""
    found = Columns()
    last = len(kinds) - 1
    for number, kind in enumerate(kinds[:-1]):
        found.add_parquet(pa.schema([("c", kind)]), f"{number}.parquet")
    if common is None:
        words = f"column 'c' is {kinds[1]} in 1.parquet, but {kinds[0]} in 0.parquet"
        with pytest.raises(InputError, match=re.escape(words)):
            found.add_parquet(pa.schema([("c", kinds[-1])]), f"{last}.parquet")
    else:
        found.add_parquet(pa.schema([("c", kinds[-1])]), f"{last}.parquet")
        assert found.schema().field("c").type == common


@pytest.mark.parametrize(
    ("value", "kind", "common"),
    [
        (1, pa.int32(), pa.int64()),
        (None, pa.date32(), pa.date32()),
        ("a", pa.null(), pa.string()),
        ("a", pa.int64(), None),
        (1.5, pa.int64(), None),
    ],
)
def test_json_and_parquet_agree_on_a_type_or_are_refused(value: Any, kind: pa.DataType, common: Any) -> None:
    """A mixture of formats is read only if its columns mean the same."""
    found = Columns()
    found.add_json(survey([{"c": value}]))
    found.add_parquet(pa.schema([("c", kind)]), "x.parquet")
    if common is None:
        with pytest.raises(InputError, match=rf"column 'c' is \w+ as JSON Lines, but {kind} in x\.parquet"):
            found.schema()
    else:
        assert found.schema().field("c").type == common
