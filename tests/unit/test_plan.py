"""The plan: shards, columns, digests, and what it says about another input."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow as pa
import pytest

from batcher.errors import InputError
from batcher.plan import Plan, files_unchanged, scan
from batcher.records import Shard, Span
from batcher.source import jsonl
from batcher.source.inputs import find_files
from tests.input_files import Record, pack, plan_of, rows_of, write_records

TICKETS: list[Record] = [{"id": f"t{n}", "text": "x" * n} for n in range(25)]


def test_shards_have_the_asked_number_of_rows_and_name_their_place(tmp_path: Path) -> None:
    """Every row is in one shard; a span says byte, rows and line of its first row."""
    first = pack(tmp_path / "1.jsonl", b'\xef\xbb\xbf\n{"n":0}\n\n{"n":1}\nbad\n\n')
    second = pack(tmp_path / "2.jsonl", b'\n{"n":3}\n{"n":4}')
    plan = plan_of(first, second, rows_per_part=2)
    assert plan.shards == (
        Shard(0, 0, 2, (Span(0, 4, 2, 2),)),
        Shard(1, 2, 2, (Span(0, 21, 1, 5), Span(1, 1, 1, 2))),
        Shard(2, 4, 1, (Span(1, 9, 1, 3),)),
    )
    assert (plan.rows, plan.bad_rows, plan.input_bytes, plan.columns_seen) == (5, 1, 42, ("n",))
    assert plan.schema == pa.schema([("n", pa.int64())])


@pytest.mark.parametrize("block_bytes", [1, 10, 1 << 18])
def test_a_shard_also_ends_at_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    """The row that reaches the limit is the last one, however the file is read."""
    monkeypatch.setattr(scan, "_BLOCK_BYTES", block_bytes)
    lines = [b'{"n":"%s"}\n' % (b"x" * size) for size in (1, 11, 1, 50, 50, 1, 1, 1)]  # 9 bytes more each
    plan = plan_of(pack(tmp_path / "t.jsonl", b"".join(lines)), shard_bytes=20)
    assert [len(line) for line in lines] == [10, 20, 10, 59, 59, 10, 10, 10]
    assert [shard.rows for shard in plan.shards] == [2, 2, 1, 2, 1]
    assert [row.values["n"] for row in rows_of(plan)] == [orjson.loads(line)["n"] for line in lines]


def test_parquet_shards_also_end_at_a_size(tmp_path: Path) -> None:
    """The size of Parquet rows is taken from the average of their row group."""
    records = [{"text": os.urandom(500).hex()} for _ in range(100)]
    plan = plan_of(write_records(tmp_path / "t.parquet", records, row_group_size=30), shard_bytes=10_500)
    assert {shard.rows for shard in plan.shards[:-1]} <= {9, 10, 11}
    assert sum(shard.rows for shard in plan.shards) == 100


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_line_that_is_too_long_is_a_bad_row_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is counted and passed over, in the plan and by the reader alike."""
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 100)
    text = b'{"n":1}\n{"n":"%s"}\n{"n":3}\n' % (b"x" * 1000)
    plan = plan_of(pack(tmp_path / name, text), rows_per_part=1)
    assert (plan.rows, plan.bad_rows) == (3, 1)
    assert [row.problem for row in rows_of(plan)] == [None, f"{name}:2: longer than 0 MiB", None]
    assert [row.values for row in rows_of(plan, plan.shards[2:])] == [{"n": 3}]


def test_a_bad_row_stops_everything_if_the_job_says_so(tmp_path: Path) -> None:
    """With `on_bad_row: stop` nothing is sent; the message has the place, not the line."""
    path = pack(tmp_path / "t.jsonl", b'{"n":1}\n\n{"secret"\n')
    with pytest.raises(InputError, match=r"t\.jsonl:3: not valid JSON$"):
        plan_of(path, on_bad_row="stop")
    assert plan_of(path).bad_rows == 1


