"""A journal whose storage fails: nothing is acknowledged any more, and everybody who waits is told."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batcher.errors import StorageError
from batcher.journal import Batch, Journal
from batcher.journal.tables import _checksum
from batcher.records import ApiError, Spent
from tests.fakes import Heard, outcome
from tests.unit.test_journal import held, rows_in, run_sql


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder / "journal.sqlite"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def breaks(journal: Journal) -> None:
    """Have SQLite fail, once; the database is whole afterwards."""

    def fail(db: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(StorageError, match="disk I/O error"):
        journal._call(fail)


def test_a_write_fails(path: Path) -> None:
    """`broke` comes before anything else; the journal takes nothing more, what arrives is saved elsewhere."""
    journal = Journal(path)
    journal.listener = heard = Heard()
    journal.record(outcome(1))
    journal.attempts()
    run_sql(path, "ALTER TABLE attempts RENAME TO away")
    journal.record(outcome(2))
    assert heard.broken.wait(30)
    journal.record(outcome(3))
    journal.lease([4])
    with pytest.raises(StorageError, match=r"no such table.*run the same command again"):
        journal.attempts()
    with pytest.raises(StorageError, match=rf"no such table.*2 answers wait for it in {path.parent}/rescued-"):
        journal.close()
    assert heard.events.count("broke, saving") == 1
    assert heard.events[:2] == ["committed", "broke, saving"]
    assert (heard.saved, heard.leased) == ([1, 2, 3], [4])
    assert rows_in(path, "outcomes") == {1}


def test_questions_wait_while_a_write_fails(path: Path) -> None:
    """All of them get the error; none waits for ever."""
    journal = Journal(path)
    go_on = held(journal)
    journal.record(outcome(1))
    run_sql(path, "DROP TABLE attempts")
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(journal.parts) for _ in range(4)]
        while len(journal._waiting.calls) < 4:
            threading.Event().wait(0.001)
        go_on.set()
        assert [type(answer.exception(30)) for answer in answers] == [StorageError] * 4
    with pytest.raises(StorageError):
        journal.close()


def test_a_question_waits_behind_one_that_fails(path: Path) -> None:
    """Handed over while the failing one is being answered, it gets the error too."""
    journal = Journal(path)
    reached, go_on = threading.Event(), threading.Event()

    def fail(db: sqlite3.Connection) -> None:
        reached.set()
        go_on.wait(30)
        raise sqlite3.OperationalError("disk I/O error")

    with ThreadPoolExecutor(2) as threads:
        failing = threads.submit(journal._call, fail)
        assert reached.wait(30)
        behind = waiting_for(journal.parts)
        while not journal._waiting.calls:
            threading.Event().wait(0.001)
        go_on.set()
        assert isinstance(failing.exception(30), StorageError)
    assert isinstance(behind.exception(5), StorageError)
    with pytest.raises(StorageError):
        journal.close()


def test_a_question_fails(path: Path) -> None:
    """It gets the error, and so does everything after it."""
    journal = Journal(path)
    run_sql(path, "DROP TABLE parts")
    with pytest.raises(StorageError, match="no such table"):
        journal.parts()
    with pytest.raises(StorageError):
        journal.recover()
    with pytest.raises(StorageError):
        journal.close()


def test_the_next_start_takes_over_what_was_saved_elsewhere(path: Path) -> None:
    """Answers are in the journal then and in no file; what attempts had used is counted; leased rows are unsure."""
    journal = Journal(path, run="this")
    journal.record(outcome(1))
    journal.lease([2, 3, 4])
    journal.attempts()
    breaks(journal)
    given = outcome(2, body=b"\x00\xff raw", failed="x", error=ApiError("no", param="p", http_status=404))
    journal.record(given)
    journal.record(outcome(1, body=b"a second answer"))
    journal.release(3, attempts=2, ambiguous=1, spent=Spent(7, None, 2, 0.5))
    with pytest.raises(StorageError):
        journal.close()
    again = Journal(path, run="this")
    assert again.take_over_rescued() == 1
    assert not list(path.parent.glob("*rescued*"))
    assert again.outcomes(0, 9) == [outcome(1), given]
    assert again.recover() == 1, "only row 4 was on its way"
    assert again.attempts() == {3: (2, 1), 4: (1, 1)}
    assert again.spent() == {3: Spent(7, None, 2, 0.5)}
    again.close()


def test_taking_over_fails(path: Path) -> None:
    """What was saved elsewhere stays there as long as the journal has not got it."""
    journal = Journal(path, run="this")
    breaks(journal)
    journal.record(outcome(2))
    with pytest.raises(StorageError):
        journal.close()
    run_sql(path, "ALTER TABLE outcomes RENAME TO away")
    run_sql(path, "CREATE TABLE outcomes (row_index)")
    again = Journal(path, run="this")
    with pytest.raises(StorageError, match="15 values"):
        again.take_over_rescued()
    with pytest.raises(StorageError):
        again.close()
    run_sql(path, "DROP TABLE outcomes")
    run_sql(path, "ALTER TABLE away RENAME TO outcomes")
    third = Journal(path, run="this")
    assert third.take_over_rescued() == 1
    third.close()


def test_nothing_can_be_saved_anywhere(path: Path, temporary: Path) -> None:
    """Then nothing is acknowledged any more, and the errors say that rows are asked again."""
    journal = Journal(path)
    journal.listener = heard = Heard()
    breaks(journal)
    for folder in (path.parent, temporary):
        folder.rename(folder.with_name(f"{folder.name} is gone"))
    journal.record(outcome(2))
    with pytest.raises(StorageError, match="rows are asked again"):
        journal.close()
    assert heard.events == ["broke, saving", "broke"]
    assert "rows are asked again" in str(heard.errors[1])


def test_who_begins_to_listen_after_it_broke(path: Path) -> None:
    """Hears at once that it did, so that nothing is sent whose lease is not durable."""
    journal = Journal(path)
    breaks(journal)

    async def listen() -> list[str]:
        heard_lease = asyncio.Event()
        heard = Heard(lambda batch: heard_lease.set())
        journal.tell(asyncio.get_running_loop(), heard)
        journal.lease([1])
        await asyncio.wait_for(heard_lease.wait(), 30)
        return heard.events

    assert asyncio.run(listen()) == ["broke, saving", "committed"]
    with pytest.raises(StorageError):
        journal.close()


def test_a_loop_that_has_ended(path: Path) -> None:
    """Needs no telling: the journal goes on without it."""
    journal = Journal(path)
    loop = asyncio.new_event_loop()
    journal.tell(loop, Heard())
    loop.close()
    journal.record(outcome(1))
    journal.close()
    assert rows_in(path, "outcomes") == {1}


LIMITED = """
import os, resource, sys
from pathlib import Path
from batcher.errors import StorageError
from batcher.journal import Journal
from tests.fakes import Heard, outcome
journal = Journal(Path(sys.argv[1]), run="this")
acknowledge = lambda batch: os.write(1, b"".join(b"%d\\n" % o.row_index for o in batch.outcomes))
journal.listener = heard = Heard(acknowledge)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
number = 0
while "broke, saving" not in heard.events:
    journal.record(outcome(number, body=b"x" * 50_000))
    number += 1
    try:
        journal.attempts()
    except StorageError:
        pass
