"""Parquet input: plain values, distrust, and how much is decoded."""

from __future__ import annotations

import datetime as dt
import os
import random
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.errors import InputError
from batcher.source.inputs import find_files
from batcher.source.parquet import ParquetRows, plain_rows
from tests.input_files import carried_of, plan_of, rows_of, write_records

NOON = dt.datetime(2024, 2, 29, 12, 0, tzinfo=dt.UTC)
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.list_(pa.string()))])
ID = uuid.UUID(int=7)


def write(path: Path, **arrays: pa.Array) -> Path:
    pq.write_table(pa.table(arrays), path)
    return path


def broken_text() -> pa.Array:
    """Three strings, the second of which is not UTF-8."""
    return pa.array([b"a", b"\xff", b"c"]).view(pa.string())


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array([1, None], pa.uint8()), [1, None]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([b"\0"]), [b"\0"]),
        (pa.nulls(1), [None]),
        (pa.array([NOON], pa.timestamp("us", "Europe/Berlin")), ["2024-02-29T12:00:00Z"]),
        (pa.array([1_500_000_000, None], pa.timestamp("ns")), ["1970-01-01T00:00:01.5", None]),
        (pa.array([1], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001"]),
        (pa.array([dt.date(2024, 2, 29)]), ["2024-02-29"]),
        (pa.array([dt.time(12, 30)]), ["12:30:00"]),
        (pa.array([dt.timedelta(seconds=2)], pa.duration("ms")), ["2000 ms"]),
        (pa.array([Decimal("1.50")]), ["1.50"]),
        (pa.array([ID.bytes], pa.uuid()), [str(ID)]),
        (pa.array(['{"a":1}'], pa.json_()), ['{"a":1}']),
        (pa.array([[("k", 1), ("l", None)]], pa.map_(pa.string(), pa.int8())), [{"k": 1, "l": None}]),
        (pa.array([[NOON, None]], pa.list_(pa.timestamp("ms", "UTC"))), [["2024-02-29T12:00:00Z", None]]),
        (pa.array([{"a": {"b": Decimal("1.0"), "c": None}}]), [{"a": {"b": "1.0"}}]),
        (
            pa.array([[{"role": "user", "content": "hi"}], [{"role": "tool", "tool_calls": ["x"]}]], pa.list_(MESSAGE)),
            [[{"role": "user", "content": "hi"}], [{"role": "tool", "tool_calls": ["x"]}]],
        ),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_values_are_plain_for_templates_and_carried_as_they_were(tmp_path: Path, array: pa.Array, values: Any) -> None:
    """Templates and requests get JSON-like values; the output keeps the type of the file."""
    plan = plan_of(write(tmp_path / "t.parquet", c=array))
    assert [row.values for row in rows_of(plan)] == [{"c": value} for value in values]
    assert carried_of(plan)["c"].combine_chunks() == array.cast(plan.schema.field("c").type)


TEXT = pa.array(["1"])


@pytest.mark.parametrize(
    "array",
    [TEXT.cast(pa.large_string()), TEXT.cast(pa.string_view()), TEXT.dictionary_encode(), pa.array(["1"], pa.json_())],
    ids=lambda array: str(array.type),
)
def test_every_kind_of_text_is_carried_as_string(tmp_path: Path, array: pa.Array) -> None:
    """How a file stores its text is no property of the data."""
    plan = plan_of(write(tmp_path / "t.parquet", c=array))
    assert carried_of(plan) == pa.table({"c": TEXT})


def test_other_types_are_carried_as_they_were(tmp_path: Path) -> None:
    """A column that nobody needs as text keeps its type, also one that is stored as a dictionary."""
    table = pa.table(
        {"a": pa.array([1], pa.uint8()), "b": pa.array([NOON], pa.timestamp("ms", "UTC")), "c": [ID.bytes]}
    )
    table = table.set_column(2, "c", pa.array([ID.bytes], pa.uuid())).append_column("d", pa.array([7]))
    pq.write_table(table.set_column(3, "d", pa.array([7]).dictionary_encode()), tmp_path / "t.parquet")
    assert carried_of(plan_of(tmp_path / "t.parquet")) == table


def test_a_value_that_python_cannot_hold_fails_its_row_only(tmp_path: Path) -> None:
    """One string that is not UTF-8 does not stop the run, and its row says where it is."""
    plan = plan_of(write(tmp_path / "t.parquet", c=broken_text(), n=pa.array([1, 2, 3])))
    rows = rows_of(plan)
    assert [row.values for row in rows] == [{"c": "a", "n": 1}, {}, {"c": "c", "n": 3}]
    assert [row.problem for row in rows] == [None, "t.parquet: row 1: column 'c' holds no valid string", None]


def test_a_year_beyond_python_is_text(tmp_path: Path) -> None:
    """Dates that Python's types cannot hold do not fail."""
    array = pa.array([10**8], pa.int32()).cast(pa.date32())
    (row,) = plain_rows(pa.record_batch({"c": array}))
    assert isinstance(row, dict)
    assert isinstance(row["c"], str)


def tensors() -> pa.Array:
    """A column of an Arrow extension type."""
    return pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int64(), [2]), pa.array([[1, 2]], pa.list_(pa.int64(), 2))
    )


