"""A part: one schema for all rows, every field of the answer in its column, whole or not there."""

from __future__ import annotations

import getpass
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher import part
from batcher.errors import JobError, StorageError
from batcher.part import RESULT, PartFormat, check_part, write_part
from batcher.records import ApiError, Outcome, Shard, Totals
from tests.fakes import body_of, outcome

CARRIED = pa.schema([("n", pa.int64()), ("text", pa.string())])
FORM = PartFormat(CARRIED, "", "fingerprint-1", "1.2.3")


def columns(first: int, rows: int) -> pa.RecordBatch:
    """The carried columns of some rows."""
    numbers = range(first, first + rows)
    return pa.RecordBatch.from_pydict({"n": list(numbers), "text": [f"text {n}" for n in numbers]}, schema=CARRIED)


def write(path: Path, outcomes: Sequence[Outcome], form: PartFormat = FORM, number: int = 3) -> tuple[Shard, Totals]:
    """Write a part of these outcomes, whose rows follow each other."""
    first = outcomes[0].row_index
    shard = Shard(number, first, len(outcomes), ())
    batches = [columns(first, len(outcomes)).select(form.carried.names)]
    return shard, write_part(path, shard, form, batches, lambda start, end: list(outcomes[start - first : end - first]))


def read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def test_completed_and_failed_rows(tmp_path: Path) -> None:
    """Parts of either kind have one schema: the carried columns and, after them, the result columns in order."""
    names = [*CARRIED.names, *RESULT.names]
    for name, outcomes in {"a": [outcome(0)], "b": [outcome(0, failed="x")], "c": [outcome(0), outcome(1)]}.items():
        write(tmp_path / name, outcomes)
    first, *others = [pq.read_schema(tmp_path / name) for name in "abc"]
    assert all(first.equals(other) for other in others)
    assert first.names == names
    assert first.field("completion").type == pa.string()
    assert first.field("requested_at").type == pa.timestamp("us", tz="UTC")


