"""How a run stands: the truth about its process, whatever its last report says, without touching its lock."""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from batcher.cli import main
from batcher.cli.standing import standing_of
from batcher.cli.status import watch_status
from batcher.errors import InputError, StorageError
from batcher.job import Job
from batcher.results import holder
from batcher.results.holder import holder_of
from tests.fakes import begun, make_job, write_numbers
from tests.runs import answer, record, run_rows

LOCKING = """
import sys
from pathlib import Path
from batcher.rundir import RunDir
with RunDir.open(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job over twelve rows in three shards."""
    write_numbers(tmp_path, 12)
    return make_job(tmp_path)


@contextmanager
def another_run(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds a run folder."""
    command = [sys.executable, "-c", LOCKING, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield process
        process.kill()


def report(folder: Path, **changes: Any) -> None:
    """Write a summary as a run does."""
    summary = {
        "state": "running", "pid": os.getpid(), "updated_at": datetime.now(UTC).isoformat(), "total": 12,
        "completed": 1, "failed": 0, "in_flight": 5, "waiting": 2, "ambiguous": 0, "why_waiting": "overloaded",
    }  # fmt: skip
    (folder / ".batcher").mkdir(parents=True, exist_ok=True)
    (folder / ".batcher/summary.json").write_bytes(orjson.dumps({**summary, **changes}))


def take(folder: Path, pid: int, host: str = platform.node(), since: datetime | None = None) -> None:
    """Write into the lock what a process that takes it writes."""
    (folder / ".batcher").mkdir(parents=True, exist_ok=True)
    text = f"pid {pid} on {host} since {(since or datetime.now(UTC)).isoformat(timespec='seconds')}\n"
    (folder / ".batcher/lock").write_text(text)


def test_a_run_that_works(tmp_path: Path) -> None:
    """Its process holds the lock file open; its report stands as it is."""
    with another_run(tmp_path / "out") as process:
        report(tmp_path / "out", pid=process.pid)
        found = holder_of(tmp_path / "out")
        assert found is not None
        assert (found.pid, found.host, found.at_work) == (process.pid, platform.node(), True)
        standing = standing_of(tmp_path / "out")
        assert (standing["state"], standing["in_flight"], standing["why_waiting"]) == ("running", 5, "overloaded")


def test_a_run_that_was_killed(tmp_path: Path, job: Job) -> None:
    """Its last report is corrected: no request is in flight, and rows are counted as the folder holds them."""
    run_rows(job, [answer(row) for row in (0, 1, 2, 3, 4, 7)], parts=[0])
    with begun(job) as run:
        run.rundir.journal.lease([8, 9])
        record(run, [])
    with another_run(job.output.path) as process:
        report(job.output.path, pid=process.pid)
    standing = standing_of(job.output.path)
    assert (standing["state"], standing["pid"]) == ("died", process.pid)
    assert (standing["completed"], standing["failed"], standing["total"]) == (6, 0, 12)
    assert (standing["in_flight"], standing["waiting"], standing["why_waiting"]) == (0, 0, None)
    assert (standing["ambiguous"], standing["prompt_tokens"]) == (2, 18)


def test_a_pid_that_belongs_to_somebody_else_by_now(tmp_path: Path) -> None:
    """A process of that number that does not hold the lock is not the run."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        take(tmp_path, stranger.pid)
        report(tmp_path, pid=stranger.pid)
        assert standing_of(tmp_path)["state"] == "died"
        stranger.kill()


def refuse(*_: object) -> bool:
    """What the kernel says of another user's process."""
    raise PermissionError


def test_a_process_that_nobody_has_buried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process whose parent has not waited for it has a pid, and is dead, also where its files are secret."""
    monkeypatch.setattr(holder, "_holds_open", refuse)
    with subprocess.Popen(["sleep", "60"]) as process:
        take(tmp_path, process.pid)
        report(tmp_path, pid=process.pid)
        process.kill()
        deadline = time.monotonic() + 30
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
        assert standing_of(tmp_path)["state"] == "died"


@pytest.mark.parametrize("started", [True, False])
def test_a_process_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: bool) -> None:
    """Its files cannot be seen; then a process that is younger than the lock is not the run."""
    monkeypatch.setattr(holder, "_holds_open", refuse)
    since = datetime.now(UTC) - timedelta(days=0 if started else 1000)
    take(tmp_path, os.getpid(), since=since)
    report(tmp_path)
    assert standing_of(tmp_path)["state"] == ("running" if started else "died")


@pytest.mark.parametrize(("silence_s", "state"), [(5, "running"), (300, "unknown")])
def test_a_run_on_another_machine(tmp_path: Path, silence_s: int, state: str) -> None:
    """Its process cannot be asked; it is believed as long as it reports."""
    take(tmp_path, 1, host="elsewhere")
    report(tmp_path, updated_at=(datetime.now(UTC) - timedelta(seconds=silence_s)).isoformat())
    assert standing_of(tmp_path)["state"] == state


def test_a_run_that_starts(tmp_path: Path, job: Job) -> None:
    """A process that has the folder and has not reported yet is starting, whatever the last run's report says."""
    out = job.output.path
    with another_run(out) as process:
        standing = standing_of(out)
        assert (standing["state"], standing["pid"], standing["total"]) == ("starting", process.pid, 0)
        for state in ("finished", "stopped", "running"):
            report(out, state=state)
            assert standing_of(out)["state"] == "starting"
            assert standing_of(out)["pid"] == process.pid
    (out / ".batcher/summary.json").unlink()
    with pytest.raises(InputError, match="holds no run yet"):
        standing_of(out)
    run_rows(job, [answer(0)])
    standing = standing_of(out)
    assert (standing["state"], standing["completed"], standing["total"]) == ("died", 1, 12)


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_a_run_that_ended(tmp_path: Path, state: str) -> None:
    """Its report is the last word, also while its process is still on its way out."""
    with another_run(tmp_path / "out") as process:
        report(tmp_path / "out", state=state, pid=process.pid, completed=10, failed=2)
        assert standing_of(tmp_path / "out")["state"] == state
    assert standing_of(tmp_path / "out")["state"] == state


def test_a_run_of_some_rows(tmp_path: Path) -> None:
    """A run that was told to ask some rows is not finished when it has."""
    report(tmp_path, state="finished", completed=5, failed=1)
    assert standing_of(tmp_path)["state"] == "stopped"


def test_the_lock_is_not_touched(tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for a moment, or a run that is just starting would be turned away."""
    run_rows(job, [answer(0)])
    report(job.output.path)
    before = (job.output.path / ".batcher/lock").stat()

    def refuse(*_: object) -> None:
        raise AssertionError("the lock was tried")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    standing_of(job.output.path)
    after = (job.output.path / ".batcher/lock").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


@pytest.mark.parametrize("text", ["", "pid x on y since z\n", "pid 1 on a since yesterday\n", "pid 99999999999 on a"])
def test_a_lock_without_a_name(tmp_path: Path, text: str) -> None:
    """A lock that names nobody is held by nobody."""
    take(tmp_path, 1)
    (tmp_path / ".batcher/lock").write_text(text)
    assert holder_of(tmp_path) is None
    report(tmp_path)
    assert standing_of(tmp_path)["state"] == "died"


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}"])
def test_a_damaged_summary(tmp_path: Path, content: bytes) -> None:
    """It is named."""
    report(tmp_path)
    (tmp_path / ".batcher/summary.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"summary\.json"):
        standing_of(tmp_path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both forms show the corrected state."""
    report(tmp_path, state="running")
    assert main(["status", str(tmp_path), "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out)["state"] == "died"
    assert main(["status", str(tmp_path)]) == 0
    assert "can be resumed" in capsys.readouterr().out


# -- watching


@pytest.mark.parametrize("as_json", [False, True])
def test_watching_until_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """A line for every change and none without; it ends when the run does."""
    states = iter([{"completed": 3}, {"completed": 3}, {"completed": 12, "state": "finished"}, {}])
    with another_run(tmp_path) as process:
        now = {"pid": process.pid, "why_waiting": None}
        report(tmp_path, **now)

        def next_state(_: float) -> None:
            now.update(next(states))
            report(tmp_path, **now)

        assert watch_status(tmp_path, as_json=as_json, sleep=next_state) == 0
    lines = capsys.readouterr().out.splitlines()
    if as_json:
        assert [orjson.loads(line)["completed"] for line in lines] == [1, 3, 12]
        return
    assert [line.split(" ", 1)[1] for line in lines] == [
        "running: 1/12 rows, 1 ok, 0 failed, 5 in flight",
        "running: 3/12 rows, 3 ok, 0 failed, 5 in flight",
        "finished: 12/12 rows, 12 ok, 0 failed, 5 in flight",
    ]


def test_a_run_that_another_one_takes_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One look at an ended run is not the end: the next run may be taking the folder at that moment."""
    with another_run(tmp_path) as process:
        states = iter([{"state": "running", "completed": 2}, {"state": "stopped"}, {}])
        now: dict[str, Any] = {"state": "stopped", "pid": process.pid}
        report(tmp_path, **now)

        def next_state(_: float) -> None:
            now.update(next(states))
            report(tmp_path, **now)

        assert watch_status(tmp_path, as_json=True, sleep=next_state) == 0
    found = [orjson.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]
    assert found == ["stopped", "running", "stopped"]


def test_watching_is_left_with_control_c(tmp_path: Path) -> None:
    """That is the way out, not an error."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with another_run(tmp_path) as process:
        report(tmp_path, pid=process.pid)
        assert watch_status(tmp_path, as_json=False, sleep=interrupt) == 0


def test_nothing_to_watch(tmp_path: Path) -> None:
    """A folder without a run is an error at once."""
    assert main(["status", "--watch", str(tmp_path)]) == 65
