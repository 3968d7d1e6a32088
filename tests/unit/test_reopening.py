"""Asking rows again: which ones, what becomes of the others, and what a crash leaves at every step."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import orjson
import pyarrow.parquet as pq
import pytest

from batcher.durable import replace_with
from batcher.errors import EndpointRefusedError, StorageError
from batcher.job import Job
from batcher.plan import make_plan
from batcher.progress import Figures
from batcher.records import ApiError, Outcome, Reply
from batcher.reopening import Choice, Retry
from batcher.results import Results
from batcher.rundir import RunDir
from batcher.shard import OpenShard
from batcher.source import find_files
from batcher.worker import Worker
from tests.fakes import Begun, ScriptedClient, begun, body_of, good, make_job, outcome, refusal, work, write_numbers
from tests.runs import answer, rows_of, run_rows

#: failed in the first round of `first_round`, and cut off in it
FAILED, CUT_OFF = {1: "content_filter", 2: "context_length_exceeded", 7: "content_filter"}, {3, 11}


def cut_off(content: str = "half an ans") -> Reply:
    """An answer that was cut off by `max_tokens`."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "length"}
    return Reply(200, {}, body_of(choices=[choice]))


def first_answer(number: int, attempt: int) -> Reply:
    """Three failures, two answers that are cut off, seven good ones."""
    if number in FAILED:
        return refusal(400, FAILED[number])
    return cut_off() if number in CUT_OFF else good(f"first {number}")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A finished run of twelve rows in three shards, some of which failed or were cut off."""
    write_numbers(tmp_path, 12)
    job = make_job(tmp_path)
    with begun(job) as run:
        assert work(run, first_answer) is None
    return job


def reopened(run: Begun, **which: Any) -> str:
    """Reopen the chosen rows, and return what is said about them."""
    choice = Choice(Retry(**which), run.rundir, run.plan)
    run.rundir.reopen(choice.reopenings)
    return choice.words()


def again(job: Job, script: Callable[[int, int], Reply], **which: Any) -> list[int]:
    """Ask the chosen rows again; return which rows were sent."""
    with begun(job) as run:
        reopened(run, **which)
        client = ScriptedClient(script)
        assert work(run, client) is None
        assert run.rundir.unfinished(run.plan) == []
    return sorted(client.sent)


def rows(job: Job, *columns: str, **options: Any) -> list[dict[str, Any]]:
    """The rows as a reader sees them."""
    with Results.open(job.output.path) as results:
        return rows_of(results, *columns, **options)


def agreeing(job: Job) -> None:
    """Assert that parts, footers, journal and readers come to the same sums."""
    found = rows(job)
    with begun(job) as run:
        own = run.rundir.totals()
    with Results.open(job.output.path) as results:
        assert results.totals() == own
    assert own.completed == sum(row["status"] == "completed" for row in found)
    assert own.failed == sum(row["status"] == "failed" for row in found)
    assert own.prompt_tokens == sum(row["prompt_tokens"] or 0 for row in found)
    assert own.completion_tokens == sum(row["completion_tokens"] or 0 for row in found)
    assert own.later_versions.get("2", 0) == sum(row["job_version"] == 2 for row in found)


def test_failed_rows_are_asked_again(job: Job) -> None:
    """Only they are sent; in their parts everything else is as it was, and other parts are not touched."""
    before = rows(job)
    untouched = (job.output.path / "part-00002.parquet").stat()
    assert again(job, lambda number, attempt: good(f"second {number}")) == sorted(FAILED)
    after = rows(job)
    assert [row["status"] for row in after] == ["completed"] * 12
    for old, new in zip(before, after, strict=True):
        if new["row_index"] in FAILED:
            assert (new["completion"], new["error"], new["attempts"]) == (f"second {new['row_index']}", None, 2)
            assert new["text"] == old["text"]
        else:
            assert new == old
    assert (job.output.path / "part-00002.parquet").stat() == untouched
    agreeing(job)


@pytest.mark.parametrize(
    ("which", "sent"),
    [
        ({"only": ("content_filter",)}, [1, 7]),
        ({"only": ("context_length_exceeded", "content_filter")}, [1, 2, 7]),
        ({"only": ("400",)}, [1, 2, 7]),
        ({"only": ("500",)}, []),
        ({"failed": False, "truncated": True}, [3, 11]),
        ({"truncated": True}, [1, 2, 3, 7, 11]),
        ({"only": ("content_filter",), "truncated": True}, [1, 3, 7, 11]),
    ],
)
def test_which_rows(job: Job, which: dict[str, Any], sent: list[int]) -> None:
    """Failed ones, those with a code or status, cut-off ones, or both."""
    assert again(job, lambda number, attempt: good(), **which) == sent
    agreeing(job)


def test_what_is_said(job: Job) -> None:
    """How many rows are asked again; of a code that no row shows, which ones there are."""
    with begun(job) as run:
        assert reopened(run, only=("tiemout",)) == (
            "nothing to ask again: no row failed as wanted; no row failed with tiemout;"
            " failed rows with other codes: content_filter (2), context_length_exceeded (1)"
        )
        assert not (job.output.path / ".batcher/reopened").exists()
        assert reopened(run, truncated=True) == "asking 3 failed rows and 2 cut-off rows again"
    again(job, lambda number, attempt: good())
    with begun(job) as run:
        assert reopened(run) == "nothing to ask again: no row failed"


def test_a_row_that_fails_again(job: Job) -> None:
    """It is failed for the new reason, and has used what all rounds used."""
    assert again(job, lambda number, attempt: refusal(400, "request_too_large"), only=("content_filter",)) == [1, 7]
    found = rows(job, "row_index", "error", "attempts", status="failed")
    assert [(row["row_index"], row["error"]["code"], row["attempts"]) for row in found] == [
        (1, "request_too_large", 2),
        (2, "context_length_exceeded", 1),
        (7, "request_too_large", 2),
    ]
    agreeing(job)
    assert again(job, lambda number, attempt: good(), only=("request_too_large",)) == [1, 7]
    assert [row["attempts"] for row in rows(job, "attempts")] == [1, 3, 1, 1, 1, 1, 1, 3, 1, 1, 1, 1]


def test_a_cut_off_row_that_fails_keeps_its_answer(job: Job) -> None:
    """It was paid for: the row stays completed, with the tokens and attempts of both rounds."""
    before, figures = rows(job), Figures()
    with begun(job) as run:
        reopened(run, failed=False, truncated=True)
        client = ScriptedClient(lambda number, attempt: refusal(400, "content_filter"))
        assert work(run, client, figures=figures) is None
    assert sorted(client.sent) == [3, 11]
    assert (figures.completed, figures.failed) == (9, 3)
    for old, new in zip(before, rows(job), strict=True):
        assert new == {**old, "attempts": 2 if new["row_index"] in CUT_OFF else 1}
    agreeing(job)


def test_tokens_and_cost_of_all_rounds_count(job: Job) -> None:
    """A cut-off row that is answered again has used both answers; no sum ever shrinks."""
    with begun(job) as run:
        before = run.rundir.totals()
        reopened(run, truncated=True)
        meanwhile = run.rundir.totals()
        assert (meanwhile.completed, meanwhile.failed) == (before.completed - 2, before.failed - 3)
        assert meanwhile.completion_tokens == before.completion_tokens
        assert work(run, lambda number, attempt: good()) is None
        after = run.rundir.totals()
    assert after.completion_tokens == before.completion_tokens + 5 * 5
    assert [row["completion_tokens"] for row in rows(job, "completion_tokens")] == [5, 5, 5, 10, *[5] * 7, 10]
    assert [row["total_tokens"] for row in rows(job, "total_tokens")][3] == 16
    agreeing(job)


def test_rows_that_fail_as_before_are_no_outage(tmp_path: Path) -> None:
    """However many fail again in the same way while none succeeds: they fail, and the run comes to its end."""
    write_numbers(tmp_path, 120)
    job = make_job(tmp_path, output={"path": "out", "rows_per_part": 100})
    kinds = [(500, "server_error"), (400, "invalid_request_error"), (403, "no")]

    def earlier(row: int) -> Outcome:
        status, code = kinds[row % 3]
        error = ApiError("no", code=code, http_status=status)
        return answer(row) if row % 4 == 0 else outcome(row, failed=code, error=error)

    run_rows(job, map(earlier, range(120)), [0, 1])
    clocks: list[tuple[Callable[[], float], float]] = []

    def note(worker: Worker) -> None:
        clock = asyncio.get_running_loop().time
        clocks.append((clock, clock()))

    with begun(job) as run:
        reopened(run)
        client = ScriptedClient(lambda number, attempt: refusal(*kinds[number % 3]))
        assert work(run, client, prepare=note) is None
        assert run.rundir.unfinished(run.plan) == []
    assert sorted(client.asked) == [row for row in range(120) if row % 4]
    ((clock, began_s),) = clocks
    assert clock() - began_s < 600, "it waited for the endpoint to come back"
    assert len(rows(job, "row_index", status="failed")) == 90
    agreeing(job)


def test_rows_that_fail_otherwise_are_the_runs_problem(tmp_path: Path) -> None:
    """A new refusal of every row stops the retry: the rows stay as they were, and wait."""
    write_numbers(tmp_path, 300)
    job = make_job(tmp_path, output={"path": "out", "rows_per_part": 100})
    with begun(job) as run:
        assert work(run, lambda number, attempt: cut_off()) is None
        before = rows(job)
        reopened(run, truncated=True)
        reason = work(run, lambda number, attempt: refusal(400, "invalid_request_error"))
        assert isinstance(reason, EndpointRefusedError)
        assert len(run.rundir.unfinished(run.plan)) == 3
    assert rows(job) == before


def test_readers_meanwhile(job: Job) -> None:
    """A row is what its part says until it has a newer outcome; none is shown twice, none is missing, sums agree."""
    before = rows(job)
    with begun(job) as run, Results.open(job.output.path) as results:
        reopened(run, truncated=True)
        assert rows_of(results) == before
        assert results.asked_again() == 5
        assert (results.totals().completed, results.totals().failed) == (9, 3)
        assert not results.finished
        script: dict[int, Reply] = {1: good("better"), 3: refusal(400, "content_filter")}
        feed_only(run, ScriptedClient(lambda number, attempt: script[number]), {1, 3})
        now = rows_of(results)
        assert results.asked_again() == 3
        assert [row["row_index"] for row in now] == list(range(12))
        assert (now[1]["completion"], now[1]["status"]) == ("better", "completed")
        assert (now[3]["completion"], now[3]["status"]) == ("half an ans", "completed")
        assert [row["row_index"] for row in rows_of(results, status="failed")] == [2, 7]
        totals = results.totals()
        assert (totals.completed, totals.failed) == (10, 2)
        assert totals.prompt_tokens == sum(row["prompt_tokens"] or 0 for row in now)
        own = run.rundir.totals()
        assert (own.completed, own.failed) == (9, 0)  # those without a newer outcome are not done


def feed_only(run: Begun, client: ScriptedClient, wanted: set[int]) -> None:
    """Ask some of the reopened rows, so that their outcomes are in the journal and no part is written."""
    shard = next(one for one in run.rundir.unfinished(run.plan) if one.number == 0)
    real = run.rundir.unfinished
    run.rundir.unfinished = lambda plan: [replace(shard, only=frozenset(wanted))]  # type: ignore[method-assign]
    try:
        assert work(run, client) is None
    finally:
        run.rundir.unfinished = real  # type: ignore[method-assign]


def test_a_retry_that_stopped_is_carried_on(job: Job) -> None:
    """What was reopened and not asked is asked by the next run, whatever it was started with; and nothing else."""
    with begun(job) as run:
        reopened(run)
        feed_only(run, ScriptedClient(lambda number, attempt: good("early")), {1})
    with begun(job) as run:
        assert [shard.number for shard in run.rundir.unfinished(run.plan)] == [0, 1]
        assert work(run, client := ScriptedClient(lambda number, attempt: good("late"))) is None
    assert sorted(client.sent) == [2, 7]
    assert [rows(job, "completion")[n]["completion"] for n in (1, 2, 7)] == ["early", "late", "late"]
    assert not (job.output.path / ".batcher/reopened").exists()
    agreeing(job)


class Slow(ScriptedClient):
    """Takes its time."""

    async def under_way(self, number: int) -> None:
        """See `ScriptedClient`."""
        await anyio.sleep(5)


def test_few_rows_of_many_parts_are_asked_at_once(tmp_path: Path) -> None:
    """A part of which one row is asked again takes up no more of the window than that row."""
    write_numbers(tmp_path, 400)
    job = make_job(tmp_path, output={"path": "out", "rows_per_part": 10}, limits={"concurrency": 30})
    failed = range(0, 400, 10)
    run_rows(job, [outcome(n, failed="x") if n in failed else answer(n) for n in range(400)], range(40))
    with begun(job) as run:
        reopened(run)
        run.job = make_job(tmp_path, output={"path": "out", "rows_per_part": 10_000}, limits={"concurrency": 30})
        client = Slow(lambda number, attempt: good())
        assert work(run, client) is None
    assert sorted(client.sent) == list(failed)
    assert client.most_in_flight > 3


class Died(BaseException):
    """The process is gone."""


@contextmanager
def dying_at(monkeypatch: pytest.MonkeyPatch, step: str) -> Iterator[None]:
    """Die at a step of the replacement of the first part."""
    real = RunDir._note_part

    def noting(self: RunDir, *arguments: Any) -> None:
        if step == "before it is noted":
            raise Died
        if step == "before its rows are forgotten":
            monkeypatch.setattr(self.journal, "forget", dies)
        real(self, *arguments)

    def dies(*arguments: Any) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "_note_part", noting)
        if step == "before it is in place":
            patch.setattr("batcher.rundir.replace_with", dies)
        yield


@pytest.mark.parametrize("step", ["before it is in place", "before it is noted", "before its rows are forgotten"])
def test_a_crash_at_each_step_of_the_replacement(job: Job, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Old or new, the part in place is a whole one; the next start knows which, and asks no row twice."""
    folder, copy = job.output.path, job.output.path.with_name("copy")
    with begun(job) as run:
        reopened(run, only=("content_filter",))
        shard = run.plan.shards[0]
        feed_only(run, ScriptedClient(lambda number, attempt: good("second")), {1})
        with dying_at(monkeypatch, step), pytest.raises(Died):
            OpenShard(shard, run.rundir).finish()
        shutil.copytree(folder, copy)  # as the disk was at that moment
    shutil.rmtree(folder)
    copy.rename(folder)
    assert [row["row_index"] for row in rows(job, "row_index")] == list(range(12))
    assert rows(job, "completion")[1]["completion"] == "second"
    with begun(job) as run:
        assert work(run, client := ScriptedClient(lambda number, attempt: good("third"))) is None
        part = run.rundir.part_of(shard)
        assert part is not None
        assert part.revision == 1
    assert client.sent == [7]
    assert rows(job, "completion")[1]["completion"] == "second"
    assert pq.read_metadata(folder / "part-00000.parquet").metadata[b"batcher.revision"] == b"1"
    agreeing(job)


