"""How a worker ends before its work is done, and what the next one finds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from batcher import part as part_module
from batcher import shard as shard_module
from batcher.engines import crew
from batcher.errors import (
    AccountError,
    BatcherError,
    BudgetError,
    EndpointError,
    EndpointRefusedError,
    InputError,
    StorageError,
)
from batcher.records import Reply
from batcher.settling import OVERLOADED_AT_THE_END_S
from batcher.worker import Worker
from tests.fakes import ScriptedClient, Work, begun, disconnected, good, outcome, refusal, work
from tests.unit.test_worker import Held, make, outcomes, output


def test_a_refused_key_while_others_are_in_flight(tmp_path: Path) -> None:
    """After three probes the run stops; refused rows are pending again, the answers of the others are kept."""
    client = Held(lambda number, attempt: refusal(401) if number >= 3 else good(), enough=3)
    with make(tmp_path, 40, rows_per_part=100) as run:
        assert isinstance(work(run, client), AccountError)
        assert set(outcomes(run)) == {0, 1, 2}
        assert set(run.rundir.journal.attempts()) == set(client.sent) - {0, 1, 2}
        assert run.rundir.journal.recover() == 0, "a row is still leased"
    assert len(client.sent) <= 3 + 4 + 3, "those in flight and three probes"


def test_a_key_that_is_exchanged(tmp_path: Path) -> None:
    """A key that is refused for a while costs no row anything: the refused ones are asked again once it is accepted."""
    refused: list[int] = []

    def script(number: int, attempt: int) -> Reply:
        if len(client.sent) > 10 and len(refused) < 5:
            refused.append(number)
            return refusal(401)
        return good()

    client = ScriptedClient(script)
    with make(tmp_path, 40) as run:
        assert work(run, client) is None
        assert {row["status"] for row in output(run)} == {"completed"}
    assert len(refused) == 5


@pytest.mark.parametrize("number", [5, 39])
@pytest.mark.parametrize("status", [403, 404, 302])
def test_a_row_that_a_firewall_refuses(tmp_path: Path, number: int, status: int) -> None:
    """A refusal that could concern every row fails only its own, in the middle or at the end, if the others succeed."""
    client = ScriptedClient(lambda row, attempt: refusal(status) if row == number else good())
    with make(tmp_path, 40) as run:
        assert work(run, client) is None
        assert [row["row_index"] for row in output(run) if row["status"] == "failed"] == [number]
    assert client.asked[number] == 1


def test_a_model_that_is_withdrawn(tmp_path: Path) -> None:
    """When every row is refused from some moment on, the run stops at once and the refused rows stay pending."""
    client = ScriptedClient(lambda row, attempt: refusal(404, "model_not_found") if row >= 20 else good())
    with make(tmp_path, 60, rows_per_part=100) as run:
        assert isinstance(work(run, client), EndpointRefusedError)
        assert set(outcomes(run)) == set(range(20))
    assert len(client.sent) <= 20 + 4 + 3


def test_an_outage_of_server_errors(tmp_path: Path) -> None:
    """While every attempt ends with a 500, rows that run out of attempts are excused once something succeeds."""
    failures: list[int] = []

    def script(number: int, attempt: int) -> Reply:
        if len(client.sent) > 30 and len(failures) < 90:
            failures.append(number)
            return refusal(500)
        return good()

    client = ScriptedClient(script)
    with make(tmp_path, 80, max_attempts=2) as run:
        assert work(run, client) is None
        assert {row["status"] for row in output(run)} == {"completed"}
    assert len(failures) == 90


def test_a_short_outage_at_the_end(tmp_path: Path) -> None:
    """The last rows, with no other left to succeed, are asked on for a minute; then failures are believed."""
    started: list[float] = []

    def script(number: int, attempt: int, outage_s: float) -> Reply:
        now = asyncio.get_running_loop().time()
        if number < 36:
            return good()
        started.append(now)
        return refusal(500) if now < started[0] + outage_s else good()

    for outage_s, failed in ((30.0, 0), (1e9, 4)):
        folder = tmp_path / str(outage_s)
        folder.mkdir()
        started.clear()
        client = ScriptedClient(partial(script, outage_s=outage_s))
        with make(folder, 40, max_attempts=2) as run:
            assert work(run, client) is None
            assert sum(row["status"] == "failed" for row in output(run)) == failed


def test_last_rows_that_the_endpoint_cannot_bear(tmp_path: Path) -> None:
    """One row that gets nothing but 503 after all others succeeded fails in the end; an outage of minutes is no such.

    Where it is more than two rows it is the endpoint: they are asked for as long as anybody waits.
    """
    asked_at_s: list[float] = []

    def script(number: int, attempt: int, bad: int, outage_s: float) -> Reply:
        if number < 40 - bad:
            return good()
        asked_at_s.append(asyncio.get_running_loop().time())
        return refusal(503) if asked_at_s[-1] < asked_at_s[0] + outage_s else good()

    for bad, outage_s, failed in ((1, 600.0, 0), (1, 1e9, 1), (2, 1e9, 2), (3, 1e9, 0)):
        folder = tmp_path / f"{bad}-{outage_s}"
        folder.mkdir()
        asked_at_s.clear()
        client = ScriptedClient(partial(script, bad=bad, outage_s=outage_s))
        with make(folder, 40) as run:
            assert work(run, client, most_readings=1_500) is None
            assert run.rundir.totals().failed == failed
        assert (asked_at_s[-1] - asked_at_s[0] < 2 * OVERLOADED_AT_THE_END_S) == (bad < 3)


def test_a_run_that_loses_too_many_answers(tmp_path: Path) -> None:
    """Attempts that may have been paid for in vain stop a run when they are many for the rows it completes."""
    client = ScriptedClient(lambda row, attempt: good() if attempt or row % 2 else disconnected())
    with make(tmp_path, 1000, max_unsure_share=0.1) as run:
        reason = work(run, client)
        assert isinstance(reason, EndpointError)
        assert "limits.max_unsure_share" in str(reason)
        assert run.rundir.journal.recover() == 0
        assert 100 < run.rundir.totals().ambiguous < 300


def test_a_part_that_finds_no_room(tmp_path: Path) -> None:
    """It is written again until there is room; rows are asked meanwhile, and nothing is asked twice."""
    refusals = 3
    real = part_module.write_part

    def full(*given: Any) -> Any:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*given)

    client = ScriptedClient(lambda row, attempt: good())
    with pytest.MonkeyPatch.context() as patch, make(tmp_path, 40) as run:
        patch.setattr(shard_module, "write_part", full)
        assert work(run, client) is None
        assert len(output(run)) == 40
    assert max(client.asked.values()) == 1


def test_a_part_that_never_finds_room(tmp_path: Path) -> None:
    """After `limits.max_full_disk_s` the run ends with the storage error, and the answers are in the journal."""

    def full(*given: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch, make(tmp_path, 40) as run:
        patch.setattr(shard_module, "write_part", full)
        reason = work(run, client := ScriptedClient(lambda row, attempt: good()))
        assert isinstance(reason, StorageError)
        assert "No space left" in str(reason)
        assert set(outcomes(run)) == set(client.sent)


def test_time_that_is_over(tmp_path: Path) -> None:
    """After `limits.max_runtime_s` nothing more is sent; what is in flight is awaited."""

    class Slow(ScriptedClient):
        async def under_way(self, number: int) -> None:
            await anyio.sleep(1.0)
            self.worker.look()

        worker: Worker

    client = Slow(lambda row, attempt: good())
    with make(tmp_path, 40, max_runtime_s=2.5, rows_per_part=100) as run:
        reason = work(run, client, prepare=lambda worker: setattr(client, "worker", worker))
        assert isinstance(reason, BudgetError)
        assert reason.exit_code == 75
        assert set(outcomes(run)) == set(client.sent)
    assert 0 < len(client.sent) < 40


def test_every_row_is_refused(tmp_path: Path) -> None:
    """Failures that no success vouches for stop the run, and every row stays pending."""
    with make(tmp_path, 100) as run:
        client = ScriptedClient(lambda number, attempt: refusal(400, "unsupported_value"))
        reason = work(run, client)
        assert isinstance(reason, EndpointRefusedError)
        assert "unsupported_value" in str(reason)
        assert outcomes(run) == {}
        assert run.rundir.journal.recover() == 0
        assert set(run.rundir.journal.attempts()) == set(client.sent)
    assert 20 <= len(client.sent) <= 24, "twenty failures and what was in flight beside them"


def test_stopped_from_outside(tmp_path: Path) -> None:
    """Nothing more is sent, what is in flight is awaited and kept, no row stays leased, and the reason comes back."""
    reason = BatcherError("enough")

    class Stopping(ScriptedClient):
        worker: Worker

        async def under_way(self, number: int) -> None:
            await super().under_way(number)
            if number == 10:
                self.worker.stop(reason)

    client = Stopping(lambda number, attempt: good())
    with make(tmp_path, 60, rows_per_part=100) as run:
        assert work(run, client, prepare=lambda worker: setattr(client, "worker", worker)) is reason
        assert set(outcomes(run)) == set(client.sent)
        assert run.rundir.journal.recover() == 0
    assert len(client.sent) <= 14


def test_stopped_at_once(tmp_path: Path) -> None:
    """Without waiting, rows in flight stay leased, so that the next run counts exactly them as unsure."""

    class Leaving(ScriptedClient):
        worker: Worker

        async def under_way(self, number: int) -> None:
            if number == 20:
                self.worker.stop_now()
            await anyio.sleep(0.01 if number < 20 else 1e6)

    client = Leaving(lambda number, attempt: good())
    with make(tmp_path, 60, rows_per_part=100) as run:
        work(run, client, prepare=lambda worker: setattr(client, "worker", worker))
        saved = set(outcomes(run))
    with begun(run.job) as again:
        left = set(range(60)) - saved
        assert set(client.sent) - saved <= set(again.rundir.journal.attempts()) <= left
        assert again.rundir.orphaned == len(again.rundir.journal.attempts())
        assert work(again, second := ScriptedClient(lambda number, attempt: good())) is None
        assert set(second.sent) == left


def test_an_unsure_attempt_of_an_earlier_run(tmp_path: Path) -> None:
    """It is counted once: in the figures at the start, in the row's attempts, and in the totals at the end."""
    with make(tmp_path, 4) as run:
        run.rundir.journal.lease([1, 2])
    with begun(run.job) as again:
        doing = Work(again, ScriptedClient(lambda number, attempt: good()))
        assert doing() is None
        assert [row["attempts"] for row in output(again)] == [1, 2, 2, 1]
        assert again.rundir.totals().ambiguous == 2
        assert doing.figures.ambiguous == 2


