"""The measurements of time until something happens: a start, a plan, a resumed run's first request."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from tests.benchmarks.measure import Sample, in_words, measure
from tests.benchmarks.sections import say
from tests.benchmarks.server import Server
from tests.benchmarks.settings import Bench
from tests.benchmarks.work import BATCHER, batcher_command, job_file, rows_file

#: a run whose first request has not left by then has failed
_PATIENCE_S = 120.0


def resume(bench: Bench) -> dict[str, Any]:
    """How soon 1e6 rows go on when half of them are done, and how soon they are found to be done."""
    rows = bench.scaled(1_000_000)
    found: dict[str, list[Sample]] = {}
    # answers that take no time: only the state that this leaves is wanted
    with bench.serving("resume", 0.02) as server:
        job = job_file(bench.folder, server, rows, 500)
        found["fresh"] = [_first_request(batcher_command(job), server)]
        say(f"fresh, {rows} rows: " + in_words(found["fresh"][0]))
        half = rows // 2 + rows // 250  # some of it in a shard that is not full
        measure([*batcher_command(job), "--limit", str(half)], exit_code=75)  # stopped with rows left
        found["half"] = [_first_request(batcher_command(job), server) for _ in range(bench.rounds)]
        say("half finished: " + in_words(found["half"][0]))
        measure(batcher_command(job))
        found["finished"] = []
        for _ in range(bench.rounds):
            used = measure(batcher_command(job))
            found["finished"].append({"wall_s": used.wall_s, "cpu_s": used.cpu_s, "peak_mb": used.peak_mb})
        say("finished: " + in_words(found["finished"][0]))
    return {"rows": rows, "runs": found}


def _first_request(command: list[str], server: Server) -> Sample:
    """Start a run, wait for its first request, and kill it; so the next one has a crash behind it."""
    server.reset()
    began = time.time()
    process = subprocess.Popen(command)
    while not (first_s := server.load().first_s):
        if process.poll() is not None or time.time() - began > _PATIENCE_S:
            raise SystemExit(f"no request came from {' '.join(command)}")
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return {"first_request_s": first_s - began}


_PLAN = """
import sys, time
from pathlib import Path
from batcher.job import load_job
from batcher.plan import make_plan
from batcher.source import find_files
from batcher.tuning import spare_pandas
spare_pandas()
job = load_job(Path(sys.argv[1]))
began = time.monotonic()
plan = make_plan(job, find_files(job.input.path))
print(plan.rows, time.monotonic() - began)
"""


def plan(bench: Bench) -> dict[str, Any]:
    """Megabytes a second of the pass over a JSONL input that a new run begins with; the file is in the page cache."""
    rows = bench.scaled(500_000)
    path = rows_file(bench.folder, rows)
    server = Server("http://localhost:9/v1", 1.0, native=False)
    job = job_file(bench.folder, server, rows, 100)
    path.read_bytes()
    samples: list[Sample] = []
    for _ in range(bench.rounds):
        command = [sys.executable, "-c", _PLAN, str(job)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        if int(told[0]) != rows:
            raise SystemExit(f"the plan has {told[0]} rows of {rows}")
        samples.append({"mb_per_s": path.stat().st_size / 1e6 / float(told[1]), "seconds": float(told[1])})
        say(f"plan of {rows} rows: " + in_words(samples[-1]))
    return {"rows": rows, "mb": path.stat().st_size / 1e6, "plan": samples}


def starts(bench: Bench) -> dict[str, Any]:
    """Seconds that a start takes: the command's help, and the package's import."""
    commands = {
        "batcher --help": [BATCHER, "--help"],
        "import batcher": [sys.executable, "-c", "import batcher"],
        "python": [sys.executable, "-c", ""],
    }
    found: dict[str, list[Sample]] = {name: [] for name in commands}
    for _ in range(max(5, bench.rounds)):
        for name, command in commands.items():
            began = time.monotonic()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found[name].append({"wall_s": time.monotonic() - began})
    for name, samples in found.items():
        say(f"{name}: " + in_words(min(samples, key=lambda one: one["wall_s"])))
    return {"commands": found}
