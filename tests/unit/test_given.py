"""Rows that a program gives: what is kept of them, how, and how little of them is held."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy
import orjson
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.errors import InputError, StorageError
from batcher.given import Rows, kept, kept_before

TYPED = pa.table(
    {
        "text": pa.array(["a", None, "c"], pa.large_string()),
        "day": pa.array([date(2024, 2, 29), None, date(1970, 1, 1)]),
        "price": pa.array([Decimal("1.10"), Decimal("-0.01"), None], pa.decimal128(9, 2)),
        "at": pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * 3, pa.timestamp("us", "UTC")),
        "tags": pa.array([["x", "y"], [], None], pa.list_(pa.string())),
        "nested": pa.array([{"a": 1, "b": "z"}, None, {"a": None, "b": None}]),
        "kind": pa.array(["k", "k", "l"]).dictionary_encode(),
    }
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The `.batcher` of a run folder in which nothing has begun."""
    folder = tmp_path / "out" / ".batcher"
    folder.mkdir(parents=True)
    return folder


def lines_of(rows: Rows, state: Path) -> list[dict[str, Any]]:
    """What is kept of mappings."""
    with kept(rows, state) as path:
        assert path == state / "rows.jsonl" == kept_before(state)
        return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def table_of(rows: Rows, state: Path) -> pa.Table:
    """What is kept of a table."""
    with kept(rows, state) as path:
        assert path == state / "rows.pq" == kept_before(state)
        return pq.read_table(path)


def test_mappings_are_lines_of_json(state: Path) -> None:
    """Any mapping of JSON values; a decimal keeps its digits, a time becomes text, what is not a number is null."""
    rows = [
        {"a": 1, "b": ["x", {"y": None}]},
        MappingProxyType({"a": Decimal("1.10"), "b": MappingProxyType({"n": numpy.int64(7)})}),
        {"a": datetime(2024, 1, 1, tzinfo=UTC), "b": float("nan")},
    ]
    assert lines_of(iter(rows), state) == [
        {"a": 1, "b": ["x", {"y": None}]},
        {"a": "1.10", "b": {"n": 7}},
        {"a": "2024-01-01T00:00:00+00:00", "b": None},
    ]


def test_a_table_keeps_its_types(state: Path) -> None:
    """Dates, decimals, times, lists, structs and dictionaries come back as they were."""
    found = table_of(TYPED, state)
    assert found.equals(TYPED)
    assert found.schema.equals(TYPED.schema)
    assert (state / "rows.pq").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "frame",
    [
        polars.DataFrame({"n": [1, 2], "day": [date(2024, 1, 1), None], "text": ["a", "b"]}),
        pandas.DataFrame({"n": [1, 2], "day": pandas.array([date(2024, 1, 1), None]), "text": ["a", "b"]}),
        pa.table({"n": [1, 2], "day": [date(2024, 1, 1), None], "text": ["a", "b"]}).to_reader(),
    ],
    ids=["polars", "pandas", "a stream"],
)
def test_frames_of_other_libraries(state: Path, frame: Any) -> None:
    """Whatever speaks Arrow is a table."""
    rows = table_of(frame, state).to_pylist()
    assert rows == [{"n": 1, "day": date(2024, 1, 1), "text": "a"}, {"n": 2, "day": None, "text": "b"}]


def test_equal_tables_make_equal_files(state: Path) -> None:
    """However a table is cut into batches, so that it can be compared when it is given again."""
    table = pa.table({"n": range(20_000), "text": [f"row {n}" for n in range(20_000)]})
    whole = _bytes_of(table, state)
    assert _bytes_of(pa.Table.from_batches(table.to_batches(max_chunksize=777)), state) == whole
    assert _bytes_of(table.slice(0, 19_999), state) != whole


def _bytes_of(rows: Rows, state: Path) -> bytes:
    with kept(rows, state) as path:
        return path.read_bytes()


class Counted(dict[str, int]):
    """A row that knows how many of its kind there are."""

    alive = most = 0

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)

    def __del__(self) -> None:
        Counted.alive -= 1


def test_mappings_are_taken_one_after_the_other(state: Path) -> None:
    """However many a generator yields, there are never more than a few."""
    with kept((Counted({"n": n}) for n in range(5000)), state) as path:
        assert path.read_bytes().count(b"\n") == 5000
    assert Counted.most <= 3


def test_a_stream_of_batches_is_not_gathered(state: Path) -> None:
    """Of a stream, Arrow holds a few row groups at a time, whatever its length."""
    batch_bytes, sizes = 8192 * 100, []

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(60):
            sizes.append(pa.total_allocated_bytes() - before)
            yield pa.record_batch({"text": pa.array([f"{number:0100}"] * 8192)})

    gc.collect()
    before = pa.total_allocated_bytes()
    schema = pa.schema({"text": pa.string()})
    with kept(pa.RecordBatchReader.from_batches(schema, batches()), state) as path:
        assert pq.read_metadata(path).num_rows == 60 * 8192
    assert max(sizes) < 12 * batch_bytes


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("rows.jsonl", "rows must be a table or an iterable of mappings, not a str"),
        ({"a": [1]}, "rows must be a table or an iterable of mappings, not a dict"),
        (7, "rows must be a table or an iterable of mappings, not a int"),
        ([{"a": 1}, "b"], "row 1 of those given is a str, not a mapping"),
        ([{"a": object()}], "row 0 of those given cannot be written as JSON: .*object"),
        ([{"a": "\ud800"}], "row 0 of those given cannot be written as JSON"),
        (pa.table({"a": pa.array([None], pa.month_day_nano_interval())}), "the table given cannot be kept"),
        (polars.Series(["a"]), "the table given cannot be kept"),
    ],
)
def test_what_is_no_row_is_refused(state: Path, rows: Any, said: str) -> None:
    """The message says which row and why, and nothing is left behind."""
    with pytest.raises(InputError, match=said), kept(rows, state):
        raise AssertionError("it was taken")
    assert not list(state.iterdir())


def test_what_a_generator_raises_is_the_callers(state: Path) -> None:
    """An error of the program's own comes out as it is, a full disk of its own is none of ours; nothing is left."""

    def rows() -> Iterator[dict[str, int]]:
        yield {"n": 1}
        raise FileNotFoundError("the program's own")

    with pytest.raises(FileNotFoundError, match="own"), kept(rows(), state):
        raise AssertionError("it was taken")
    assert not list(state.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """Trouble with our own disk is a storage error."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"rows\.jsonl cannot be written"), kept([{"n": 1}], tmp_path / "file"):
        raise AssertionError("it was taken")


def test_rows_of_a_run_that_has_begun_stay(state: Path) -> None:
    """Rows given again lie elsewhere until they are compared; a run that does not begin leaves none."""
    with pytest.raises(RuntimeError), kept([{"n": 1}], state):
        raise RuntimeError("it does not begin")
    assert not list(state.iterdir())
    with kept([{"n": 1}], state):
        (state / "manifest.json").write_text("{}")
    with kept([{"n": 2}], state) as path:
        assert (path, path.read_bytes()) == (state / "tmp" / "rows.jsonl", b'{"n":2}\n')
    assert not path.exists()
    assert (state / "rows.jsonl").read_bytes() == b'{"n":1}\n'
