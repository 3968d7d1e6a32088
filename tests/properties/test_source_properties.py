"""For any rows: what is written as input comes back, in order, whatever the sizes of shards, chunks and blocks."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.source.columns import json_text
from batcher.source.jsonl import parse, split_lines, whole_lines
from tests.input_files import Record, carried_of, chunks_of, pack, plan_of, rows_of, write_records

NAMES = st.sampled_from(["a", "b", "text", "ünï", ""])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.integers(min_value=-9, max_value=9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=5
)
RECORDS = st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=30)
#: what Parquet files hold: one type for each column
TYPED = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.none() | st.integers(min_value=-(2**63), max_value=2**63 - 1),
            "x": st.none() | st.floats(allow_nan=False),
            "text": st.none() | st.text(max_size=5),
            "tags": st.none() | st.lists(st.text(max_size=3), max_size=2),
        }
    ),
    min_size=1,
    max_size=30,
)
SIZES = st.integers(min_value=1, max_value=40)
BYTES = st.sampled_from([1, 30, 100, 1 << 20])


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """One folder for all examples; each overwrites the files of the one before."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def expected(value: Any, kind: pa.DataType) -> Any:
    """What the schema rule makes of a JSON value."""
    if value is None or (kind == pa.string() and isinstance(value, str)):
        return value
    return json_text(value) if kind == pa.string() else value


@given(RECORDS, SIZES, SIZES, BYTES, BYTES, st.sampled_from(["", ".gz", ".zst"]))
@settings(deadline=None, derandomize=True)
def test_json_rows_come_back_whatever_the_sizes(
    folder: Path, records: list[Record], part: int, max_rows: int, max_bytes: int, shard_bytes: int, suffix: str
) -> None:
    """Rows, their order and their index, and the carried columns depend on the input alone."""
    path = write_records(folder / f"rows.jsonl{suffix}", records)
    plan = plan_of(path, rows_per_part=part, shard_bytes=shard_bytes)
    chunks = chunks_of(plan, max_rows=max_rows, max_bytes=max_bytes)
    rows = [row for chunk in chunks for row in chunk.rows]
    assert [row.row_index for row in rows] == list(range(len(records)))
    assert [repr(row.values) for row in rows] == [repr(record) for record in records]
    assert all(0 < len(chunk.rows) <= max_rows for chunk in chunks)
    assert plan.columns_seen == tuple(dict.fromkeys(name for record in records for name in record))
    kinds = dict(zip(plan.schema.names, plan.schema.types, strict=True))
    assert carried_of(plan, max_rows=max_rows, max_bytes=max_bytes).to_pylist() == [
        {name: expected(record.get(name), kind) for name, kind in kinds.items()} for record in records
    ]


@given(RECORDS)
@settings(deadline=None, derandomize=True)
def test_every_column_holds_its_values_without_loss(folder: Path, records: list[Record]) -> None:
    """From the carried column alone, each value can be told again."""
    plan = plan_of(write_records(folder / "rows.jsonl", records))
    for record, carried in zip(records, carried_of(plan).to_pylist(), strict=True):
        for name, value in record.items():
            if isinstance(carried[name], str) and not isinstance(value, str):
                assert repr(json.loads(carried[name])) == repr(value)
            else:
                assert carried[name] == value


@given(RECORDS, SIZES, st.data(), st.sampled_from(["jsonl", "jsonl.gz", "jsonl.zst"]))
@settings(deadline=None, derandomize=True)
def test_any_choice_of_shards_gives_just_their_rows(
    folder: Path, records: list[Record], part: int, data: st.DataObject, suffix: str
) -> None:
    """What is left of a run is read as it would have been in one go, over any number of files."""
    cuts = sorted(data.draw(st.lists(st.integers(min_value=0, max_value=len(records)), max_size=3)))
    pieces = zip([0, *cuts], [*cuts, len(records)], strict=True)
    paths = [write_records(folder / f"{i}.{suffix}", records[a:b]) for i, (a, b) in enumerate(pieces)]
    plan = plan_of(*paths, rows_per_part=part)
    wanted = data.draw(st.lists(st.sampled_from(plan.shards), unique=True))
    wanted.sort(key=lambda shard: shard.number)
    rows = rows_of(plan, wanted, max_rows=7, max_bytes=50)
    assert [row.row_index for row in rows] == [n for shard in wanted for n in range(shard.first_row, shard.end_row)]
    assert [repr(row.values) for row in rows] == [repr(records[row.row_index]) for row in rows]


@given(TYPED, SIZES, SIZES, SIZES, BYTES, st.data())
@settings(deadline=None, derandomize=True)
def test_parquet_rows_come_back_whatever_the_sizes(
    folder: Path, records: list[Record], group: int, part: int, max_rows: int, max_bytes: int, data: st.DataObject
) -> None:
    """Row groups, shards and chunks of any size give the same rows and columns."""
    path = write_records(folder / "rows.parquet", records, row_group_size=group)
    plan = plan_of(path, rows_per_part=part)
    assert carried_of(plan, max_rows=max_rows, max_bytes=max_bytes).to_pylist() == records
    wanted = data.draw(st.lists(st.sampled_from(plan.shards), unique=True))
    wanted.sort(key=lambda shard: shard.number)
    rows = rows_of(plan, wanted, max_rows=max_rows, max_bytes=max_bytes)
    assert [row.row_index for row in rows] == [n for shard in wanted for n in range(shard.first_row, shard.end_row)]
    assert [row.values for row in rows] == [records[row.row_index] for row in rows]


LINES = st.lists(
    st.sampled_from([b"{}", b"", b" ", b'{"a":1}\r', b"oops", b"[]", b"\xff", b'{"b":"\xc3\xbc"}']), max_size=12
)


@given(LINES, st.booleans(), SIZES, BYTES)
@settings(deadline=None, derandomize=True)
def test_any_text_gives_a_row_for_each_line_that_is_not_blank(
    folder: Path, lines: list[bytes], ends: bool, part: int, max_bytes: int
) -> None:
    """No line is lost, doubled or moved, and a bad one is known by its own line number."""
    path = pack(folder / "text.jsonl", b"{}\n" + b"\n".join(lines) + b"\n" * ends)
    plan = plan_of(path, rows_per_part=part)
    rows = rows_of(plan, max_bytes=max_bytes)
    parsed = [(number, parse(line)) for number, line in enumerate([b"{}", *lines], 1)]
    told = [(number, values) for number, values in parsed if values is not None]
    assert [row.problem for row in rows] == [
        f"text.jsonl:{number}: {values}" if isinstance(values, str) else None for number, values in told
    ]
    assert plan.bad_rows == sum(isinstance(values, str) for _, values in told)


@given(st.binary(max_size=60), st.integers(min_value=1, max_value=20))
@settings(deadline=None, derandomize=True)
def test_lines_put_together_are_the_text(text: bytes, block_bytes: int) -> None:
    """Cutting into lines loses no byte, however the text is read."""
    pieces = [piece for piece in whole_lines(io.BytesIO(text), block_bytes=block_bytes) if isinstance(piece, bytes)]
    assert b"".join(pieces) == text
    assert [line for piece in pieces for line in split_lines(piece)] == split_lines(text)
