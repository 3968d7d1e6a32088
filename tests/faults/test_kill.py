"""SIGKILL, at random and at every durable step: the same command carries on, and nothing committed is asked again."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from batcher.results import Results
from tests import shapes
from tests.checker import check, unsure_of
from tests.command import BATCHER, Command, patched
from tests.fault_server import fault_server, refusing
from tests.harness import check_output, digest, write_job, write_rows
from tests.trial import Trial, simulated, trial, until

CONCURRENCY = 16


def killed_at_random(folder: Path, seed: int, kills: int) -> None:
    """Kill a run again and again at a random moment of its life, then let it finish, and judge it."""
    moments = random.Random(seed)
    texts = (f"row {n} of seed {seed}: {'x' * (n % 300)}" for n in range(250 * kills))
    with simulated(folder, latency_s=0.05, spread=0.6, seed=seed) as simulator:
        made = trial(folder, simulator, texts, concurrency=CONCURRENCY, seed=seed)
        for _ in range(kills):
            with made.start() as command:
                for _ in range(int(moments.uniform(0.05, 2.0) / 0.05)):
                    if command.poll() is None:
                        time.sleep(0.05)  # the moment at which it is struck
                made.kill(command)
        assert made.kills >= kills / 2, "the runs finished before they could be killed"
        made.run(most_s=120)
        check(made)
        # what is asked twice was in flight when a process died, or about to be, or answered and not committed yet
        assert sum(simulator.ledger().asked.values()) - len(made.texts) <= unsure_of(made)


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random(tmp_path: Path, seed: int) -> None:
    """However often it is killed: one output row per input row, and only rows in flight are asked twice."""
    killed_at_random(tmp_path, seed, kills=5)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_killed_a_hundred_times(tmp_path: Path) -> None:
    """The same, a hundred times over one run folder."""
    killed_at_random(tmp_path, 100, kills=100)


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="kills at a chosen system call need strace")
CALLS = ["fdatasync", "fsync", "link", "rename", "unlink", "ftruncate"]
#: stops when everything is imported: what comes before that is no matter of durability, and slow under strace
STOPPED = patched(
    {},
    also="""
import os, signal
import batcher.cli.app, batcher.cli.running, batcher.engines.local
from batcher import load_job, run
os.kill(os.getpid(), signal.SIGSTOP)
""",
)


def killed_at(made: Trial, call: str, number: int, *options: str) -> bool:
    """Run until the process makes this call for so many times, and kill it there; whether it got there."""
    inject = f"inject={call}:signal=KILL:when={number}"
    with made.start(*options, program=STOPPED) as command:
        until(command, lambda: status_of(command.pid, "State") == "T")
        strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(command.pid), "-e", f"trace={call}", "-e", inject]
        with subprocess.Popen(strace) as tracer:
            until(command, lambda: status_of(command.pid, "TracerPid") != "0")
            command.signal(signal.SIGCONT)
            ended = made.ended(command, killed=True)
            tracer.wait(30)
    return ended.returncode != 0


@needs_strace
@pytest.mark.parametrize("call", CALLS)
def test_killed_at_durable_steps(tmp_path: Path, call: str) -> None:
    """Killed at the 1st, 2nd, 3rd ... call of a kind that makes something durable, the next run carries on."""
    with fault_server() as server:
        made = trial(tmp_path, server, 400, concurrency=CONCURRENCY, rows_per_part=10)
        for number in (1, 2, 3, 5, 9, 19):
            if not killed_at(made, call, number):
                break
        made.run()
        check(made)
    assert made.kills >= 3, "there are hardly any such calls"


STRUCK = [("fdatasync", 3), ("rename", 2), ("fsync", 4), ("unlink", 2), ("rename", 3), ("fdatasync", 8), ("fsync", 9)]


@needs_strace
def test_killed_while_rows_are_asked_again(tmp_path: Path) -> None:
    """The same command or the plain one carries on; at every moment each row is there once, and good ones stay."""
    with fault_server() as server:
        server.plan = lambda prompt, attempt: refusing(400, "bad_image") if again(prompt, attempt) else None
        made = trial(tmp_path, server, 60, concurrency=CONCURRENCY, rows_per_part=10)
        made.run(code=3)
        good = {digest(text) for text in made.texts if not text.endswith("7")}
        for place, (call, number) in enumerate(STRUCK):
            killed_at(made, call, number, *(["--retry-failed"] if place % 2 == 0 else []))
            with Results.open(made.out) as results:
                found = [row for batch in results.batches(["row_index", "status"]) for row in batch.to_pylist()]
                totals = results.totals()
            assert [row["row_index"] for row in found] == list(range(60))
            assert (totals.completed, totals.failed) == tuple(
                sum(row["status"] == status for row in found) for status in ("completed", "failed")
            )
        made.run("--retry-failed")
        check_output(made.out, made.texts)
        asked = server.ledger().asked
    assert made.kills >= 5, "there are hardly any such calls"
    assert all(asked[one] == 1 for one in good)
    assert sum(asked.values()) - 60 - 6 <= unsure_of(made)
    assert not (made.out / ".batcher" / "reopened").exists()


def again(prompt: str, attempt: int) -> bool:
    """Which rows fail when they are asked for the first time."""
    return prompt.endswith("7") and attempt == 0


@needs_strace
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("call", CALLS)
def test_killed_at_each_durable_step(tmp_path: Path, call: str) -> None:
    """Killed at any single one of these calls of a run, the next run completes."""
    for number in range(1, 10_000):
        folder = tmp_path / str(number)
        folder.mkdir()
        with fault_server() as server:
            made = trial(folder, server, 40, concurrency=CONCURRENCY, rows_per_part=10)
            struck = killed_at(made, call, number)
            made.run()
            check(made)
        if not struck:
            return  # every one of them has been struck
    raise AssertionError("it never ends")


def status_of(pid: int, name: str) -> str:
    """A field of a process's status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


def test_a_killed_parent_takes_its_simulator_along(tmp_path: Path) -> None:
    """A run that is killed leaves no process behind."""
    write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(2000)))
    with Command(BATCHER, "run", write_job(tmp_path, "simulator")) as command:
        until(command, lambda: _children(command.pid))
        children = _children(command.pid)
        assert command.kill().returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "the simulator outlived the run"
        time.sleep(0.02)


def _children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []


assert sys.platform == "linux", "these tests read /proc"


def test_killed_before_the_last_word(tmp_path: Path) -> None:
    """Killed when the last part was in place and the summary not, the next run says that the job is finished."""
    with simulated(tmp_path, latency_s=0.01) as simulator:
        made = trial(tmp_path, simulator, 20)
        made.run()
        path = made.out / ".batcher" / "summary.json"
        path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "state": "running", "completed": 13}))
        made.run()
        check(made)


def test_killed_after_an_answer_that_was_not_kept(tmp_path: Path) -> None:
    """Tokens of answers that could not be kept are counted once, by whichever run, in the summary as in the parts."""
    with fault_server() as server:
        made = trial(tmp_path, server, 40, program=patched({"batcher.retry.judge.LONGEST_BACKOFF_S": 2.0}))
        server.plan = lambda prompt, attempt: shapes.NULL_FINISH if attempt == 0 and prompt.endswith("7") else None
        server.latency_s = 0.05
        with made.start() as command:
            until(command, lambda: server.ledger().unkept.total() == 4 and server.answered >= 30)
            made.kill(command)
        made.run()
        check(made)
