"""The work that everybody does: rows of about 1 KB to ask, and the commands that ask them."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.server import Server

BATCHER = str(Path(sys.executable).with_name("batcher"))
HERE = Path(__file__).parent
#: the names of the table, and the programs behind them with their last arguments
OTHERS = {
    "RAW": ("raw",),
    "NAIVE": ("naive",),
    "OAI-A": ("openai_sdk", "aiohttp"),
    "OAI": ("openai_sdk", "httpx"),
}
#: these take so long for a row that they get fewer of them
SLOW = ("OAI-A", "OAI")
HAS_OPENAI = importlib.util.find_spec("openai") is not None


def rows_file(folder: Path, rows: int) -> Path:
    """Write so many rows with a prompt of about 1 KB each, the same in every run; once for each number."""
    path = folder / f"rows-{rows}.jsonl"
    if path.exists():
        return path
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 9))) for _ in range(3000)]
    with path.open("w") as file:
        for number in range(rows):
            file.write(json.dumps({"text": f"{number} {' '.join(chance.choices(words, k=150))}"}) + "\n")
    return path


def job_file(folder: Path, server: Server, rows: int, in_flight: int, **changes: Any) -> Path:
    """Write the job that asks these rows into `out`, which is removed."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    endpoint: dict[str, Any] = {"base_url": server.base_url}
    if server.ca_file is not None:
        endpoint["ca_file"] = str(server.ca_file)
    job = {
        "version": 1,
        "model": "deepseek-v4-flash",
        "endpoint": endpoint,
        "input": {"path": str(rows_file(folder, rows))},
        "prompt": "{{ text }}",
        "parameters": {"max_tokens": 200},
        "limits": {"concurrency": in_flight},
        "output": {"path": "out"},
        **changes,
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job))  # JSON is YAML
    return path


def batcher_command(job: Path) -> list[str]:
    """The whole product: JSONL in, journal and Parquet out."""
    return [BATCHER, "run", str(job), "-q"]


def engine_command(job: Path) -> list[str]:
    """batcher without journal and parts."""
    return [sys.executable, "-m", "tests.benchmarks.engine_only", str(job)]


def other_command(name: str, folder: Path, server: Server, rows: int, in_flight: int) -> list[str]:
    """One of `OTHERS`."""
    program, *last = OTHERS[name]
    module = f"tests.benchmarks.clients.{program}"
    command = [sys.executable, "-m", module, server.base_url, str(rows_file(folder, rows)), str(in_flight), *last]
    return [*command, str(server.ca_file)] if server.ca_file is not None else command