def test_every_field_of_an_answer(tmp_path: Path) -> None:
    """Each stands in its column, dates in UTC."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 4, "unheard_of": 1},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    message = {"role": "assistant", "content": "Grüße", "reasoning_content": "hm", "tool_calls": [{"id": "t"}]}
    body = body_of(
        id="id-7",
        object="chat.completion",
        created=1_700_000_000,
        model="m-1",
        system_fingerprint="fp",
        usage=usage,
        choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}],
    )
    used = {"prompt_tokens": 10, "completion_tokens": 20, "cost_usd": 0.25}
    given = outcome(41, body=body, attempts=3, latency_s=1.25, requested_at=1_600_000_000.123456, **used)
    write(tmp_path / "p", [given])
    (row,) = read(tmp_path / "p")
    choices, raw = row.pop("choices_raw"), row.pop("usage_raw")
    assert '"tool_calls":[{"id":"t"}]' in choices
    assert '"unheard_of":1' in raw
    prompt_details, completion_details = row.pop("prompt_tokens_details"), row.pop("completion_tokens_details")
    assert {name: count for name, count in prompt_details.items() if count is not None} == {"cached_tokens": 4}
    assert {name: count for name, count in completion_details.items() if count is not None} == {"reasoning_tokens": 5}
    assert row == {
        "n": 41,
        "text": "text 41",
        "row_index": 41,
        "status": "completed",
        "completion": "Grüße",
        "reasoning": "hm",
        "finish_reason": "tool_calls",
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "total_tokens": 30,
        "cost_usd": 0.25,
        "response_id": "id-7",
        "response_object": "chat.completion",
        "response_created": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        "response_model": "m-1",
        "system_fingerprint": "fp",
        "error": None,
        "attempts": 3,
        "latency_s": 1.25,
        "requested_at": datetime(2020, 9, 13, 12, 26, 40, 123456, tzinfo=UTC),
        "job_version": 1,
    }


def test_a_failed_row(tmp_path: Path) -> None:
    """It shows the error and how often it was asked; everything the API counts is null, not 0."""
    error = ApiError("no", "t", "p", "c", 400)
    shard, totals = write(tmp_path / "p", [outcome(5, failed="c", error=error, body=b"{}", ambiguous=2)])
    (row,) = read(tmp_path / "p")
    expected = {"n": 5, "text": "text 5", "row_index": 5, "status": "failed", "attempts": 1, "latency_s": 0.5}
    assert {name: value for name, value in row.items() if value is not None} == expected | {
        "error": {"message": "no", "type": "t", "param": "p", "code": "c", "http_status": 400},
        "requested_at": datetime(1970, 1, 1, 0, 0, 1, 750000, tzinfo=UTC),
        "job_version": 1,
    }
    assert totals == Totals(failed=1, ambiguous=2) == check_part(tmp_path / "p", shard, FORM)


def test_a_failed_row_with_an_answer(tmp_path: Path) -> None:
    """An answer that was not good enough is paid for: it can be read, and what all answers used is counted."""
    used = {"prompt_tokens": 6, "completion_tokens": 10}
    _, totals = write(tmp_path / "p", [outcome(5, failed="unknown_finish_reason", body=body_of("half"), **used)])
    (row,) = read(tmp_path / "p")
    assert (row["status"], row["completion"], row["finish_reason"]) == ("failed", "half", "stop")
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (6, 10, 16)
    assert totals == Totals(failed=1, prompt_tokens=6, completion_tokens=10, unpriced=1)


def test_a_stored_answer_that_is_no_completion(tmp_path: Path) -> None:
    """It becomes a failed row, not an exception that would stop every later run."""
    write(tmp_path / "p", [outcome(0, body=b"<html>")])
    (row,) = read(tmp_path / "p")
    assert (row["status"], row["error"]["code"]) == ("failed", "unreadable")


@pytest.mark.parametrize("created", [-1, 253_402_300_800, 2**62, "soon", None, True])
def test_a_server_that_sends_no_date(tmp_path: Path, created: object) -> None:
    """What is no time of a calendar becomes null."""
    write(tmp_path / "p", [outcome(0, body=body_of(created=created))])
    assert read(tmp_path / "p")[0]["response_created"] is None


def test_totals(tmp_path: Path) -> None:
    """They are the sums over the rows, and the footer says the same."""
    unknown = {"prompt_tokens": None, "completion_tokens": None}
    given = [
        outcome(0, cached_tokens=2, cost_usd=0.5),
        outcome(1, failed="x", ambiguous=1),
        outcome(2, body=body_of(usage=None), ambiguous=1, **unknown),
        outcome(3),
    ]
    shard, totals = write(tmp_path / "p", given)
    assert totals == Totals(3, 1, 2, 6, 10, 2, 0.5, 1) == check_part(tmp_path / "p", shard, FORM)


def test_a_prefix(tmp_path: Path) -> None:
    """It stands before every added column and no other; the part can be checked."""
    form = PartFormat(CARRIED, "b_", "f", "v")
    shard, _ = write(tmp_path / "p", [outcome(0)], form)
    assert pq.read_schema(tmp_path / "p").names == ["n", "text", *(f"b_{name}" for name in RESULT.names)]
    check_part(tmp_path / "p", shard, form)


def test_a_column_that_has_the_name_of_an_added_one() -> None:
    """It is refused with its name and what to do, and a prefix makes it go."""
    carried = pa.schema([("error", pa.string()), ("status", pa.string())])
    with pytest.raises(JobError, match=r"'error', 'status'.*output\.prefix"):
        _ = PartFormat(carried, "", "f", "v").schema
    assert PartFormat(carried, "b_", "f", "v").schema.names[:3] == ["error", "status", "b_row_index"]


def test_no_column_is_carried(tmp_path: Path) -> None:
    """A part may hold result columns only."""
    write(tmp_path / "p", [outcome(0), outcome(1)], replace(FORM, carried=pa.schema([])))
    assert [row["row_index"] for row in read(tmp_path / "p")] == [0, 1]


def test_the_footer(tmp_path: Path) -> None:
    """It names version, run, shard, rows and totals; nothing in the file names path, host or user."""
    write(tmp_path / "part-of-a-secret-folder", [outcome(7)])
    content = (tmp_path / "part-of-a-secret-folder").read_bytes()
    footer = pq.read_metadata(tmp_path / "part-of-a-secret-folder").metadata
    own = {key: value for key, value in footer.items() if key.startswith(b"batcher.")}
    assert own.pop(b"batcher.totals").startswith(b'{"completed":1,')
    assert own == {
        b"batcher.version": b"1.2.3",
        b"batcher.fingerprint": b"fingerprint-1",
        b"batcher.shard": b"3",
        b"batcher.rows": b"1",
        b"batcher.revision": b"0",
    }
    for word in ("secret-folder", platform.node(), str(tmp_path)):
        assert word.encode() not in content
    assert getpass.getuser().encode() not in b"".join(footer.values())


def test_how_a_part_is_written(tmp_path: Path) -> None:
    """zstd, with page index and statistics."""
    write(tmp_path / "p", [outcome(0)])
    column = pq.read_metadata(tmp_path / "p").row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert column.has_offset_index
    assert column.has_column_index


def test_more_than_fits_a_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups are closed at a size, whatever sizes the columns and the outcomes come in; order is kept."""
    monkeypatch.setattr(part, "ROW_GROUP_BYTES", 20_000)
    shard = Shard(0, 100, 60, ())

    def seven_at_most(start: int, end: int) -> list[Outcome]:
        return [outcome(row, body=body_of("x" * 1000)) for row in range(start, min(end, start + 7))]

    write_part(tmp_path / "p", shard, FORM, (columns(first, 20) for first in (100, 120, 140)), seven_at_most)
    metadata = pq.read_metadata(tmp_path / "p")
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert len(sizes) > 1
    assert max(sizes) < 35
    rows = read(tmp_path / "p")
    assert [row["row_index"] for row in rows] == [row["n"] for row in rows] == list(range(100, 160))


