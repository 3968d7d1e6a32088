"""The journal on a real SQLite file: what is acknowledged is there, and what is not there is not acknowledged."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batcher.errors import StorageError
from batcher.journal import Batch, Journal, Part
from batcher.journal.opening import connect
from batcher.records import ApiError, Draft, Shard, Spent, Totals
from tests.fakes import Heard, body_of, outcome


def rows_in(path: Path, table: str) -> set[int]:
    """Row indexes of a table as another process sees them."""
    db = sqlite3.connect(path)
    try:
        return {row for (row,) in db.execute(f"SELECT row_index FROM {table}")}
    finally:
        db.close()


def run_sql(path: Path, statement: str) -> None:
    """Change the file behind the journal's back."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(statement)
    db.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_what_is_reported_as_committed(path: Path) -> None:
    """By the time `committed` is called another connection can read every entry of the batch."""
    seen: list[bool] = []
    journal = Journal(path)
    journal.listener = Heard(
        lambda batch: seen.append(
            set(batch.leases) <= rows_in(path, "attempts")
            and {found.row_index for found in batch.outcomes} <= rows_in(path, "outcomes")
        )
    )
    for number in range(50):
        journal.lease([number])
        journal.record(outcome(1000 + number))
    journal.close()
    assert seen
    assert all(seen)


def test_the_settings_that_survive_a_power_cut(path: Path) -> None:
    """Every commit is synced: a write-ahead log with synchronous = FULL."""
    db = connect(path)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


ACKNOWLEDGING = """
import os, sys
from pathlib import Path
from batcher.journal import Journal
from tests.fakes import Heard, outcome
journal = Journal(Path(sys.argv[1]))
journal.listener = Heard(lambda batch: os.write(1, b"".join(b"%d\\n" % o.row_index for o in batch.outcomes)))
for number in range(5):
    journal.record(outcome(number))
    journal.attempts()
journal.close()
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to see the system calls")
def test_the_order_of_sync_and_acknowledgement(path: Path) -> None:
    """Between two acknowledgements the log is written and then synced."""
    trace = path.with_name("trace")
    command = ["strace", "-f", "-o", str(trace), "-e", "trace=write,pwrite64,fdatasync"]
    subprocess.run([*command, sys.executable, "-c", ACKNOWLEDGING, str(path)], check=True, capture_output=True)
    events = ""
    for line in trace.read_text().splitlines():
        events += "W" if "pwrite64(" in line else "S" if "fdatasync(" in line else "A" if "write(1, " in line else ""
    for before in events.split("A")[:-1]:
        assert before.rstrip("W").endswith("S"), events
        assert before.endswith("S"), events
    assert events.count("A") == 5


def test_a_row_is_leased_released_and_answered(path: Path) -> None:
    """A release keeps the attempts, another lease does not lose them, an outcome ends both."""
    journal = Journal(path)
    journal.lease([1, 2, 3])
    assert journal.attempts() == {}
    journal.release(1, attempts=2, ambiguous=1)
    journal.release(2, attempts=1, ambiguous=0)
    assert journal.attempts() == {1: (2, 1), 2: (1, 0)}
    journal.lease([1])
    assert journal.attempts() == {1: (2, 1), 2: (1, 0)}
    journal.record(outcome(1))
    assert journal.attempts() == {2: (1, 0)}
    assert journal.recover() == 1, "only row 3 is leased"
    journal.close()


def test_a_draft_waits_for_a_better_answer(path: Path) -> None:
    """It is durable with the release that brings it, gives way to a later one, and to the row's outcome."""
    journal = Journal(path)
    journal.lease([1, 2])
    journal.attempts()
    first, second, other = Draft(1, b"one", 0.5, 1.75, 1), Draft(1, b"two", 0.25, 2.75, 2), Draft(2, b"x", 0.5, 1.75, 1)
    for draft in (first, second, other):
        journal.release(draft.row_index, attempts=1, ambiguous=0, spent=Spent(3, None, 5, None), draft=draft)
    journal.close()
    again = Journal(path)
    assert again.drafts() == {1: second, 2: other}
    again.record(outcome(1, valid=False))
    assert again.drafts() == {2: other}
    assert (again.outcomes(0, 9)[0].valid, again.open_totals().invalid) == (False, 1)
    again.record(outcome(3, valid=True))
    assert again.open_totals().invalid == 1
    again.forget(Shard(0, 0, 2, ()))
    again.close()
    assert rows_in(path, "drafts") == {2}
    run_sql(path, "UPDATE drafts SET body = x'79'")
    again = Journal(path)
    with pytest.raises(StorageError, match="the first answer to row 2 is not what was written"):
        again.drafts()
    with pytest.raises(StorageError):
        again.close()


def held(journal: Journal) -> threading.Event:
    """Keep the journal's thread busy after its next commit, so that entries gather in one batch; set it to go on."""
    reached, go_on = threading.Event(), threading.Event()

    def wait(batch: Batch) -> None:
        reached.set()
        go_on.wait(30)

    journal.listener = Heard(wait)
    journal.lease([999])
    assert reached.wait(30)
    return go_on


def test_released_and_leased_again_in_one_batch(path: Path) -> None:
    """The row is leased after it: a crash then counts it."""
    journal = Journal(path)
    journal.lease([1])
    journal.attempts()
    go_on = held(journal)
    journal.release(1, attempts=1, ambiguous=0)
    journal.lease([1])
    go_on.set()
    assert journal.recover() == 2
    assert journal.attempts() == {1: (2, 1), 999: (1, 1)}
    journal.close()


