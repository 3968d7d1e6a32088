"""The rows of given shards: order, bad rows, chunks, and how little is read for them."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from batcher.errors import InputError
from batcher.source import read
from tests.input_files import carried_of, chunks_of, pack, plan_of, rows_of, write_records

MESSY = b'\xef\xbb\xbf\n{"n": 0}\r\n  \noops\n{"n": 1}\n\n\n[2]\n{"n": "\xff"}\n{"n": 3, "late": true}'
PROBLEMS = [
    None,
    "m.jsonl:4: not valid JSON",
    None,
    "m.jsonl:8: not a JSON object",
    "m.jsonl:9: not valid UTF-8",
    None,
]


@pytest.mark.parametrize("rows_per_part", [1, 2, 4, 100])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("max_bytes", [1, 12, 1 << 20])
def test_bad_rows_keep_their_place_and_say_file_and_line(
    tmp_path: Path, rows_per_part: int, suffix: str, max_bytes: int
) -> None:
    """Byte order mark, CRLF, blank lines and a missing last newline are no rows; a bad line is a row with a reason."""
    plan = plan_of(pack(tmp_path / f"m.jsonl{suffix}", MESSY), rows_per_part=rows_per_part)
    rows = rows_of(plan, max_bytes=max_bytes)
    assert [row.row_index for row in rows] == list(range(6))
    assert [row.problem for row in rows] == [p and p.replace(".jsonl", f".jsonl{suffix}") for p in PROBLEMS]
    assert [row.values for row in rows] == [{"n": 0}, {}, {"n": 1}, {}, {}, {"n": 3, "late": True}]
    assert carried_of(plan, max_bytes=max_bytes).to_pydict() == {
        "n": [0, None, 1, None, None, 3],
        "late": [None, None, None, None, None, True],
    }


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_chunks_keep_to_one_shard_and_to_their_limits(tmp_path: Path, suffix: str) -> None:
    """A chunk has at most the rows asked for, about the bytes asked for, and at least one row."""
    records = [{"text": "x" * 1000} for _ in range(100)]
    plan = plan_of(write_records(tmp_path / f"t{suffix}", records, use_dictionary=False), rows_per_part=40)
    for max_rows, max_bytes, most in ((7, 1 << 20, 7), (1000, 1 << 20, 40), (1000, 5000, 5), (1000, 10, 1)):
        chunks = chunks_of(plan, max_rows=max_rows, max_bytes=max_bytes)
        assert max(len(chunk.rows) for chunk in chunks) in (most, most - (max_bytes == 5000))
        assert all(len(chunk.rows) == chunk.carried.num_rows for chunk in chunks)
        for chunk in chunks:
            assert chunk.shard.first_row <= chunk.rows[0].row_index <= chunk.rows[-1].row_index < chunk.shard.end_row


def test_a_shard_may_lie_in_several_files(tmp_path: Path) -> None:
    """Where a file ends is no boundary of shards, whatever its format; every row stays in order."""
    numbers = iter(range(20))
    sizes = {"a.jsonl": 3, "b.parquet": 5, "c.jsonl.gz": 1, "d.jsonl": 0, "e.jsonl.zst": 4, "f.parquet": 7}
    files = [
        write_records(tmp_path / name, [{"n": next(numbers)} for _ in range(size)])
        for name, size in sizes.items()
        if size
    ]
    plan = plan_of(*files, pack(tmp_path / "d.jsonl", b"\n\n"), rows_per_part=6)
    assert [len(shard.spans) for shard in plan.shards] == [2, 3, 2, 1]
    assert [(row.row_index, row.values["n"]) for row in rows_of(plan)] == [(n, n) for n in range(20)]
    assert [row.values["n"] for row in rows_of(plan, plan.shards[1::2])] == [*range(6, 12), *range(18, 20)]


def spoil(path: Path, start: int, end: int) -> None:
    """Overwrite bytes of a file without changing its size and time."""
    facts = path.stat()
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"#" * (end - start))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def test_plain_files_are_entered_at_the_shard_without_reading_what_lies_before(tmp_path: Path) -> None:
    """Carrying on at the end of a large file costs nothing; the rest of it is neither read nor parsed."""
    path = write_records(tmp_path / "t.jsonl", [{"n": n, "text": "x" * 100} for n in range(1000)])
    plan = plan_of(path, rows_per_part=100)
    spoil(path, 0, plan.shards[3].spans[0].start)
    spoil(path, plan.shards[4].spans[0].start, plan.shards[8].spans[0].start)
    rows = rows_of(plan, [plan.shards[3], plan.shards[8], plan.shards[9]], max_bytes=4096)
    assert [row.values["n"] for row in rows] == [*range(300, 400), *range(800, 1000)]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_a_file_that_changed_since_the_plan_is_refused(tmp_path: Path, suffix: str) -> None:
    """Rows of another file under the same name would get into the wrong part."""
    path = write_records(tmp_path / f"t{suffix}", [{"n": n} for n in range(9)])
    plan = plan_of(path)
    write_records(path, [{"n": n} for n in range(8)])
    with pytest.raises(InputError, match="changed while"):
        rows_of(plan)


@pytest.mark.parametrize("text", [b'{"n": 1}\n        \n', b'{"n": 1}\n{"n":"x"}'])
def test_rows_that_are_not_as_planned_are_never_passed_off(tmp_path: Path, text: bytes) -> None:
    """A file that has fewer rows or other types than the plan says changed, though its size and time are the same."""
    path = pack(tmp_path / "t.jsonl", b'{"n": 1}\n{"n": 2}\n')
    plan = plan_of(path)
    facts = path.stat()
    pack(path, text)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(InputError, match="changed while"):
        rows_of(plan)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_only_the_columns_asked_for_are_carried(tmp_path: Path, suffix: str) -> None:
    """The request may use any column; the output has those of `output.columns`, in that order."""
    plan = plan_of(write_records(tmp_path / f"t{suffix}", [{"a": 1, "b": "x", "c": None}]))
    schema = pa.schema([plan.schema.field("b"), plan.schema.field("a")])
    (chunk,) = read(plan.files, plan.shards, schema)
    assert chunk.carried.schema == schema
    assert chunk.carried.to_pylist() == [{"b": "x", "a": 1}]
    assert chunk.rows[0].values == {"a": 1, "b": "x", "c": None}
    (chunk,) = read(plan.files, plan.shards, pa.schema([]))
    assert chunk.carried.num_rows == 1


def test_a_column_that_one_parquet_file_lacks_is_null_there(tmp_path: Path) -> None:
    """Files written before and after a column was added go together."""
    old = write_records(tmp_path / "1.parquet", [{"a": 1}])
    new = write_records(tmp_path / "2.parquet", [{"a": 2, "b": "x"}])
    assert carried_of(plan_of(old, new)).to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]


def test_stopping_early_gives_the_file_back(tmp_path: Path) -> None:
    """A run that is interrupted leaves no file open (an open one would warn, and fail this test)."""
    plan = plan_of(write_records(tmp_path / "t.jsonl", [{"n": n} for n in range(9)]))
    chunks = read(plan.files, plan.shards, plan.schema, max_rows=1)
    assert next(chunks).rows[0].values == {"n": 0}
    chunks.close()  # type: ignore[attr-defined]


def peak_bytes(path: Path) -> int:
    """Memory of Python and of Arrow that planning and reading a file takes at most."""
    tracemalloc.start()
    try:
        plan = plan_of(path)
        arrow: int = max(pa.total_allocated_bytes() for _ in read(plan.files, plan.shards, plan.schema))
        return tracemalloc.get_traced_memory()[1] + arrow
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_memory_does_not_grow_with_the_input(tmp_path: Path, suffix: str) -> None:
    """Four times the rows take the same memory."""
    records = [{"n": n, "text": f"{n} " * 100} for n in range(4000)]
    few = peak_bytes(write_records(tmp_path / f"few{suffix}", records))
    many = peak_bytes(write_records(tmp_path / f"many{suffix}", records * 4))
    assert many < 1.3 * few
