"""The measurements of programs side by side: who needs how much for the same rows. Each returns a part of the JSON."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Sample, Used, in_turns, measure, slope
from tests.benchmarks.server import Server
from tests.benchmarks.settings import Bench
from tests.benchmarks.work import (
    HAS_OPENAI,
    SLOW,
    batcher_command,
    engine_command,
    job_file,
    other_command,
)

#: the loop that Python comes with, though uvloop be installed
_WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from batcher.cli import main; main()"


def say(words: str) -> None:
    """Tell how far it is."""
    print(words, file=sys.stderr, flush=True)


def _measured(command: Callable[[int], list[str]], few: int, many: int, server: Server) -> Sample:
    """The slope of a program, and how busy the server was with the larger number of rows."""

    def run(rows: int) -> Used:
        words = command(rows)
        server.reset()
        return measure(words)

    sample = slope(run, few, many)
    load = server.load()
    if server.native and (load.requests < many or load.cut):  # the openai package may ask a row twice
        raise SystemExit(f"the server counted {load.requests} requests for {many} rows, {load.cut} cut")
    return {**sample, "server_busy": load.busy if server.native else 0.0}


def _programs(bench: Bench, server: Server, in_flight: int) -> dict[str, Callable[[int], list[str]]]:
    """The command of every program, by the number of rows."""

    def product(rows: int) -> list[str]:
        return batcher_command(job_file(bench.folder, server, rows, in_flight))

    def product_on_asyncio(rows: int) -> list[str]:
        return [sys.executable, "-c", _WITHOUT_UVLOOP, *product(rows)[1:]]

    def engine(rows: int) -> list[str]:
        return engine_command(job_file(bench.folder, server, rows, in_flight))

    others = {
        name: functools.partial(_other, name, bench.folder, server, in_flight)
        for name in ("RAW", "NAIVE", "OAI-A", "OAI")
        if HAS_OPENAI or name not in SLOW
    }
    return {**others, "engine alone": engine, "batcher, asyncio": product_on_asyncio, "batcher": product}


def _other(name: str, folder: Path, server: Server, in_flight: int, rows: int) -> list[str]:
    return other_command(name, folder, server, rows, in_flight)


def _run(bench: Bench, server: Server, in_flight: int, names: tuple[str, ...], rows: int) -> dict[str, list[Sample]]:
    programs = _programs(bench, server, in_flight)
    runs: dict[str, Callable[[], Sample]] = {}
    for name in names:
        if name in programs:
            many = rows // 10 if name in SLOW else rows
            runs[name] = functools.partial(_measured, programs[name], many // 3, many, server)
    return in_turns(runs, bench.rounds, say)


def compare(bench: Bench) -> dict[str, Any]:
    """Everybody on the same rows: 500 in flight, answers so late that `rate` rows a second are the most."""
    in_flight, latency_s = 500, 500 / bench.rate
    names = ("RAW", "NAIVE", "OAI-A", "OAI", "engine alone", "batcher, asyncio", "batcher")
    with bench.serving("compare", latency_s) as server:
        found = _run(bench, server, in_flight, names, bench.rows)
    return {"in_flight": in_flight, "latency_s": latency_s, "rows": bench.rows, "programs": found}


def server(bench: Bench) -> dict[str, Any]:
    """What the server can do at most: answers at once, asked by several bare clients at a time."""
    rows = bench.scaled(100_000)
    with bench.serving("server", 0.0) as endpoint:
        command = other_command("RAW", bench.folder, endpoint, rows, 50)
        endpoint.reset()
        clients = [subprocess.Popen(command) for _ in range(3)]
        if [client.returncode for client in clients if client.wait()]:
            raise SystemExit("a client of the server failed")
        load = endpoint.load()
    # three clients and the server share the cores: the share of a core it had says what it does with a whole one
    return {"requests_per_s": load.requests / load.elapsed_s, "of_a_core": load.requests / max(load.cpu_s, 1e-9)}


def sweep(bench: Bench) -> dict[str, Any]:
    """What a row costs with 100, 1,000 and 10,000 in flight, at the same rate."""
    found: dict[str, Any] = {}
    numbers = (100, 300, 1000) if bench.quick else (100, 1000, 10_000)
    rows = max(bench.rows, 9 * numbers[-1])
    for in_flight in numbers:
        with bench.serving(f"sweep {in_flight}", in_flight / bench.rate) as server:
            found[str(in_flight)] = _run(bench, server, in_flight, ("RAW", "NAIVE", "batcher"), rows)
    return {"rate": bench.rate, "rows": rows, "in_flight": found}


def saturation(bench: Bench) -> dict[str, Any]:
    """The rate with so many in flight against an answer of 1 s, and how late the client hears of its answers."""
    found: dict[str, list[Sample]] = {}
    for in_flight in (1000, 2500, 5000, 10_000):
        in_flight = in_flight // 10 if bench.quick else in_flight
        rows = 24 * in_flight
        with bench.serving(f"saturation {in_flight}", 1.0) as server:

            def once(server: Server = server, rows: int = rows, in_flight: int = in_flight) -> Sample:
                command = batcher_command(job_file(bench.folder, server, rows, in_flight))
                used = measure(command)
                return {**_from_parts(bench.folder / "out", rows, in_flight), "cores": used.cpu_s / used.wall_s}

            found.update({str(in_flight): in_turns({f"{in_flight}": once}, bench.rounds, say)[f"{in_flight}"]})
    return {"latency_s": 1.0, "in_flight": found}


_FROM_PARTS = """
import sys, pyarrow.parquet as pq, pyarrow.compute as pc
table = pq.read_table(sys.argv[1], columns=["requested_at", "latency_s"])
latency = table["latency_s"].slice(len(table) // 2)
ended = pc.add(pc.divide(pc.cast(table["requested_at"], "int64"), 1e6), table["latency_s"]).to_pylist()
ended.sort()
late = ended[len(ended) // 2 : -int(sys.argv[2])]  # when all slots are in use, and before they run empty
print((len(late) - 1) / (late[-1] - late[0]), pc.quantile(latency, q=[0.5, 0.99]).to_pylist())
"""


def _from_parts(out: Path, rows: int, in_flight: int) -> Sample:
    """Rate and latencies of the second half of the rows, as the parts have them."""
    command = [sys.executable, "-c", _FROM_PARTS, str(out), str(in_flight)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, *latencies = told.replace("[", "").replace("]", "").replace(",", "").split()
    return {
        "rows_per_s": float(rate),
        "of_ideal": float(rate) / in_flight,
        "median_delay": float(latencies[0]) - 1.0,
        "p99_delay": float(latencies[1]) - 1.0,
    }


def memory(bench: Bench) -> dict[str, Any]:
    """The peak with 1e4, 1e5 and 1e6 rows, 500 in flight."""
    found: dict[str, list[Sample]] = {}
    with bench.serving("memory", 0.05) as server:
        for rows in (10_000, 100_000, 1_000_000):
            rows = bench.scaled(rows)

            def once(rows: int = rows) -> Sample:
                used = measure(batcher_command(job_file(bench.folder, server, rows, 500)))
                return {"peak_mb": used.peak_mb, "cpu_us_with_start": used.cpu_s / rows * 1e6, "wall_s": used.wall_s}

            rounds = 1 if rows > 500_000 else min(3, bench.rounds)
            found[str(rows)] = in_turns({f"{rows} rows": once}, rounds, say)[f"{rows} rows"]
    return {"in_flight": 500, "rows": found}


def tax(bench: Bench) -> dict[str, Any]:
    """What journal and parts add, to CPU and to time: 500 in flight."""
    with bench.serving("tax", 500 / bench.rate) as server:
        found = _run(bench, server, 500, ("engine alone", "batcher"), bench.rows)
    return {"rows": bench.rows, "programs": found}


def tls(bench: Bench) -> dict[str, Any]:
    """batcher and NAIVE over TLS beside plain HTTP: 500 in flight; and what a connection more takes."""
    found: dict[str, Any] = {}
    certificate = _certificate(bench.folder)
    many, few = (400, 100) if bench.quick else (4000, 500)
    for name, options in (("plain", {}), ("tls", {"certificate": certificate})):
        with bench.serving(name, 500 / bench.rate, **options) as server:
            found[name] = _run(bench, server, few, ("NAIVE", "batcher"), bench.rows)
        with bench.serving(f"{name} {many}", many / bench.rate, **options) as server:
            found[f"{name} {many}"] = _run(bench, server, many, ("NAIVE", "batcher"), max(bench.rows, 9 * many))
    return {"few": few, "many": many, "programs": found}


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [*new, "-days", "30", *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    return certificate, key


_SETUPS = {
    "as it is": "",
    "asyncio instead of uvloop": "sys.modules['uvloop'] = None",
    "collector as Python sets it": "import gc, batcher.tuning as t; t._GC_THRESHOLDS = gc.get_threshold()",
    "collector off": "import batcher.tuning as t; t._GC_THRESHOLDS = (0, 0, 0)",
    "without freeze": "import gc; gc.freeze = lambda: None",
    "arenas as glibc sets them": "import batcher.tuning as t; t._glibc = lambda *words: None",
    "Arrow's own memory pool": "import pyarrow; pyarrow.set_memory_pool = lambda pool: None",
    "with pandas, where it is installed": "import batcher.tuning as t; t.spare_pandas = lambda: None",
}


def setups(bench: Bench) -> dict[str, Any]:
    """batcher with one thing at a time set otherwise than `batcher/tuning.py` sets it; 500 in flight."""
    with bench.serving("setups", 0.05) as server:

        def command(words: str, rows: int) -> list[str]:
            job = job_file(bench.folder, server, rows, 500)
            program = f"import sys; {words}\nfrom batcher.cli import main; main()"
            return [sys.executable, "-c", program, *batcher_command(job)[1:]]

        runs = {
            name: functools.partial(_measured, functools.partial(command, words), bench.few, bench.rows, server)
            for name, words in _SETUPS.items()
        }
        found = in_turns(runs, bench.rounds, say)
    return {"rows": bench.rows, "programs": found}
