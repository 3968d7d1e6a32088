"""Signals and a closed terminal: what is in flight is finished and kept, and nothing is asked twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest

from batcher.simulator import SimulatorOptions, SimulatorProcess
from batcher.simulator import start as start_simulator
from tests.harness import (
    BARE,
    BATCHER,
    Ledger,
    batcher,
    check_money,
    check_output,
    digest,
    kill,
    start,
    unsure,
    write_job,
    write_rows,
    write_script,
)
from tests.recording_server import as_json, completion, recording
from tests.simulator_client import counts, wait_until

CONCURRENCY = 16


def stop_while_busy(process: subprocess.Popen[str], simulator: SimulatorProcess, signum: int) -> tuple[int, str]:
    """Send a signal once rows are answered and others in flight; return the exit code and standard error."""
    wait_until(lambda: counts(simulator)["answered"] >= 40 and counts(simulator)["in_flight"] >= 8)
    os.kill(process.pid, signum)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


@pytest.mark.parametrize(
    "signum, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_first_signal_finishes_what_is_in_flight(tmp_path: Path, signum: int, code: int) -> None:
    """After one signal the answers in flight are awaited and kept, and the next run asks none of them again."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(400)))
    options = SimulatorOptions(latency_s=0.15, spread=0.3, ledger=tmp_path / "ledger.jsonl")
    with start_simulator(options) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        ended, stderr = stop_while_busy(start("run", str(job)), simulator, signum)
        assert ended == code, stderr
        assert "Traceback" not in stderr
        assert f"carry on with: batcher run {job}" in stderr
        summary = orjson.loads((tmp_path / "out" / ".batcher" / "summary.json").read_bytes())
        wait_until(lambda: counts(simulator)["in_flight"] == 0)
        answered = counts(simulator)["answered"]
        assert 40 <= answered < 400
        assert (summary["completed"], summary["state"], summary["ambiguous"]) == (answered, "stopped", 0)
        end = batcher("run", str(job))
    assert end.returncode == 0, end.stderr
    check_output(tmp_path / "out", texts)
    ledger = Ledger.read(tmp_path / "ledger.jsonl")
    assert ledger.asked == ledger.answered == Counter(map(digest, texts))


def test_second_signal_leaves_at_once(tmp_path: Path) -> None:
    """A second signal does not wait for slow answers; what was received is kept, the rest counts as perhaps paid."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}{' slow' * (n < 80 and n % 5 == 4)}" for n in range(400)))
    script = write_script(tmp_path / "script.yaml", {"match": "slow", "answers": [{"delay_s": 300}]})
    options = SimulatorOptions(latency_s=0.01, script=script, ledger=tmp_path / "ledger.jsonl")
    with start_simulator(options) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        process = start("run", str(job))
        wait_until(lambda: counts(simulator)["in_flight"] == CONCURRENCY and counts(simulator)["answered"] >= 64)
        received = counts(simulator)["answered"]
        os.kill(process.pid, signal.SIGINT)
        assert process.stderr is not None
        while "stopping: finishing" not in (line := process.stderr.readline()):
            assert line, "it left on the first signal"
        assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 130, stderr
        assert "Traceback" not in stderr
        summary = orjson.loads((tmp_path / "out" / ".batcher" / "summary.json").read_bytes())
        assert summary["completed"] == received
        end = batcher("run", str(job), "--json")
    assert end.returncode == 0, end.stderr
    check_output(tmp_path / "out", texts)
    assert orjson.loads(end.stdout)["totals"]["ambiguous"] == CONCURRENCY
    ledger = Ledger.read(tmp_path / "ledger.jsonl")
    check_money(ledger, texts, unsure=0)
    assert sum(ledger.asked.values()) == len(texts) + CONCURRENCY


def test_unsure_requests_are_counted_once(tmp_path: Path) -> None:
    """What a killed run left unsure is counted once, alike in the report and in the summary."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(8)))
    script = write_script(tmp_path / "script.yaml", {"every": 1, "answers": [{"delay_s": 300}]})
    with start_simulator(SimulatorOptions(latency_s=0, script=script)) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        process = start("run", str(job), "-q")
        wait_until(lambda: counts(simulator)["in_flight"] == len(texts))
        kill(process)
        end = batcher("run", str(job), "--json")
    check_output(tmp_path / "out", texts)
    assert orjson.loads(end.stdout)["totals"]["ambiguous"] == len(texts)
    assert unsure(tmp_path / "out") == len(texts)


def test_signal_while_everything_waits(tmp_path: Path) -> None:
    """A signal ends a run at once that is waiting out a long pause asked for by the server."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(30)))
    later = as_json({"error": {"message": "later"}}, 429, **{"Retry-After": "600"})
    with recording(lambda request: later) as server:
        job = write_job(tmp_path, server.base_url)
        process = start("run", str(job))
        assert process.stderr is not None
        while "next request in" not in (line := process.stderr.readline()):
            assert line, "it ended instead of waiting"
        os.kill(process.pid, signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 143, stderr
        server.respond = lambda request: completion(id=f"chatcmpl-{digest(request.prompt)}")
        assert batcher("run", str(job), "-q").returncode == 0
    check_output(tmp_path / "out", texts)


@pytest.mark.parametrize("first_lines", [0, 1])
def test_reader_of_the_output_leaves_early(tmp_path: Path, first_lines: int) -> None:
    """Whoever closes our standard output and error early loses the words, never a row."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(100)))
    with start_simulator(SimulatorOptions(latency_s=0.02, ledger=tmp_path / "ledger.jsonl")) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        process = subprocess.Popen([BATCHER, "run", str(job), "-v"], stdout=-1, stderr=subprocess.STDOUT, env=BARE)
        assert process.stdout is not None
        for _ in range(first_lines):
            process.stdout.readline()
        process.stdout.close()
        code = process.wait(60)
        check_output(tmp_path / "out", texts)  # all of it by this run alone
        end = batcher("run", str(job))
    assert code in (0, 141)
    assert end.returncode == 0, end.stderr
    assert Ledger.read(tmp_path / "ledger.jsonl").asked == Counter(map(digest, texts))


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
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(200)))
    options = SimulatorOptions(latency_s=0.05, ledger=tmp_path / "ledger.jsonl")
    with start_simulator(options) as simulator:
        process = start("run", str(write_job(tmp_path, simulator.base_url)), "-q")
        wait_until(lambda: counts(simulator)["answered"] >= 20)
        os.kill(process.pid, signal.SIGSTOP)
        wait_until(lambda: counts(simulator)["in_flight"] == 0)
        time.sleep(0.5)  # frozen for a while: nothing is waited for, so there is nothing to poll
        os.kill(process.pid, signal.SIGCONT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    check_output(tmp_path / "out", texts)
    assert Ledger.read(tmp_path / "ledger.jsonl").asked == Counter(map(digest, texts))


def test_a_hangup_that_was_to_be_ignored(tmp_path: Path) -> None:
    """Under nohup a hangup stops nothing."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(200)))
    with start_simulator(SimulatorOptions(latency_s=0.05)) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        command = ["nohup", BATCHER, "run", str(job), "-q"]
        process = subprocess.Popen(command, env=BARE, stdin=-3, stdout=-1, stderr=-1, text=True)
        wait_until(lambda: counts(simulator)["answered"] >= 20)
        os.kill(process.pid, signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == 0
    check_output(tmp_path / "out", texts)