for late in range(100, 104):
    journal.record(outcome(late))
try:
    journal.close()
except StorageError as error:
    print(error, file=sys.stderr)
    sys.exit(74)
"""


def test_a_file_grows_to_its_limit(path: Path) -> None:
    """It is like a broken disk: all that was acknowledged is there, in the journal or beside it."""
    ended = subprocess.run([sys.executable, "-c", LIMITED, str(path)], check=False, capture_output=True, text=True)
    assert ended.returncode == 74, ended.stderr
    assert "run the same command again" in ended.stderr
    acknowledged = {int(line) for line in ended.stdout.split()}
    assert acknowledged > {0, 1, 100, 101, 102, 103}
    assert rows_in(path, "outcomes") < acknowledged
    again = Journal(path, run="this")
    again.take_over_rescued()
    assert {one.row_index for one in again.outcomes(0, 1000, max_bytes=1 << 30)} == acknowledged
    again.close()


def waiting_for(question: Any) -> Future[Any]:
    """Ask on a thread that ends with the process, so that a question without an answer hangs no test run."""
    answer: Future[Any] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return answer


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_outcome_that_cannot_be_written(path: Path) -> None:
    """It breaks the journal as a failing disk does, instead of leaving everybody to wait for a dead thread.

    Saved elsewhere it loses what is not Unicode, so that the next start can take it.
    """
    journal = Journal(path)
    journal.record(outcome(1, failed="x", error=ApiError("a file named \udcff")))
    with pytest.raises(StorageError):
        waiting_for(journal.attempts).result(5)
    with pytest.raises(StorageError, match="1 answers wait"):
        journal.close()
    again = Journal(path)
    assert again.take_over_rescued() == 1
    assert again.outcomes(1, 2)[0].error == ApiError("a file named ?")
    again.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_part_in_an_unknown_form(path: Path) -> None:
    """What cannot be read of the journal raises a StorageError where it is asked for."""
    journal = Journal(path)
    values = (0, 1, '{"of a later version": 1}', 2, 3, 0)
    run_sql(path, f"INSERT INTO parts VALUES ({', '.join(map(repr, (*values, _checksum(values))))})")
    with pytest.raises(StorageError, match="TypeError"):
        waiting_for(journal.parts).result(5)


def test_nobody_is_told(path: Path) -> None:
    """A journal that tells nobody commits all the same, and still reports a failure when it is closed."""
    journal = Journal(path)
    told: list[Batch] = []
    journal.listener = Heard(told.append)
    journal.tell_nobody()
    journal.record(outcome(1))
    journal.attempts()
    assert told == []
    assert rows_in(path, "outcomes") == {1}
    run_sql(path, "DROP TABLE outcomes")
    journal.record(outcome(2))
    with pytest.raises(StorageError):
        journal.close()
    with pytest.raises(sqlite3.OperationalError):
        rows_in(path, "outcomes")