@pytest.mark.parametrize(
    ("write_file", "words"),
    [
        (lambda path: path.write_bytes(b"PAR1"), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"{}\n" * 100), "cannot be read"),
        (lambda path: write(path, c=tensors()), "column 'c' has the unsupported type extension"),
        (lambda path: pq.write_table(pa.table([[1], [2]], ["a", "a"]), path), "two columns of the same name"),
        (lambda path: pq.write_table(pa.table({}), path), "has 0 columns"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, write_file: Any, words: str) -> None:
    """What is no Parquet, or not one that can be carried over, stops the run before anything is sent."""
    write_file(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=rf"t\.parquet.*{words}"):
        plan_of(tmp_path / "t.parquet")


def spoil(path: Path, start: int, end: int) -> None:
    """Change bytes of a file behind the back of whoever looks at its size and time."""
    facts = path.stat()
    data = bytearray(path.read_bytes())
    data[start:end] = bytes(255 - byte for byte in data[start:end])
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.fixture
def two_groups(tmp_path: Path) -> Path:
    """A file of two row groups with page checksums."""
    records = [{"n": n, "text": f"text {n}"} for n in range(200)]
    return write_records(tmp_path / "t.parquet", records, row_group_size=100, write_page_checksum=True)


def test_row_groups_without_a_wanted_row_are_not_decoded(two_groups: Path) -> None:
    """Carrying on near the end of a file does not pay for its beginning."""
    plan = plan_of(two_groups, rows_per_part=50)
    spoil(two_groups, 400, 500)
    assert [row.values["n"] for row in rows_of(plan, plan.shards[2:])] == list(range(100, 200))
    with pytest.raises(InputError, match=r"t\.parquet cannot be read: .*(checksum|CRC)"):
        rows_of(plan, plan.shards[:1])


def test_batches_are_bounded_by_bytes_and_rows(two_groups: Path) -> None:
    """Memory does not depend on how a file was written."""
    (file,) = find_files([two_groups])
    size_bytes = ParquetRows(file).groups[0][1] // 100
    assert ParquetRows(file, max_rows=64, max_bytes=1 << 20).take(0, 999).num_rows == 64
    assert ParquetRows(file, max_rows=64, max_bytes=10 * size_bytes).take(0, 999).num_rows in (9, 10, 11)
    assert ParquetRows(file, max_rows=64, max_bytes=1).take(150, 999).num_rows == 1


def test_metadata_that_contradict_each_other_are_refused(two_groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's claims are checked before memory is spent on them."""
    monkeypatch.setattr(pq.ParquetFile, "num_row_groups", 1)
    with pytest.raises(InputError, match="contradict"):
        ParquetRows(find_files([two_groups])[0])


def test_flipped_bytes_give_an_error_of_ours_or_rows(tmp_path: Path) -> None:
    """Whatever a hostile or damaged file does in the decoder ends as one kind of error."""
    chance = random.Random(0)
    path = write_records(
        tmp_path / "t.parquet", [{"n": n, "m": [{"s": str(n)}]} for n in range(100)], row_group_size=50
    )
    sound = path.read_bytes()
    refused = 0
    for _ in range(150):
        data = bytearray(sound)
        for position in chance.choices(range(len(data)), k=3):
            data[position] = chance.randrange(256)
        path.write_bytes(data)
        try:
            rows_of(plan_of(path))
        except InputError:
            refused += 1
    assert refused > 50