def test_the_journal_breaks(tmp_path: Path) -> None:
    """The run ends at once with the storage's error, though requests are in flight."""

    class Breaking(ScriptedClient):
        async def under_way(self, number: int) -> None:
            if number == 10:
                await anyio.to_thread.run_sync(self._drop)
            await super().under_way(number)

        def _drop(self) -> None:
            db = sqlite3.connect(tmp_path / "out/.batcher/journal-0.sqlite", isolation_level=None)
            db.execute("DROP TABLE attempts")
            db.close()

    client = Breaking(lambda number, attempt: good())
    with pytest.raises(StorageError), make(tmp_path, 100) as run:
        assert isinstance(work(run, client), StorageError)
    assert len(client.sent) < 100


def test_what_is_in_flight_while_the_journal_breaks(tmp_path: Path) -> None:
    """It is awaited and saved elsewhere: the next run has it, calls nothing unsure, and asks only the rest."""

    class Breaking(ScriptedClient):
        async def under_way(self, number: int) -> None:
            if number == 10:
                await anyio.to_thread.run_sync(self._break)
            await super().under_way(number)

        def _break(self) -> None:
            def fail(db: sqlite3.Connection) -> None:
                raise sqlite3.OperationalError("disk I/O error")

            with contextlib.suppress(StorageError):
                run.rundir.journal._call(fail)

    client = Breaking(lambda number, attempt: good())
    with pytest.raises(StorageError, match="answers wait for it in"), make(tmp_path, 60, rows_per_part=100) as run:
        assert isinstance(work(run, client), StorageError)
    with begun(run.job) as again:
        assert set(outcomes(again)) == set(client.sent) >= {10}
        assert again.rundir.orphaned == 0
        assert work(again, second := ScriptedClient(lambda number, attempt: good())) is None
    assert sorted(client.sent + second.sent) == list(range(60))


