"""A look at data: columns, kinds, shape, and rows where counting takes no time."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.cli import looking
from batcher.cli.looking import SAMPLE_ROWS, Look, look_at, shape_of
from batcher.errors import InputError
from batcher.source import find_files

MESSAGES = [{"role": "user", "content": "hi"}]


def lines(rows: Sequence[Any]) -> bytes:
    """JSON Lines."""
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def look(folder: Path, content: bytes, name: str = "rows.jsonl") -> Look:
    """Look at one file of this content."""
    (folder / name).write_bytes(content)
    return look_at(find_files([folder / name]))


def test_columns_and_kinds(tmp_path: Path) -> None:
    """Every column of the first rows is named with what is in it, in order of first appearance."""
    rows = [
        {"a": "x", "b": 1, "c": 1, "d": None, "e": [1], "f": True},
        {"b": 2, "a": "y", "c": 0.5, "e": [], "f": False, "g": {"h": 1}, "i": "1"},
        {"i": 1},
    ]
    assert look(tmp_path, lines(rows)).columns == {
        "a": "text",
        "b": "whole number",
        "c": "number",
        "d": "empty",
        "e": "list",
        "f": "true or false",
        "g": "mapping",
        "i": "mixed",
    }


def test_parquet(tmp_path: Path) -> None:
    """Columns of a Parquet file are told in the same words, and its rows are counted without reading them."""
    table = pa.table({"text": ["a", "b"] * 500, "n": range(1000), "tags": [["x"]] * 1000})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=300)
    seen = look_at(find_files([tmp_path / "rows.parquet"]))
    assert seen.columns == {"text": "text", "n": "whole number", "tags": "list"}
    assert (seen.rows, len(seen.sample)) == (1000, SAMPLE_ROWS)


@pytest.mark.parametrize("content", [b'{"a":1}\n\n{"a":2}', b'\xef\xbb\xbf{"a":1}\r\n \n{"a":2}\r\n'])
def test_rows_are_counted_as_a_run_counts_them(tmp_path: Path, content: bytes) -> None:
    """Blank lines are no rows; a byte-order mark and a missing last line break change nothing."""
    seen = look(tmp_path, content)
    assert (seen.rows, seen.bad, seen.sample) == (2, (), ({"a": 1}, {"a": 2}))


def test_compressed_and_several_files(tmp_path: Path) -> None:
    """A folder is looked at as a run reads it, file after file."""
    (tmp_path / "b.jsonl").write_bytes(lines([{"second": 1}] * 7))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines([{"first": 1}] * 300)))
    seen = look_at(find_files([tmp_path]))
    assert (seen.rows, len(seen.files), list(seen.columns)) == (307, 2, ["first", "second"])
    assert len(seen.sample) == SAMPLE_ROWS // 2 + 7


def test_large_files_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is large, or holds very much, is looked at without waiting for its end."""
    monkeypatch.setattr(looking, "COUNT_BYTES", 100_000)
    rows = lines([{"text": "x" * 1000}] * 1000)
    assert look(tmp_path, rows).rows is None
    assert look(tmp_path, gzip.compress(rows), "rows.jsonl.gz").rows is None
    assert look(tmp_path, lines([{"text": "x"}] * 1000)).rows == 1000


def test_long_rows_end_the_sample_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample is bounded in bytes as well."""
    monkeypatch.setattr(looking, "SAMPLE_BYTES", 1 << 20)
    assert 0 < len(look(tmp_path, lines([{"text": "x" * 100_000}] * 50)).sample) < 20


def test_rows_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """What is wrong is said with its place; the other rows are seen."""
    seen = look(tmp_path, b'{"a": 1}\n[2]\n{"a": \n{"a": 4}\n')
    assert seen.bad == ("rows.jsonl:2: not a JSON object", "rows.jsonl:3: not valid JSON")
    assert (len(seen.sample), seen.rows) == (2, 4)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "empty"), (b"\n \n", "empty"), (b"[1]\n[2]\n", "rows.jsonl:1: not a JSON object")]
)
def test_data_without_a_row(tmp_path: Path, content: bytes, words: str) -> None:
    """Where there is nothing to make a job of, it is said why."""
    with pytest.raises(InputError, match=words) as caught:
        look(tmp_path, content)
    assert str(tmp_path / "rows.jsonl") in str(caught.value)


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"text": "a"}, "columns"),
        ({"prompt": "a", "system_prompt": "b"}, "prompt"),
        ({"prompt": 7}, "columns"),
        ({"prompt": None, "text": "a"}, "columns"),
        ({"messages": MESSAGES, "prompt": "a"}, "messages"),
        ({"messages": orjson.dumps(MESSAGES).decode()}, "messages"),
        ({"messages": []}, "columns"),
        ({"messages": "dear all"}, "columns"),
        ({"messages": ["hi"]}, "columns"),
        ({"custom_id": "1", "body": {"messages": MESSAGES}}, "body"),
        ({"custom_id": "1", "body": '{"messages": []}'}, "body"),
        ({"subject": "hello", "body": "Dear all, {not json}"}, "columns"),
        ({"subject": "hello", "body": "{not json}"}, "columns"),
        ({"body": {"any": 1}, "prompt": "a"}, "columns"),
        ({"body": "Dear all", "prompt": "a"}, "columns"),
        ({"body": None, "messages": None, "prompt": "a"}, "prompt"),
        ({"messages": "dear all", "prompt": "a"}, "columns"),
    ],
)
def test_shapes_of_rows(row: dict[str, Any], shape: str) -> None:
    """A row's shape is told by what its keys hold, not by their names alone: mails have a `body` as well."""
    assert shape_of(row) == shape


def test_the_shape_of_most_rows_wins(tmp_path: Path) -> None:
    """Where rows differ, most of them decide, and it is known how many do not fit."""
    seen = look(tmp_path, lines([{"prompt": "a"}] * 3 + [{"text": "b"}] * 2))
    assert (seen.shape, seen.others) == ("prompt", 2)


def test_columns_that_do_not_go_together(tmp_path: Path) -> None:
    """Files whose columns a run would refuse are refused now; a column that only one of them has is fine."""
    day = pa.array([1, 2], pa.date32())
    pq.write_table(pa.table({"text": ["a", "b"], "day": day}), tmp_path / "b.parquet")
    (tmp_path / "a.jsonl").write_bytes(lines([{"text": "c"}]))
    assert look_at(find_files([tmp_path])).columns == {"text": "text", "day": "text"}
    (tmp_path / "a.jsonl").write_bytes(lines([{"text": "c", "day": "1970-01-02"}]))
    with pytest.raises(InputError, match=r"column 'day' is string as JSON Lines, but date32.* in b\.parquet"):
        look_at(find_files([tmp_path]))
