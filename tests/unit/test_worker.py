"""The worker over a real journal and run folder, with a client that plays a script and a clock that skips waits."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from batcher import pending as pending_module
from batcher.budget import Budget, Reserved
from batcher.errors import EndpointError, EndpointRefusedError
from batcher.records import Outcome, Reply, Totals
from batcher.worker import Worker
from tests.fakes import (
    Begun,
    Impatient,
    ScriptedClient,
    Work,
    begun,
    disconnected,
    good,
    make_job,
    refusal,
    work,
    write_numbers,
)
from tests.harness import table


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries are due at once."""
    monkeypatch.setattr(pending_module, "backoff_s", lambda failures, random, wait_s: 0.0)


def make(folder: Path, rows: int, *, padding: str = "", rows_per_part: int = 5, **limits: Any) -> Any:
    """A run folder over so many numbered rows, as a context."""
    write_numbers(folder, rows, padding)
    output = {"path": "out", "rows_per_part": rows_per_part}
    return begun(make_job(folder, limits={"concurrency": 4, **limits}, output=output))


def outcomes(run: Begun) -> dict[int, Outcome]:
    """What the journal knows of unfinished rows."""
    return {found.row_index: found for found in run.rundir.journal.outcomes(0, run.plan.rows)}


def output(run: Begun) -> list[dict[str, Any]]:
    """All rows of all parts."""
    rows: list[dict[str, Any]] = table(run.job.output.path).to_pylist()
    return rows


def test_rows_that_succeed_fail_and_are_asked_again(tmp_path: Path) -> None:
    """Every row gets exactly one outcome, the answer to its own prompt, in input order."""

    def script(number: int, attempt: int) -> Any:
        if number % 7 == 3:
            return refusal(400, "context_length_exceeded")
        return disconnected() if number % 5 == 0 and attempt == 0 else good(f"answer {number}")

    with make(tmp_path, 53) as run:
        figures = Work(run, client := ScriptedClient(script))
        assert figures() is None
        assert run.rundir.unfinished(run.plan) == []
        rows = output(run)
    assert [row["row_index"] for row in rows] == list(range(53))
    for number, row in enumerate(rows):
        failed = number % 7 == 3
        assert row["completion"] == (None if failed else f"answer {number}")
        assert row["attempts"] == client.asked[number] == (2 if number % 5 == 0 and not failed else 1)
    assert (figures.figures.completed, figures.figures.failed) == (45, 8)


def test_two_errors_and_then_an_answer(tmp_path: Path) -> None:
    """Attempts are counted, and those that may have been paid for are counted as such."""
    with make(tmp_path, 3) as run:
        doing = Work(run, ScriptedClient(lambda number, attempt: good() if attempt == 2 else refusal(500)))
        assert doing() is None
        assert [row["attempts"] for row in output(run)] == [3, 3, 3]
        assert run.rundir.totals().ambiguous == doing.figures.ambiguous == 6
    assert doing.figures.retries == 6


def test_a_row_that_is_out_of_attempts(tmp_path: Path) -> None:
    """After `max_attempts` failures a row fails with the last error."""
    with make(tmp_path, 30, max_attempts=3) as run:  # others are asked after it, and answered
        client = ScriptedClient(lambda number, attempt: refusal(500, "boom") if number == 2 else good())
        assert work(run, client) is None
        row = output(run)[2]
    assert client.asked[2] == 3
    assert (row["status"], row["attempts"], row["error"]["code"]) == ("failed", 3, "boom")


def test_an_error_with_a_tighter_bound(tmp_path: Path) -> None:
    """A code that may be retried twice fails the row at the third time, whatever `max_attempts` says."""
    with make(tmp_path, 30) as run:
        client = ScriptedClient(lambda number, attempt: Reply(200, {}, b"<html>") if number == 2 else good())
        assert work(run, client) is None
        assert output(run)[2]["status"] == "failed"
    assert client.asked[2] == 3