def test_the_input_changes_under_way(tmp_path: Path) -> None:
    """A run whose input is not what was planned any more stops with an InputError."""
    with make(tmp_path, 20) as run:
        (tmp_path / "rows.jsonl").write_bytes(b'{"text": "0 "}\n')
        assert isinstance(work(run, lambda number, attempt: good()), InputError)


def test_a_part_that_cannot_be_put_in_place(tmp_path: Path) -> None:
    """The run stops with a StorageError, touches no foreign file, and keeps the outcomes."""
    with make(tmp_path, 5) as run:
        (tmp_path / "out/part-00000.parquet").write_bytes(b"mine")
        assert isinstance(work(run, lambda number, attempt: good()), StorageError)
        assert len(outcomes(run)) == 5
    assert (tmp_path / "out/part-00000.parquet").read_bytes() == b"mine"


def test_a_mistake_in_a_callback(tmp_path: Path) -> None:
    """A callback of the loop that raises ends the run with an internal error; it does not wait for ever."""

    def broken(batch: Any) -> None:
        raise KeyError("a mistake of ours")

    def prepare(worker: Worker) -> None:
        asyncio.get_running_loop().set_exception_handler(crew.on_mistake(worker))
        worker._window.committed = broken  # type: ignore[method-assign]

    with make(tmp_path, 20) as run:
        reason = work(run, ScriptedClient(lambda row, attempt: good()), prepare=prepare)
        assert type(reason) is BatcherError
        assert reason.exit_code == 1
    with begun(run.job) as again:
        assert work(again, ScriptedClient(lambda row, attempt: good())) is None


