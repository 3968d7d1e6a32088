"""Reading a run folder: every row that has an outcome, once, in order, wherever it is at the moment."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher import part
from batcher.errors import InputError, StorageError
from batcher.job import Job
from batcher.journal import Journal
from batcher.part import RESULT
from batcher.records import Totals
from batcher.results import Results
from tests.fakes import begun, make_job, outcome, write_numbers
from tests.runs import answer, finished, publish, record, rows_of, run_rows, table_of


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job over twelve rows in three shards: 0-4, 5-9, 10-11."""
    write_numbers(tmp_path, 12)
    return make_job(tmp_path)


@pytest.fixture
def half(job: Job) -> Iterator[Results]:
    """An unfinished run: shard 1 has its part, rows 0, 2 and 11 are in the journal, row 7 failed."""
    done = [answer(row) if row != 7 else outcome(7, failed="bad") for row in (0, 2, 5, 6, 7, 8, 9, 11)]
    run_rows(job, done, parts=[1])
    with Results.open(job.output.path) as results:
        yield results


def counts(totals: Totals) -> tuple[int, int, int, int]:
    """Rows by status, and tokens."""
    return totals.completed, totals.failed, totals.prompt_tokens, totals.completion_tokens


def test_a_finished_run(tmp_path: Path) -> None:
    """Its rows are those of its parts, value by value."""
    with finished(tmp_path, [{"text": f"t{n}", "n": n} for n in range(12)]) as results:
        assert results.finished
        assert counts(results.totals()) == (12, 0, 36, 60)
        assert [part.path.name for part in results.parts()] == [f"part-0000{n}.parquet" for n in range(3)]
        assert [part.totals.rows for part in results.parts()] == [5, 5, 2]
        expected = pa.concat_tables([pq.read_table(part.path) for part in results.parts()])
        assert table_of(results).equals(expected)
        assert results.schema.equals(expected.schema)
        assert results.carried == ["text", "n"]
        assert results.schema.names == ["text", "n", *RESULT.names]
        assert (results.rows, results.job["model"]) == (12, "some-model")


def test_an_unfinished_run(half: Results) -> None:
    """Published and journalled rows come in row order with all their columns; rows without an outcome are left out."""
    rows = rows_of(half)
    assert [row["row_index"] for row in rows] == [0, 2, 5, 6, 7, 8, 9, 11]
    assert [row["text"] for row in rows] == [f"{row['row_index']} " for row in rows]
    assert [row["completion"] for row in rows if row["row_index"] != 7] == [
        f"answer {row}" for row in (0, 2, 5, 6, 8, 9, 11)
    ]
    assert rows[4]["error"]["code"] == "bad"
    assert all(list(row) == half.schema.names for row in rows)
    assert table_of(half).schema.equals(pq.read_schema(half.parts()[0].path))
    assert not half.finished
    assert counts(half.totals()) == (7, 1, 21, 35)


def test_chosen_columns_and_rows(half: Results) -> None:
    """Only the columns asked for, in that order, of rows in a range or of one status."""
    assert rows_of(half, "completion", "text", first_row=2, end_row=6) == [
        {"completion": "answer 2", "text": "2 "},
        {"completion": "answer 5", "text": "5 "},
    ]
    assert rows_of(half, "row_index", status="failed") == [{"row_index": 7}]
    assert [row["row_index"] for row in rows_of(half, "row_index", status="completed")] == [0, 2, 5, 6, 8, 9, 11]
    assert rows_of(half, "row_index", first_row=3, end_row=5) == []
    assert rows_of(half, "row_index", first_row=11, end_row=10**12) == [{"row_index": 11}]
    with pytest.raises(ValueError, match="no column 'nothing'"):
        rows_of(half, "nothing")


def test_the_input_is_gone(tmp_path: Path, half: Results) -> None:
    """Parts and result columns can still be read; only input columns of rows without a part cannot."""
    (tmp_path / "rows.jsonl").unlink()
    assert [row["row_index"] for row in rows_of(half, "row_index", "completion")] == [0, 2, 5, 6, 7, 8, 9, 11]
    assert [row["text"] for row in rows_of(half, "text", first_row=5, end_row=10)] == ["5 ", "6 ", "7 ", "8 ", "9 "]
    assert rows_of(half, first_row=3, end_row=5) == []
    with pytest.raises(InputError, match=r"rows\.jsonl"):
        rows_of(half)