class Held(ScriptedClient):
    """Row 0 is answered last, when `enough` others were."""

    def __init__(self, script: Any, enough: int) -> None:
        super().__init__(script)
        self.enough, self.answered = enough, 0
        self.others_done = anyio.Event()
        self.files: list[str] = []
        self.files_awaited = 0
        self.folder = Path()

    async def under_way(self, number: int) -> None:
        if number == 0:
            await self.others_done.wait()
            while len(self.files) < self.files_awaited:
                await anyio.sleep(0.01)
                self.files = await anyio.to_thread.run_sync(lambda: [p.name for p in self.folder.glob("*.parquet")])
            return
        await super().under_way(number)
        self.answered += 1
        if self.answered == self.enough:
            self.others_done.set()


def test_one_slow_row(tmp_path: Path) -> None:
    """A row without an answer keeps neither later rows from being asked nor later shards from being finished."""
    client = Held(lambda number, attempt: good(), enough=95)
    client.folder, client.files_awaited = tmp_path / "out", 10
    with make(tmp_path, 100) as run:
        assert work(run, client) is None
        assert len(output(run)) == 100
    assert "part-00000.parquet" not in client.files


def test_a_few_rows_all_of_which_are_refused(tmp_path: Path) -> None:
    """Where nothing ever succeeded, even a few refusals are the run's problem: it stops and the rows stay pending."""
    with make(tmp_path, 7) as run:
        assert isinstance(work(run, lambda number, attempt: refusal(400, "odd")), EndpointRefusedError)
        assert run.rundir.unfinished(run.plan)


def test_the_last_rows_are_refused(tmp_path: Path) -> None:
    """Once the endpoint has answered, a few refusals at the end are the rows' own; nothing will come to confirm it."""
    with make(tmp_path, 7) as run:
        assert work(run, lambda number, attempt: refusal(400, "odd") if number > 4 else good()) is None
        assert [row["status"] for row in output(run)] == ["completed"] * 5 + ["failed"] * 2


def test_many_of_the_last_rows_meet_a_broken_endpoint(tmp_path: Path) -> None:
    """An outage at the end of the input is an outage: in the end the run stops, and the rows stay pending."""

    class Looking(ScriptedClient):
        worker: Worker

        async def under_way(self, number: int) -> None:
            await super().under_way(number)
            self.worker.look()

    client = Looking(lambda number, attempt: refusal(500, "broken") if number > 19 else good())
    with make(tmp_path, 60, max_outage_s=3600.0) as run:
        reason = work(run, client, prepare=lambda worker: setattr(client, "worker", worker))
        assert isinstance(reason, EndpointError)
        assert "max_outage_s" in str(reason)
        assert run.rundir.totals().failed == 0


def test_many_rows_that_are_too_long(tmp_path: Path) -> None:
    """Failures that are a row's own stop no run, however many follow each other."""
    with make(tmp_path, 60) as run:
        assert work(run, lambda number, attempt: refusal(400, "context_length_exceeded")) is None
        assert {row["status"] for row in output(run)} == {"failed"}


def test_rows_that_cannot_be_read_or_asked(tmp_path: Path) -> None:
    """They fail without being sent, with the reason, and the others are asked."""
    (tmp_path / "rows.jsonl").write_bytes(b'{"text":"0"}\nnot json\n{"other":1}\n{"text":"3"}\n')
    with begun(make_job(tmp_path)) as run:
        assert work(run, client := ScriptedClient(lambda number, attempt: good())) is None
        rows = output(run)
    assert [row["error"] and row["error"]["code"] for row in rows] == [None, "invalid_row", "row_cannot_be_asked", None]
    assert [row["attempts"] for row in rows] == [1, 0, 0, 1]
    assert sorted(client.sent) == [0, 3]


@pytest.mark.parametrize("padding, most", [(2 << 20, 1), (400 << 10, 2), (0, 4)])
def test_prompts_larger_than_the_bound_on_bytes(tmp_path: Path, padding: int, most: int) -> None:
    """Requests in flight stay within `max_inflight_mb`, except that one larger than it goes alone."""
    with make(tmp_path, 9, padding="x" * padding, max_inflight_mb=1) as run:
        assert work(run, client := ScriptedClient(lambda number, attempt: good())) is None
        assert len(output(run)) == 9
    assert client.most_in_flight == most