@pytest.mark.parametrize("text", [b"", b"\n \r\n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_an_input_without_rows_is_refused(tmp_path: Path, suffix: str, text: bytes) -> None:
    """A run over nothing is a mistake in the job file; one empty file among others is not."""
    empty = pack(tmp_path / f"empty{suffix}", text)
    with pytest.raises(InputError, match=rf"empty{suffix} is empty"):
        plan_of(empty)
    full = pack(tmp_path / "full.jsonl", b"{}")
    assert plan_of(empty, full).rows == 1
    with pytest.raises(InputError, match="input of 2 files is empty"):
        plan_of(empty, write_records(tmp_path / "none.jsonl", []))


def test_a_text_that_is_not_utf_8_at_all_is_refused(tmp_path: Path) -> None:
    """UTF-16, as some editors write, would be a bad row in every line."""
    path = pack(tmp_path / "t.jsonl", '{"n": 1}\n'.encode("utf-16"))
    with pytest.raises(InputError, match=r"t\.jsonl is UTF-16"):
        plan_of(path)


def test_the_column_of_ids_must_exist(tmp_path: Path) -> None:
    """A misspelt `input.id` shows before anything is sent, with the names there are."""
    path = write_records(tmp_path / "t.jsonl", TICKETS)
    assert plan_of(path, id="id").rows == 25
    with pytest.raises(InputError, match="no column 'ticket'; it has id, text"):
        plan_of(path, id="ticket")


def test_a_file_that_grows_while_it_is_planned_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is still being written has no plan."""
    path = write_records(tmp_path / "t.jsonl", TICKETS)

    def whole_lines_and_more(*arguments: object, **options: int) -> object:
        with path.open("ab") as file:
            file.write(b"{}\n")
        return jsonl.whole_lines(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(scan, "whole_lines", whole_lines_and_more)
    with pytest.raises(InputError, match="changed while"):
        plan_of(path)


def test_values_that_need_exact_reading_decide_about_the_type(tmp_path: Path) -> None:
    """An integer beyond 64 bits in any block makes its column text, and keeps its digits."""
    records: list[Record] = [{"n": n} for n in range(1000)]
    records[700] = {"n": 2**70}
    plan = plan_of(write_records(tmp_path / "t.jsonl", records))
    assert plan.schema.field("n").type == pa.string()
    assert rows_of(plan)[700].values == {"n": 2**70}


def test_a_plan_comes_back_from_json_as_it_was(tmp_path: Path) -> None:
    """The manifest holds all of it."""
    first = write_records(tmp_path / "1.jsonl", TICKETS)
    second = write_records(tmp_path / "2.parquet", [{"when": None, "ok": True}] * 3)
    plan = plan_of(first, second, pack(tmp_path / "3.jsonl", b"bad"), rows_per_part=4)
    back = Plan.from_json(orjson.loads(orjson.dumps(plan.to_json())))
    assert (back.files, back.shards, back.digests) == (plan.files, plan.shards, plan.digests)
    assert (back.schema, back.rows, back.bad_rows) == (plan.schema, 29, 1)
    assert back.same_input(plan) is None


def test_ten_thousand_shards_make_a_small_manifest(tmp_path: Path) -> None:
    """About a hundred bytes a shard: a hundred million rows fit in a megabyte."""
    plan = plan_of(pack(tmp_path / "t.jsonl", b'{"n":1}\n' * 10_000), rows_per_part=1)
    assert len(plan.shards) == 10_000
    assert len(orjson.dumps(plan.to_json())) < 1 << 20


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: value.pop("files"),
        lambda value: value.update(shards=[["abc", 0, 0]]),
        lambda value: value.update(shards=[["abc", 0, 0, "many", 1]]),
        lambda value: value.update(shards=[7]),
        lambda value: value.update(shards=[]),
        lambda value: value.update(schema="%%%"),
        lambda value: value.update(schema="AAAA"),
        lambda value: value.update(files=[["only a path"]]),
    ],
)
def test_a_damaged_plan_is_refused(tmp_path: Path, damage: Callable[[Record], object]) -> None:
    """A manifest that was edited or cut is an error of one kind, not any exception."""
    value = plan_of(write_records(tmp_path / "t.jsonl", TICKETS)).to_json()
    damage(value)
    with pytest.raises(ValueError, match="not a plan"):
        Plan.from_json(value)


def changed_records(position: int) -> list[Record]:
    """The tickets with one character of one row changed."""
    return [{**record, "text": "y" * n} if n == position else record for n, record in enumerate(TICKETS)]


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"a.jsonl": TICKETS}, None),
        ({"a.jsonl": changed_records(0)}, None),  # the text of row 0 is empty in both
        ({"a.jsonl": changed_records(13)}, "a.jsonl changed between rows 10 and 14 (shard 2)"),
        ({"a.jsonl": changed_records(24)}, "a.jsonl changed between rows 20 and 24 (shard 4)"),
        ({"a.jsonl": TICKETS[::-1]}, "a.jsonl changed between rows 0 and 4 (shard 0)"),
        ({"a.jsonl": [*TICKETS, {"id": "new"}]}, "rows were added at the end (25, now 26)"),
        ({"a.jsonl": TICKETS[:20]}, "rows at the end are gone (25, now 20)"),
        ({"a.jsonl": TICKETS[:23]}, "a.jsonl changed between rows 20 and 24 (shard 4)"),
        ({"a.jsonl": TICKETS, "b.jsonl": [{"id": "new"}]}, "b.jsonl is new"),
        ({"c.jsonl": TICKETS[1:]}, "a.jsonl is gone"),
        ({"c.jsonl": TICKETS}, None),
        ({"a.jsonl": TICKETS[:7], "c.jsonl": TICKETS[7:]}, None),
    ],
)
def test_what_changed_in_the_input_is_said_in_words(
    tmp_path: Path, after: dict[str, list[Record]], words: str | None
) -> None:
    """Rows count, not names, times or places: a renamed, moved or split file is the same input."""
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    before = plan_of(write_records(tmp_path / "before/a.jsonl", TICKETS), rows_per_part=5)
    paths = [write_records(tmp_path / "after" / name, records) for name, records in after.items()]
    assert before.same_input(plan_of(*paths, rows_per_part=5)) == words


def test_a_changed_parquet_file_is_another_input(tmp_path: Path) -> None:
    """Every byte of a Parquet file counts, also one that no row shows."""
    path = write_records(tmp_path / "t.parquet", TICKETS)
    before = plan_of(path)
    write_records(path, TICKETS, compression="gzip")
    assert before.same_input(plan_of(path)) == "t.parquet changed between rows 0 and 24 (shard 0)"


def test_a_column_that_is_read_otherwise_is_named(tmp_path: Path) -> None:
    """A version that reads the same bytes as other types must not carry on."""
    plan = plan_of(write_records(tmp_path / "t.jsonl", TICKETS))
    value = plan.to_json()
    value["schema"] = Plan.to_json(plan_of(pack(tmp_path / "o.jsonl", b'{"id":1,"text":"x"}')))["schema"]
    assert plan.same_input(Plan.from_json(value)) == "column 'id' was string, is int64"


def test_the_same_files_need_no_second_look(tmp_path: Path) -> None:
    """Path, size and time decide whether the input is read again."""
    path = write_records(tmp_path / "t.jsonl", TICKETS)
    plan = plan_of(path)
    assert files_unchanged(plan, find_files([path]))
    os.utime(path, ns=(0, 0))
    assert not files_unchanged(plan, find_files([path]))
    assert plan.same_input(plan_of(path)) is None