def test_a_prefix_and_chosen_input_columns(tmp_path: Path) -> None:
    """Names are those of the output: input columns as chosen, added ones behind the prefix."""
    records = [{"status": f"s{n}", "text": "x", "n": n} for n in range(6)]
    output = {"path": "out", "rows_per_part": 4, "prefix": "b_", "columns": ["n", "status"]}
    with finished(tmp_path, records, output=output) as results:
        assert results.carried == ["n", "status"]
        assert results.column("status") == "b_status"
        rows = rows_of(results, "status", "b_status", status="completed")
        assert rows == [{"status": f"s{n}", "b_status": "completed"} for n in range(6)]


def test_a_part_is_published_while_its_rows_are_read(job: Job) -> None:
    """A reader that began in the journal goes on in the part: nothing is missed, repeated or out of order."""
    with begun(job) as run, Results.open(job.output.path) as results:
        record(run, map(answer, range(12)))
        batches = results.batches(["row_index", "text"])
        results._journal.outcomes = lambda *_, real=results._journal.outcomes: real(*_, max_bytes=0)  # type: ignore[method-assign]
        rows = next(batches).to_pylist() + next(batches).to_pylist()
        assert [row["row_index"] for row in rows] == [0, 1]
        for shard in run.plan.shards:
            publish(run, shard.number)
        rows += [row for batch in batches for row in batch.to_pylist()]
    assert rows == [{"row_index": n, "text": f"{n} "} for n in range(12)]


def test_rows_are_being_forgotten_while_they_are_read(job: Job) -> None:
    """A journal that holds only some of a published shard's rows any more is not believed."""
    with begun(job) as run, Results.open(job.output.path) as results:
        record(run, map(answer, range(5)))
        batches = results.batches(["row_index"])
        results._journal.outcomes = lambda *_, real=results._journal.outcomes: real(*_, max_bytes=0)  # type: ignore[method-assign]
        assert next(batches).to_pylist() == [{"row_index": 0}]
        forget = "DELETE FROM outcomes WHERE row_index < 3"
        run.rundir.journal.forget = lambda _: run.rundir.journal._call(lambda db: db.execute(forget))  # type: ignore[method-assign]
        publish(run, 0)
        assert [row["row_index"] for batch in batches for row in batch.to_pylist()] == [1, 2, 3, 4]


def test_a_part_is_published_while_it_is_counted(job: Job) -> None:
    """A shard that moves from the journal to its part between two looks is counted, once."""
    with begun(job) as run, Results.open(job.output.path) as results:
        record(run, map(answer, range(12)))
        ask, moves = results._journal.totals, iter([1, 0])

        def totals(ranges: list[tuple[int, int]]) -> Totals:
            if (number := next(moves, None)) is not None:
                publish(run, number)
            return ask(ranges)

        results._journal.totals = totals  # type: ignore[method-assign, assignment]
        assert counts(results.totals()) == (12, 0, 36, 60)


def test_what_a_crash_left_is_counted_once(job: Job) -> None:
    """Rows that are in a part and, for a crash just then, still in the journal are one row each."""
    with begun(job) as run:
        record(run, map(answer, range(5)))
        run.rundir.journal.forget = lambda _: None  # type: ignore[method-assign]
        publish(run, 0)
    with sqlite3.connect(job.output.path / ".batcher/journal-0.sqlite") as db:
        assert db.execute("SELECT count(*) FROM outcomes").fetchone() == (5,)
    db.close()
    with Results.open(job.output.path) as results:
        assert results.totals().rows == 5
        assert [row["row_index"] for row in rows_of(results, "row_index")] == [0, 1, 2, 3, 4]


def test_a_run_that_holds_its_folder(job: Job) -> None:
    """While a process writes, a reader sees what was committed last, question by question, and stops no commit."""
    with begun(job) as run, Results.open(job.output.path) as results:
        assert (results.totals().rows, rows_of(results)) == (0, [])
        for row in range(5):
            run.rundir.journal.lease([row + 1])
            record(run, [answer(row)])
            assert [one["row_index"] for one in rows_of(results, "row_index")] == list(range(row + 1))
            assert results.totals().completed == row + 1
        run.rundir.journal.lease([6])
        record(run, [])
        run.rundir.journal.release(6, attempts=2, ambiguous=1)
        record(run, [outcome(7, ambiguous=3)])
        assert (results.on_their_way(), results.attempts(5), results.attempts(6)) == (1, 0, 2)
        assert results.totals().ambiguous == 4
        publish(run, 0)
        assert results.totals().completed == 6


def test_a_reader_holds_nothing_back(job: Job) -> None:
    """Between two batches no read is open: the journal's writer can fold the whole log into the file."""
    with begun(job) as run, Results.open(job.output.path) as results:
        record(run, map(answer, range(12)))
        batches = results.batches(["row_index"])
        next(batches)
        record(run, [])
        log = job.output.path / ".batcher/journal-0.sqlite-wal"
        assert log.stat().st_size > 0
        run.rundir.journal._call(lambda db: None)
        busy = sqlite3.connect(job.output.path / ".batcher/journal-0.sqlite", timeout=0)
        assert busy.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        busy.close()
        assert log.stat().st_size == 0


