"""A journal whose storage fails: nothing is acknowledged any more, and everybody who waits is told."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batcher.errors import StorageError
from batcher.journal import Batch, Journal
from batcher.records import ApiError
from tests.fakes import outcome
from tests.unit.test_journal import held, rows_in, run_sql


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_a_write_fails(path: Path) -> None:
    """`broke` is called once, `committed` never again, questions and `close` raise, and nothing later is saved."""
    journal = Journal(path)
    acknowledged: list[int] = []
    broke: Future[StorageError] = Future()
    journal.committed = lambda batch: acknowledged.extend(one.row_index for one in batch.outcomes)
    journal.broke = broke.set_result
    journal.record(outcome(1))
    journal.attempts()
    run_sql(path, "ALTER TABLE attempts RENAME TO away")
    journal.record(outcome(2))
    assert "no such table" in str(broke.result(30))
    run_sql(path, "ALTER TABLE away RENAME TO attempts")
    journal.record(outcome(3))
    with pytest.raises(StorageError, match="run the same command again"):
        journal.attempts()
    with pytest.raises(StorageError):
        journal.close()
    assert acknowledged == [1]
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


LIMITED = """
import os, resource, sys
from pathlib import Path
from batcher.errors import StorageError
from batcher.journal import Journal
from tests.fakes import outcome
journal = Journal(Path(sys.argv[1]))
journal.committed = lambda batch: os.write(1, b"".join(b"%d\\n" % o.row_index for o in batch.outcomes))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
try:
    for number in range(100):
        journal.record(outcome(number, body=b"x" * 50_000))
        journal.attempts()
except StorageError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for number in range(100, 110):
        journal.record(outcome(number))
try:
    journal.close()
except StorageError as error:
    print(error, file=sys.stderr)
    sys.exit(74)
"""


def test_the_disk_is_full(path: Path) -> None:
    """What was acknowledged before is all there, nothing is acknowledged afterwards, though there is room again."""
    ended = subprocess.run([sys.executable, "-c", LIMITED, str(path)], check=False, capture_output=True, text=True)
    assert ended.returncode == 74, ended.stderr
    assert "run the same command again" in ended.stderr
    acknowledged = {int(line) for line in ended.stdout.split()}
    assert 1 < len(acknowledged) < 100
    assert rows_in(path, "outcomes") == acknowledged
    again = Journal(path)
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
    """It breaks the journal as a failing disk does, instead of leaving everybody to wait for a dead thread."""
    journal = Journal(path)
    journal.record(outcome(1, failed="x", error=ApiError("a file named \udcff")))
    with pytest.raises(StorageError):
        waiting_for(journal.attempts).result(5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_part_in_an_unknown_form(path: Path) -> None:
    """What cannot be read of the journal raises a StorageError where it is asked for."""
    journal = Journal(path)
    run_sql(path, """INSERT INTO parts VALUES (0, 1, '{"of a later version": 1}')""")
    with pytest.raises(StorageError):
        waiting_for(journal.parts).result(5)


def test_nobody_is_told(path: Path) -> None:
    """A journal that tells nobody commits all the same, and still reports a failure when it is closed."""
    journal = Journal(path)
    told: list[Batch] = []
    journal.committed = told.append
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