@pytest.mark.parametrize("concurrency", [1, 3, 20])
def test_a_pool_of_so_many_slots(tmp_path: Path, concurrency: int) -> None:
    """As many requests are in flight as the job allows, and never more."""
    with make(tmp_path, 200, rows_per_part=50, concurrency=concurrency) as run:
        assert work(run, client := ScriptedClient(lambda number, attempt: good())) is None
    assert client.most_in_flight == concurrency


class LeaseReader(ScriptedClient):
    """Reads in the journal's file, at the moment a request is sent, whether its row is leased."""

    def __init__(self, folder: Path) -> None:
        super().__init__(lambda number, attempt: good() if attempt else disconnected())
        self.database = f"file:{folder}/out/.batcher/journal-0.sqlite?mode=ro"
        self.leases: list[object] = []

    async def under_way(self, number: int) -> None:
        self.leases.append(await anyio.to_thread.run_sync(self._lease_of, number))

    def _lease_of(self, number: int) -> object:
        db = sqlite3.connect(self.database, uri=True)
        try:
            return db.execute("SELECT leased FROM attempts WHERE row_index = ?", (number,)).fetchone()
        finally:
            db.close()


def test_the_journal_at_the_moment_of_sending(tmp_path: Path) -> None:
    """A request is sent, first or again, only when its lease is committed for every reader to see."""
    with make(tmp_path, 30) as run:
        assert work(run, client := LeaseReader(tmp_path)) is None
    assert client.leases == [(1,)] * 60


class SlowFirst(ScriptedClient):
    """Row 0 takes longer than the others."""

    async def under_way(self, number: int) -> None:
        await anyio.sleep(0.3 if number else 1)


def test_a_row_that_the_endpoint_never_has_room_for(tmp_path: Path) -> None:
    """A row refused fifty times while others succeed fails; refusals use up no attempts before that."""
    with make(tmp_path, 1000, rows_per_part=100) as run:
        client = SlowFirst(lambda number, attempt: refusal(503) if number == 0 else good())
        assert work(run, client, random=Impatient(1)) is None
        row, *others = output(run)
    assert row["status"] == "failed"
    assert 50 <= row["attempts"] < 150, "a refusal counts if something succeeded since the request was sent"
    assert {other["status"] for other in others} == {"completed"}


def test_an_outage_in_the_middle(tmp_path: Path) -> None:
    """While nothing succeeds no row fails for it, however often it is refused."""
    calls = iter(range(10_000))
    with make(tmp_path, 30) as run:
        script = ScriptedClient(lambda number, attempt: refusal(503) if 10 <= next(calls) < 60 else good())
        assert Work(run, script, most_readings=5_000)() is None
        assert run.rundir.unfinished(run.plan) == []
        assert {row["status"] for row in output(run)} == {"completed"}


def test_a_pause_while_rows_are_overdue(tmp_path: Path) -> None:
    """The worker sleeps until the limiter lets a request through; it does not look again and again."""
    calls = iter(range(10_000))
    with make(tmp_path, 30) as run:
        script = ScriptedClient(lambda number, attempt: refusal(503) if 10 <= next(calls) < 40 else good())
        doing = Work(run, script, most_readings=5_000)
        doing()
    assert doing.readings < 1_000


def test_a_row_that_is_due_waits_without_a_busy_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is due while the budget waits for an answer does not make the worker look every millisecond."""

    monkeypatch.setattr(pending_module, "backoff_s", lambda failures, random, wait_s: 1.0)

    class OneAtATime(Budget):
        def reserve(self, prompt_bytes: int) -> Reserved | None:
            return None if client.in_flight else super().reserve(prompt_bytes)

    class Slow(ScriptedClient):
        async def under_way(self, number: int) -> None:
            await anyio.sleep(10.0 if number == 2 else 0.01)

    client = Slow(lambda row, attempt: refusal(500) if (row, attempt) == (1, 0) else good())

    def prepare(worker: Worker) -> None:
        worker._budget = OneAtATime(None, None, None, Totals(), None)

    write_numbers(tmp_path, 4)
    with begun(make_job(tmp_path, limits={"concurrency": 2})) as run:
        looking = Work(run, client, prepare=prepare)
        assert looking() is None
    assert sorted(client.sent) == [0, 1, 1, 2, 3]
    assert looking.readings < 1000