def test_a_finished_folder_is_left_as_it_is(tmp_path: Path) -> None:
    """Reading a finished run creates no file and changes none, not even the times."""
    with finished(tmp_path, [{"text": "t"}] * 7) as results:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert results.totals().rows == len(rows_of(results)) == 7
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_folder_without_a_run(tmp_path: Path, job: Job) -> None:
    """It is said in words; the error is that of an input that cannot be read."""
    for path in (tmp_path / "none", tmp_path, tmp_path / "rows.jsonl"):
        with pytest.raises(InputError, match="holds no run yet"):
            Results.open(path)
    run_rows(job, [])
    manifest = job.output.path / ".batcher/manifest.json"
    content = orjson.loads(manifest.read_bytes())
    manifest.write_bytes(orjson.dumps({**content, "format": 99}))
    with pytest.raises(InputError, match="another version"):
        Results.open(job.output.path)
    for damaged in (
        b"{",
        b"[]",
        b"{}",
        orjson.dumps({**content, "plan": 3}),
        orjson.dumps({**content, "versions": []}),
    ):
        manifest.write_bytes(damaged)
        with pytest.raises(StorageError, match="is not what batcher wrote"):
            Results.open(job.output.path)


@pytest.mark.parametrize("what", ["gone", "torn", "other"])
def test_a_part_that_is_not_what_it_was(job: Job, what: str) -> None:
    """It is named, and its rows are never silently left out."""
    run_rows(job, map(answer, range(12)), parts=[0, 1])
    part, other = (job.output.path / f"part-0000{number}.parquet" for number in (1, 0))
    content = part.read_bytes()
    part.unlink()
    if what == "torn":
        part.write_bytes(content[:-100])
    if what == "other":
        shutil.copy(other, part)
    with Results.open(job.output.path) as results:
        for ask in (results.totals, lambda: rows_of(results, status="failed")):
            with pytest.raises(StorageError, match="part-00001"):
                ask()


def test_a_folder_without_its_journal(job: Job) -> None:
    """Parts alone are enough: a copy of the folder in which the journal is missing reads as far as the parts go."""
    run_rows(job, map(answer, range(12)), parts=[0, 2])
    for path in (job.output.path / ".batcher").glob("journal*"):
        path.unlink()
    with Results.open(job.output.path) as results:
        assert [row["row_index"] for row in rows_of(results, "row_index")] == [0, 1, 2, 3, 4, 10, 11]
        assert results.totals().rows == 7
    assert not list((job.output.path / ".batcher").glob("journal*"))


def test_a_damaged_journal(job: Job) -> None:
    """It is named."""
    run_rows(job, map(answer, range(12)))
    (job.output.path / ".batcher/journal-0.sqlite").write_bytes(os.urandom(8192))
    with Results.open(job.output.path) as results, pytest.raises(StorageError, match=r"journal-0\.sqlite"):
        results.totals()


def test_large_rows_come_in_small_batches(tmp_path: Path) -> None:
    """However large the rows, a batch holds a few MB: memory does not depend on the rows of a shard."""
    write_numbers(tmp_path, 40, "x" * 1_000_000)
    job = make_job(tmp_path, output={"path": "out", "rows_per_part": 20})
    run_rows(job, map(answer, range(40)), parts=[0])
    with Results.open(job.output.path) as results:
        sizes = [batch.nbytes for batch in results.batches()]
    assert len(sizes) >= 8
    assert max(sizes) < 12 << 20


def test_row_groups_without_a_wanted_row_are_passed_over(
    tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks for failed rows, or for one row, does not pay for decoding all the others."""
    monkeypatch.setattr(part, "ROW_GROUP_BYTES", 1)
    monkeypatch.setattr(Journal, "outcomes", lambda *_, real=Journal.outcomes: real(*_, max_bytes=0))
    run_rows(job, [answer(row) if row != 7 else outcome(7, failed="bad") for row in range(12)], parts=[0, 1, 2])
    decoded = []

    def iter_batches(file: pq.ParquetFile, rows: int, groups: list[int], **options: Any) -> Any:
        decoded.append(groups[0])
        return real(file, rows, groups, **options)

    real = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    with Results.open(job.output.path) as results:
        assert [row["row_index"] for row in rows_of(results, "row_index", status="failed")] == [7]
        assert decoded == [2]
        assert [row["row_index"] for row in rows_of(results, "row_index", first_row=9, end_row=11)] == [9, 10]
        assert decoded == [2, 3, 0]  # the failed row, which has no answer, shares a row group with the next