def fail(start: int, end: int) -> list[Outcome]:
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    "outcomes, error",
    [
        (fail, OSError),
        (lambda start, end: [], StorageError),
        (lambda start, end: [outcome(start + 1)], StorageError),
        (lambda start, end: [outcome(start), outcome(start)], StorageError),
    ],
    ids=["an error", "none", "another row's", "one twice"],
)
def test_writing_fails(
    tmp_path: Path,
    outcomes: Callable[[int, int], list[Outcome]],
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file is removed, and nothing is left that complains when it is collected."""
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with pytest.raises(error):
        write_part(tmp_path / "p", Shard(0, 0, 3, ()), FORM, [columns(0, 3)], outcomes)
    assert list(tmp_path.iterdir()) == []
    assert [str(one.exc_value) for one in unraisable] == []


def test_fewer_rows_than_the_shard_has(tmp_path: Path) -> None:
    """A part that lacks rows at its end is not written."""
    with pytest.raises(StorageError, match="does not hold the rows"):
        write_part(tmp_path / "p", Shard(0, 0, 3, ()), FORM, [columns(0, 2)], lambda a, b: [outcome(n) for n in (0, 1)])
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_something_else(tmp_path: Path) -> None:
    """Another run's, another shard's and another range of rows are told from the right one."""
    shard, _ = write(tmp_path / "p", [outcome(0), outcome(1)])
    check_part(tmp_path / "p", shard, FORM)
    for wrong in (replace(shard, number=4), replace(shard, first_row=1), replace(shard, rows=1)):
        with pytest.raises(StorageError, match=r"does not (belong|hold)"):
            check_part(tmp_path / "p", wrong, FORM)
    with pytest.raises(StorageError, match="does not belong to this run"):
        check_part(tmp_path / "p", shard, replace(FORM, fingerprint="fingerprint-2"))
    with pytest.raises(StorageError):
        check_part(tmp_path / "missing", shard, FORM)


def test_a_parquet_file_of_somebody_else(tmp_path: Path) -> None:
    """A file without batcher's columns is refused in words."""
    pq.write_table(pa.table({"a": [1]}), tmp_path / "p")
    with pytest.raises(StorageError):
        check_part(tmp_path / "p", Shard(0, 0, 1, ()), FORM)