@pytest.mark.parametrize("rows", [(5, 6), (37, 38), (0, 1)])
def test_neighbours_that_a_firewall_refuses(tmp_path: Path, rows: tuple[int, int]) -> None:
    """Two rows that follow each other are refused for their own sake: the others tell, also in a later run."""
    client = ScriptedClient(lambda row, attempt: refusal(403) if row in rows else good())
    with make(tmp_path, 40) as run:
        if 0 in rows:
            run.rundir.journal.record(outcome(39))
        assert work(run, client) is None
        assert [row["row_index"] for row in output(run) if row["status"] == "failed"] == list(rows)


def test_everything_is_refused_from_some_moment_on(tmp_path: Path) -> None:
    """Answers to what was sent before prove nothing about refusals that came since: no row fails, and the run stops."""

    class Slow(ScriptedClient):
        async def under_way(self, number: int) -> None:
            await anyio.sleep(30 + number if number < 40 else 0.01)

    client = Slow(lambda row, attempt: refusal(400, "odd") if row >= 40 else good())
    with make(tmp_path, 400, concurrency=64, rows_per_part=1000) as run:
        assert isinstance(work(run, client), EndpointRefusedError)
        assert {o.status for o in outcomes(run).values()} == {"completed"}


def test_a_probe_that_takes_long_keeps_nobody_busy(tmp_path: Path) -> None:
    """While only an answer can change anything, the worker sleeps, however many rows are due."""

    class Hanging(ScriptedClient):
        async def under_way(self, number: int) -> None:
            await anyio.sleep(600.0 if len(self.sent) > 60 and number % 5 else 0.01)

    client = Hanging(lambda row, attempt: good() if len(client.sent) <= 20 or len(client.sent) > 90 else refusal(500))
    with make(tmp_path, 40) as run:
        doing = Work(run, client)
        assert doing() is None
        assert doing.readings < 5000


def test_an_outage_that_begins_while_answers_are_under_way(tmp_path: Path) -> None:
    """Answers to what was sent before it began do not void the excuse of rows that failed since."""

    class Slow(ScriptedClient):
        async def under_way(self, number: int) -> None:
            await anyio.sleep(5.0 if number < 30 else 0.01)

    began: list[float] = []

    def script(number: int, attempt: int) -> Reply:
        now = asyncio.get_running_loop().time()
        if number < 30:
            return good()
        began.append(now)
        return refusal(500) if now < began[0] + 60.0 else good()

    with make(tmp_path, 200, concurrency=32, max_attempts=2, rows_per_part=300) as run:
        assert work(run, Slow(script)) is None
        assert {row["status"] for row in output(run)} == {"completed"}