def test_a_reopened_part_that_somebody_changed(job: Job) -> None:
    """What is neither the old part nor the new one is refused."""
    with begun(job) as run:
        reopened(run)
    path = job.output.path / "part-00000.parquet"
    path.write_bytes(path.read_bytes() + path.read_bytes())
    with pytest.raises(StorageError, match=r"part-00000\.parquet is changed"), begun(job):
        pass


def test_replacing_a_file(tmp_path: Path) -> None:
    """The name goes from the old file to the new one; whoever has the old one open reads it to its end."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    with old.open("rb") as reader:
        replace_with(new, old)
        assert reader.read() == b"old"
    assert old.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["old"]  # noqa: PTH208


def test_a_row_that_cannot_be_asked_keeps_its_sums(tmp_path: Path, job: Job) -> None:
    """A changed template may not work for it; what the row had used is not forgotten."""
    changed = make_job(tmp_path, prompt="{{ text + 1 }}")
    plan = make_plan(job, find_files(job.input.path))
    with RunDir.open(job.output.path) as rundir:
        rundir.begin(changed, plan, "all")
        run = Begun(changed, plan, rundir)
        reopened(run, only=("content_filter",))
        assert work(run, client := ScriptedClient(lambda number, attempt: good())) is None
    assert client.sent == []
    failed = rows(changed, "error", "attempts", "job_version", status="failed")
    assert [(row["error"]["code"], row["attempts"], row["job_version"]) for row in failed] == [
        ("row_cannot_be_asked", 1, 2),
        ("context_length_exceeded", 1, 1),
        ("row_cannot_be_asked", 1, 2),
    ]


def test_the_sums_of_a_renewed_part_are_those_of_its_rows(job: Job) -> None:
    """The footer is what somebody else would add up."""
    again(job, lambda number, attempt: good(), truncated=True)
    path = job.output.path / "part-00000.parquet"
    footer = orjson.loads(pq.read_metadata(path).metadata[b"batcher.totals"])
    table = pq.read_table(path)
    assert footer["completion_tokens"] == sum(table["completion_tokens"].to_pylist())
    assert footer["completed"] == table["status"].to_pylist().count("completed")
    assert footer["unpriced"] == 5
