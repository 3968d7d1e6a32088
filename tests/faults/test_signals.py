"""Signals and a closed terminal: what is in flight is finished and kept, and nothing is asked twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from math import inf
from pathlib import Path

import pytest

from tests import shapes
from tests.checker import check, summary, unsure_of
from tests.command import BARE, BATCHER
from tests.fault_server import always_good, fault_server, refusing
from tests.harness import check_output, digest, write_job, write_rows
from tests.simulator_client import wait_until
from tests.trial import trial, until

CONCURRENCY = 16


@pytest.mark.parametrize(
    "signum, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_first_signal_finishes_what_is_in_flight(tmp_path: Path, signum: int, code: int) -> None:
    """After one signal the answers in flight are awaited and kept, and the next run asks none of them again."""
    with fault_server() as server:
        server.most_answers = 40
        made = trial(tmp_path, server, 100, concurrency=CONCURRENCY)
        with made.start() as command:
            until(command, lambda: server.answered == 40 and server.in_flight >= 4)
            command.signal(signum)
            until(command, lambda: "stopping: finishing" in command.stderr)
            server.most_answers = inf
            ended = made.ended(command)
        assert ended.returncode == code, ended.stderr
        assert f"carry on with: {BATCHER} run {made.job}" in ended.stderr
        now = summary(made.out)
        assert 40 + 4 <= server.answered <= 40 + CONCURRENCY
        assert (now["completed"], now["state"], now["ambiguous"]) == (server.answered, "stopped", 0)
        made.run()
        check(made)
        assert server.ledger().asked == Counter(map(digest, made.texts))


def test_second_signal_leaves_at_once(tmp_path: Path) -> None:
    """A second signal does not wait for slow answers; what was received is kept, the rest counts as perhaps paid."""
    with fault_server() as server:
        made = trial(tmp_path, server, 400, concurrency=CONCURRENCY)
        slow = set(made.texts[4:80:5])
        server.plan = lambda prompt, attempt: shapes.SILENT if prompt in slow and attempt == 0 else None
        with made.start() as command:
            until(command, lambda: server.in_flight == CONCURRENCY and server.answered >= 64)
            received = server.answered
            command.signal(signal.SIGINT)
            until(command, lambda: "stopping: finishing" in command.stderr)
            command.signal(signal.SIGINT)
            ended = made.ended(command, most_s=20)
        assert ended.returncode == 130, ended.stderr
        assert summary(made.out)["completed"] == received
        made.run()
        check(made)
        assert CONCURRENCY <= unsure_of(made) <= CONCURRENCY * 9 // 8, "those in flight, and those leased to follow"
        assert server.asked == len(made.texts) + CONCURRENCY


def test_answers_that_take_longer_than_the_grace(tmp_path: Path) -> None:
    """Minutes after a signal nobody waits for: once `limits.grace_s` are over the run leaves with what it has."""
    with fault_server() as server:
        made = trial(tmp_path, server, 100, concurrency=CONCURRENCY, limits={"grace_s": 1})
        slow = set(made.texts[10:80:10])
        server.plan = lambda prompt, attempt: shapes.SILENT if prompt in slow and attempt == 0 else None
        with made.start() as command:
            until(command, lambda: server.in_flight == len(slow) and server.answered == len(made.texts) - len(slow))
            command.signal(signal.SIGTERM)
            ended = made.ended(command, most_s=20)
        assert ended.returncode == 143, ended.stderr
        assert summary(made.out)["completed"] == len(made.texts) - len(slow)
        made.run()
        check(made)
        assert unsure_of(made) == len(slow)


def test_unsure_requests_are_counted_once(tmp_path: Path) -> None:
    """What a killed run left unsure is counted once, alike in the report and in the summary."""
    with fault_server(lambda prompt, attempt: shapes.SILENT if attempt == 0 else None) as server:
        made = trial(tmp_path, server, 8, concurrency=CONCURRENCY)
        with made.start("-q") as command:
            until(command, lambda: server.in_flight == len(made.texts))
            made.kill(command)
        made.run()
        check(made)
        assert unsure_of(made) == summary(made.out)["ambiguous"] == len(made.texts)


def test_signal_while_everything_waits(tmp_path: Path) -> None:
    """A signal ends a run at once that is waiting out a long pause asked for by the server."""
    with fault_server(lambda prompt, attempt: refusing(429, None, "Retry-After: 600")) as server:
        made = trial(tmp_path, server, 30)
        with made.start() as command:
            until(command, lambda: "next request in" in command.stderr)
            command.signal(signal.SIGTERM)
            ended = made.ended(command, most_s=20)
        assert ended.returncode == 143, ended.stderr
        server.plan = always_good
        made.run()
        check(made)


@pytest.mark.parametrize("first_lines", [0, 1])
def test_reader_of_the_output_leaves_early(tmp_path: Path, first_lines: int) -> None:
    """Whoever closes our standard output and error early loses the words, never a row."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(100)))
    with fault_server() as server:
        job = write_job(tmp_path, server.base_url)
        process = subprocess.Popen([BATCHER, "run", str(job), "-v"], stdout=-1, stderr=subprocess.STDOUT, env=BARE)
        assert process.stdout is not None
        for _ in range(first_lines):
            process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) in (0, 141)
        check_output(tmp_path / "out", texts)  # all of it by this run alone
        assert server.ledger().asked == Counter(map(digest, texts))


def test_report_cut_off_by_head(tmp_path: Path) -> None:
    """`batcher run JOB | head -1` shows one line without a traceback, and the run is complete."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(100)))
    job = write_job(tmp_path, "simulator")
    command = f"{BATCHER} run {job} | head -1"
    end = subprocess.run(["/bin/sh", "-c", command], env=BARE, capture_output=True, text=True, check=False, timeout=60)
    assert "100 completed" in end.stdout
    assert "Traceback" not in end.stderr
    assert "BrokenPipe" not in end.stderr
    check_output(tmp_path / "out", texts)


def test_stopped_and_continued(tmp_path: Path) -> None:
    """A run that was frozen (SIGSTOP) and continued asks no row twice."""
    with fault_server() as server:
        server.most_answers = 20
        made = trial(tmp_path, server, 100, concurrency=CONCURRENCY)
        with made.start() as command:
            until(command, lambda: server.answered == 20 and server.in_flight >= 4)
            command.signal(signal.SIGSTOP)
            server.most_answers = inf
            wait_until(lambda: server.in_flight == 0)
            time.sleep(0.5)  # frozen for a while: nothing is waited for, so there is nothing to poll
            command.signal(signal.SIGCONT)
            made.ended(command)
        check(made)
        assert server.ledger().asked == Counter(map(digest, made.texts))


def test_a_hangup_that_was_to_be_ignored(tmp_path: Path) -> None:
    """Under nohup a hangup stops nothing."""
    with fault_server() as server:
        server.most_answers = 20
        made = trial(tmp_path, server, 100, program=["nohup", BATCHER])
        with made.start() as command:
            until(command, lambda: server.answered == 20)
            os.kill(command.pid, signal.SIGHUP)
            server.most_answers = inf
            made.ended(command)
        check(made)
