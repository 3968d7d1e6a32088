"""Looking at a run while it works: what is shown is true, and the run does not notice."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from batcher.errors import BatcherError
from batcher.results import Results
from tests.harness import BARE, BATCHER, batcher, check_output, digest, kill, start, write_job, write_rows
from tests.recording_server import Answer, Recorder, Request, as_json, completion, recording

ROWS = 70


@dataclass
class Live:
    """A run that works, as fast as the test lets it."""

    job: Path
    texts: list[str]
    process: subprocess.Popen[str]
    endpoint: Recorder
    gate: threading.Semaphore

    @property
    def out(self) -> Path:
        return self.job.parent / "out"

    def let(self, answers: int) -> None:
        """Let the endpoint give so many answers more, and wait until they are committed."""
        wanted = self.done() + answers
        self.gate.release(answers)
        until(lambda: self.done() >= wanted, self)

    def done(self) -> int:
        """Rows that have an outcome."""
        try:
            with Results.open(self.out) as results:
                return results.totals().rows
        except BatcherError:
            return 0

    def finish(self) -> int:
        """Let the run come to its end and return its exit code."""
        self.gate.release(ROWS)
        self.process.communicate(timeout=60)
        return self.process.returncode


@contextmanager
def running(folder: Path) -> Iterator[Live]:
    """A run of 70 rows in four parts of which the first 25 are done; it is killed at the end if it has not ended."""
    texts = write_rows(folder / "rows.jsonl", (f"row {n}" for n in range(ROWS)))
    gate = threading.Semaphore(0)

    def respond(request: Request) -> Answer:
        if request.method != "POST":  # a look at what else the endpoint offers
            return as_json({}, 404)
        gate.acquire()
        return completion(f"answer to {request.prompt}", id=f"chatcmpl-{digest(request.prompt)}")

    with recording(respond) as endpoint:
        output = {"path": "out", "rows_per_part": 20}
        job = write_job(folder, endpoint.base_url, limits={"concurrency": 8}, output=output)
        live = Live(job, texts, start("run", str(job), "-q"), endpoint, gate)
        try:
            live.let(25)
            yield live
        finally:
            kill(live.process)
            gate.release(10 * ROWS)  # so that no thread of the endpoint waits for ever


def status(live: Live) -> dict[str, Any]:
    """What `batcher status --json` says."""
    end = batcher("status", str(live.job), "--json")
    assert end.returncode == 0, end.stderr
    found: dict[str, Any] = orjson.loads(end.stdout)
    return found


def until(condition: Callable[[], bool], live: Live) -> None:
    """Look until the condition holds; the run must live as long."""
    deadline = time.monotonic() + 60
    while not condition():
        assert live.process.poll() is None, live.process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_readers_do_not_disturb_a_run(tmp_path: Path) -> None:
    """Rows shown and exported meanwhile are right and all there; the run asks every row once and ends well."""
    with running(tmp_path) as live:
        for count in (26, 66):
            live.let(count - live.done())
            end = batcher("export", str(live.job), "--partial", "--to", str(tmp_path / "some.jsonl"), "--force")
            assert (end.returncode, end.stdout.split()[0]) == (0, str(count)), end.stderr
            rows = [orjson.loads(line) for line in (tmp_path / "some.jsonl").read_bytes().splitlines()]
            assert [row["row_index"] for row in rows] == sorted({row["row_index"] for row in rows})
            assert all(row["text"] == live.texts[row["row_index"]] for row in rows)
            assert all(row["completion"] == f"answer to {row['text']}" for row in rows)
            end = batcher("show", str(live.job), "--row", str(rows[-1]["row_index"]), "--json")
            shown = orjson.loads(end.stdout)
            assert shown["messages"] == [{"role": "user", "content": rows[-1]["text"]}]
            assert shown["completion"] == rows[-1]["completion"]
            assert batcher("failures", str(live.job)).stdout.startswith(f"0 of {count} rows failed")
            assert batcher("export", str(live.job), "--to", str(tmp_path / "all.csv")).returncode == 75
            assert status(live)["state"] == "running"
        assert live.finish() == 0
        asked = Counter(request.prompt for request in live.endpoint.requests if request.method == "POST")
    assert asked == Counter(live.texts)
    check_output(live.out, live.texts)
    assert status(live)["state"] == "finished"
    assert batcher("export", str(live.job), "--to", str(tmp_path / "all.csv")).returncode == 0


def test_watching_a_run(tmp_path: Path) -> None:
    """A line for every change, until the run ends; then the watcher ends too, with 0."""
    with running(tmp_path) as live:
        watcher = start("status", "--watch", str(live.job))
        assert watcher.stdout is not None
        first = watcher.stdout.readline()
        assert re.fullmatch(r"\d\d:\d\d:\d\d running: \d+/70 rows, \d+ ok, 0 failed, \d+ in flight\n", first)
        assert live.finish() == 0
        out, err = watcher.communicate(timeout=60)
    assert (watcher.returncode, err) == (0, "")
    assert re.fullmatch(r"\S+ finished: 70/70 rows, 70 ok, 0 failed, 0 in flight", out.splitlines()[-1])


def test_watching_a_run_that_is_killed(tmp_path: Path) -> None:
    """The watcher sees that the process is gone, and says so with the rows as they were saved."""
    with running(tmp_path) as live:
        watcher = start("status", "--watch", "--json", str(live.job))
        assert watcher.stdout is not None
        first = orjson.loads(watcher.stdout.readline())
        assert (first["state"], first["pid"]) == ("running", live.process.pid)
        kill(live.process)
        out, _ = watcher.communicate(timeout=60)
        assert watcher.returncode == 0
        last = orjson.loads(out.splitlines()[-1])
    assert (last["state"], last["completed"], last["in_flight"]) == ("died", 25, 0)
    assert 1 <= last["ambiguous"] <= 16


def test_a_watcher_that_is_left(tmp_path: Path) -> None:
    """Ctrl-C ends the watcher with 0 and the run not at all."""
    with running(tmp_path) as live:
        watcher = start("status", "--watch", str(live.job))
        assert watcher.stdout is not None
        assert "running" in watcher.stdout.readline()
        watcher.send_signal(signal.SIGINT)
        _, err = watcher.communicate(timeout=60)
        assert (watcher.returncode, err) == (0, "")
        assert live.finish() == 0


def test_watching_on_a_terminal(tmp_path: Path) -> None:
    """The newest state takes the place of the one before; no line is wider than the terminal."""
    with running(tmp_path) as live:
        ours, theirs = pty.openpty()
        env = {**BARE, "TERM": "xterm", "COLUMNS": "50", "LINES": "24"}
        command = [BATCHER, "status", "--watch", str(live.job)]
        with subprocess.Popen(command, stdout=theirs, env=env, cwd=tmp_path) as watcher:
            os.close(theirs)
            seen = b""
            while seen.count(b"\x1b[J") < 2:
                seen += os.read(ours, 4096)
            watcher.send_signal(signal.SIGINT)
            assert watcher.wait(timeout=60) == 0
        os.close(ours)
    first, up, _ = re.split(r"\x1b\[(\d)F\x1b\[J", seen.decode(), maxsplit=1)
    lines = first.splitlines()
    assert int(up) == len(lines)
    assert lines[0] == f"out: running (pid {live.process.pid})"
    assert lines[1].startswith("rows:   ")
    assert all(len(line) < 50 for line in lines)


@pytest.mark.parametrize("command", ["status", "show", "failures", "export"])
def test_a_run_that_was_killed(tmp_path: Path, command: str) -> None:
    """What it had committed is there to be seen, and resuming it afterwards is as if nobody had looked."""
    with running(tmp_path) as live:
        kill(live.process)
        arguments = {
            "status": (),
            "show": ("-n", "99", "--json"),
            "failures": ("--json",),
            "export": ("--partial", "--to", str(tmp_path / "x.jsonl")),
        }[command]
        end = batcher(command, str(live.job), *arguments)
        assert end.returncode == 0, end.stderr
        if command == "status":
            assert "it was killed and can be resumed" in end.stdout
            assert "rows:   25 of 70 (25 completed, 0 failed), 0 in flight" in end.stdout
        if command == "show":
            assert len(end.stdout.splitlines()) == 25
        if command == "export":
            assert end.stdout.startswith("25 rows:")
        live.gate.release(10 * ROWS)
        again = batcher("run", str(live.job), "-q")
        assert again.returncode == 0, again.stderr
    check_output(live.out, live.texts)


def test_asking_failed_rows_again(tmp_path: Path) -> None:
    """The command that `batcher failures` prints asks exactly the failed rows once more, as it stands there."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(ROWS)))
    poison = {texts[3], texts[50]}
    asked: list[str] = []

    def respond(request: Request) -> Answer:
        if request.method != "POST":
            return as_json({}, 404)
        asked.append(request.prompt)
        first = asked.count(request.prompt) == 1
        if request.prompt in poison and first:
            return as_json({"error": {"message": "no", "code": "bad_image"}}, 400)
        return completion(id=f"chatcmpl-{digest(request.prompt)}")

    (tmp_path / "my jobs").mkdir()
    with recording(respond) as endpoint:
        source, output = {"path": "../rows.jsonl"}, {"path": "../out"}
        job = write_job(tmp_path / "my jobs", endpoint.base_url, input=source, output=output)
        assert batcher("run", str(job), "-q").returncode == 3
        page = batcher("failures", "my jobs/job.yaml", cwd=tmp_path).stdout
        (command,) = re.findall("batcher run .*", page)
        end = batcher(*shlex.split(command)[1:], cwd=tmp_path)
        assert end.returncode == 0, end.stderr
    assert sorted(asked[ROWS:]) == sorted(poison)
    check_output(tmp_path / "out", texts)