def test_two_outcomes_of_one_row(path: Path) -> None:
    """The first one that was committed stays."""
    journal = Journal(path)
    journal.record(outcome(1, body=body_of("first")))
    journal.attempts()
    journal.record(outcome(1, body=body_of("second")))
    (found,) = journal.outcomes(0, 10)
    assert found.body == body_of("first")
    journal.close()


def test_outcomes_come_back_as_they_went_in(path: Path) -> None:
    """Every field of an outcome is kept, also of a failed one and where fields are null."""
    whole = ApiError("no “entry”", type="t", param="p", code="c", http_status=404)
    given = [
        outcome(1, attempts=3, ambiguous=2, body=b"\x00\xff raw"),
        outcome(2, failed="x", error=whole),
        outcome(3, failed="x", latency_s=None, requested_at=None, attempts=0),
    ]
    journal = Journal(path)
    for one in reversed(given):
        journal.record(one)
    assert journal.outcomes(1, 4) == given
    assert journal.outcomes(2, 3) == given[1:2]
    assert journal.outcomes(4, 9) == []
    journal.close()


@pytest.mark.parametrize("max_bytes, expected", [(0, 1), (9, 1), (10, 2), (29, 3), (1000, 5)])
def test_a_bound_on_bytes(path: Path, max_bytes: int, expected: int) -> None:
    """Outcomes stop after the one that exceeds `max_bytes`, and there is always at least one."""
    journal = Journal(path)
    for number in range(5):
        journal.record(outcome(number, body=b"x" * 10))
    found = journal.outcomes(0, 5, max_bytes=max_bytes)
    assert [one.row_index for one in found] == list(range(expected))
    journal.close()


def test_after_a_crash_leased_rows_are_unsure(path: Path) -> None:
    """Each leased row without an outcome is one more attempt that may have been paid for, and is counted once."""
    journal = Journal(path)
    journal.lease([1, 2, 3, 4])
    journal.attempts()
    journal.release(2, attempts=1, ambiguous=0)
    journal.record(outcome(3))
    journal.close()
    again = Journal(path)
    assert again.recover() == 2
    assert again.recover() == 0
    assert again.attempts() == {1: (1, 1), 2: (1, 0), 4: (1, 1)}
    assert again.rows_with_outcome(Shard(0, 2, 2, ())) == {3}
    again.close()


def test_totals_of_open_shards(path: Path) -> None:
    """Sums go over outcomes, and unsure attempts also over rows that have none."""
    journal = Journal(path)
    assert journal.open_totals() == Totals()
    journal.record(outcome(1, ambiguous=1))
    journal.record(outcome(2, prompt_tokens=None, completion_tokens=None))
    journal.record(outcome(3, failed="x", ambiguous=2))
    journal.lease([4])
    journal.attempts()
    journal.release(4, attempts=5, ambiguous=4, spent=Spent(7, 1, 2, 0.5))
    assert journal.open_totals() == Totals(2, 1, 7, 10, 7, 1, 0.5, 1)
    assert journal.spent() == {4: Spent(7, 1, 2, 0.5)}
    journal.close()


def test_a_published_shard(path: Path) -> None:
    """Its part is remembered across restarts; its rows, and no others, can be forgotten."""
    part = Part(1, 4711, Totals(1000, 2, 3, 4, 5), 2**32 - 1, 2**60)
    journal = Journal(path)
    for number in (9, 10, 1500, 2509, 2510):
        journal.record(outcome(number))
    journal.lease([8, 11, 2509, 2511])
    journal.published(part)
    journal.forget(Shard(1, 10, 2500, ()))
    journal.close()
    assert rows_in(path, "outcomes") == {9, 2510}
    assert rows_in(path, "attempts") == {8, 2511}
    again = Journal(path)
    assert again.parts() == {1: part}
    again.close()


def test_what_a_crash_left_of_published_shards(path: Path) -> None:
    """All of them are forgotten at once, and no row between them."""
    journal = Journal(path)
    for number in range(9):
        journal.record(outcome(number))
    journal.lease([20, 21])
    journal.forget_published([Shard(0, 0, 3, ()), Shard(2, 6, 3, ()), Shard(4, 20, 1, ())])
    journal.close()
    assert rows_in(path, "outcomes") == {3, 4, 5}
    assert rows_in(path, "attempts") == {21}


def test_many_threads_ask_at_once(path: Path) -> None:
    """Each gets its own answer, and sees what it handed over before it asked."""
    journal = Journal(path)

    def ask(number: int) -> list[int]:
        journal.record(outcome(number))
        return [one.row_index for one in journal.outcomes(number, number + 1)]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(200))) == [[number] for number in range(200)]
    journal.close()


def test_closing_commits_what_waits(path: Path) -> None:
    """Entries handed over before `close` are durable after it."""
    journal = Journal(path)
    for number in range(100):
        journal.record(outcome(number))
    journal.close()
    assert rows_in(path, "outcomes") == set(range(100))


def test_a_file_that_is_no_journal(path: Path) -> None:
    """It is refused with its name, and stays as it is."""
    path.write_bytes(b"something else, long enough to be looked at" * 100)
    with pytest.raises(StorageError, match=r"journal\.sqlite"):
        Journal(path)
    assert path.read_bytes().startswith(b"something else")
