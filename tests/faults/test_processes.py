"""Several worker processes: whatever is killed, stopped or refused, it is one run, and another number resumes it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

from tests.checker import check, summary, unsure_of
from tests.command import Command
from tests.fault_server import Shape, fault_server, refusing
from tests.harness import digest
from tests.simulator_client import wait_until
from tests.trial import trial, until

CONCURRENCY = 16


def of(count: int) -> tuple[str, str]:
    """The option that asks for so many processes."""
    return ("--set", f"engine.processes={count}")


def children_of(command: Command) -> list[int]:
    """The worker processes of a run."""
    found = (path.read_text().split() for path in Path(f"/proc/{command.pid}/task").glob("*/children"))
    return [int(pid) for pids in found for pid in pids if "batcher.engines.child" in command_line(int(pid))]


def command_line(pid: int) -> str:
    """What anybody on the machine may read of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_one_run_of_several_processes(tmp_path: Path) -> None:
    """Ctrl-C in the terminal finishes what is in flight; another number carries on, and nothing is asked twice."""
    with fault_server() as server:
        server.latency_s = 0.1
        made = trial(tmp_path, server, 900, concurrency=CONCURRENCY, rows_per_part=20)
        with made.start(*of(3), start_new_session=True) as command:
            until(command, lambda: server.answered >= 40 and server.in_flight >= 8 and len(children_of(command)) == 3)
            os.killpg(command.pid, signal.SIGINT)
            ended = made.ended(command)
        assert ended.returncode == 130, ended.stderr
        now = summary(made.out)
        assert (now["completed"], now["state"], now["ambiguous"]) == (server.answered, "stopped", 0)
        assert 40 <= server.answered < 900
        server.latency_s = 0.02
        ended = made.run(*of(2))
        assert "requests at once in 2 processes" in ended.stderr
        check(made)
        assert server.ledger().asked == Counter(map(digest, made.texts))
        assert server.most_in_flight <= CONCURRENCY
        assert [path.name for path in (made.out / ".batcher").glob("journal-*")] == ["journal-0.sqlite"]


def test_a_worker_process_is_killed(tmp_path: Path) -> None:
    """The run goes on in a new process, which takes over the rows of the one that was killed."""
    with fault_server() as server:
        server.latency_s = 0.05
        made = trial(tmp_path, server, 600, concurrency=CONCURRENCY, rows_per_part=20)
        with made.start(*of(2)) as command:
            until(command, lambda: server.answered >= 80 and len(children_of(command)) == 2)
            for pid in children_of(command):
                os.kill(pid, signal.SIGKILL)
                made.kills += 1
            ended = made.ended(command)
        assert ended.returncode == 0, ended.stderr
        assert "was killed by signal 9; its rows go on in another one" in ended.stderr
        check(made)


def test_the_parent_is_killed(tmp_path: Path) -> None:
    """The folder stays taken until the last worker process has left; then a run of one process carries on."""
    with fault_server() as server:
        server.latency_s = 0.05
        made = trial(tmp_path, server, 600, concurrency=CONCURRENCY, rows_per_part=20)
        with made.start(*of(2)) as command:
            until(command, lambda: server.answered >= 80 and len(children_of(command)) == 2)
            children = children_of(command)
            try:
                for pid in children:
                    os.kill(pid, signal.SIGSTOP)
                made.kill(command)
                assert "another run is working on" in made.run(code=75).stderr
            finally:
                for pid in children:
                    os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
        made.run()
        check(made)
        assert unsure_of(made) == 0, "answers under way were awaited"


def test_what_one_process_finds_out_stops_all(tmp_path: Path) -> None:
    """A wrong key costs one request however many processes there are; an empty balance stops all of them."""

    def broke(prompt: str, attempt: int) -> Shape | None:
        return refusing(402, "insufficient_balance") if server.answered >= 100 else None

    with fault_server() as server:
        server.latency_s = 0.05
        made = trial(tmp_path, server, 400, concurrency=CONCURRENCY, rows_per_part=20)
        server.plan = lambda prompt, attempt: refusing(401, "invalid_api_key")
        made.run(*of(2), code=77)
        assert server.asked == 1
        server.plan = broke
        made.run(*of(2), code=77)
        assert 100 <= summary(made.out)["completed"] < 400


def test_a_budget_of_several_processes(tmp_path: Path) -> None:
    """Two processes together use no more than the budget, and all of it but a row's worth."""
    with fault_server() as server:
        server.latency_s = 0.05
        limits = {"max_total_tokens": 20_000}
        made = trial(tmp_path, server, 400, concurrency=CONCURRENCY, rows_per_part=20, limits=limits)
        ended = made.run(*of(2), code=75)
        now = summary(made.out)
        used = now["prompt_tokens"] + now["completion_tokens"]
        assert f"limits.max_total_tokens: {used:,} of 20,000 tokens used" in ended.stderr
        assert 19_000 <= used <= 20_500
