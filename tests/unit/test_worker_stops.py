"""How a worker ends before its work is done, and what the next one finds."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from batcher.errors import AccountError, BatcherError, EndpointRefusedError, InputError, StorageError
from batcher.worker import Worker
from tests.fakes import ScriptedClient, Work, begun, good, refusal, work
from tests.unit.test_worker import Held, make, outcomes, output


def test_a_refused_key_while_others_are_in_flight(tmp_path: Path) -> None:
    """The run stops and sends nothing more; the row is pending again, the answers of the others are kept."""
    client = Held(lambda number, attempt: refusal(401) if number == 3 else good(), enough=3)
    with make(tmp_path, 40) as run:
        assert isinstance(work(run, client), AccountError)
        assert set(outcomes(run)) == set(client.sent) - {3}
        assert run.rundir.journal.attempts() == {3: (1, 0)}
        assert run.rundir.journal.recover() == 0, "a row is still leased"
    assert 0 in client.sent
    assert len(client.sent) < 40


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
