"""`from batcher import run, load_job`: the same run from a program or a notebook."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from blockbuster import BlockBuster

from batcher import Figures, InputError, Interrupted, Job, JobError, StorageError, load_job, run
from batcher.simulator import SimulatorOptions, SimulatorProcess
from batcher.simulator import start as start_simulator
from tests.harness import Ledger, check_output, digest, write_job, write_rows

TABLE = pa.table(
    {
        "text": ["one", "two", "three"],
        "day": pa.array([date(2024, 2, 29), None, date(1970, 1, 1)]),
        "price": pa.array([Decimal("1.10"), Decimal("-0.01"), None], pa.decimal128(9, 2)),
        "tags": pa.array([["x", "y"], [], None], pa.list_(pa.string())),
    }
)


@pytest.fixture(autouse=True)
def blocking_is_meant(blocking_calls_fail: BlockBuster) -> None:
    """A run in a notebook's loop blocks that loop."""
    blocking_calls_fail.deactivate()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the endpoint of these tests writes down."""
    return tmp_path_factory.mktemp("endpoint") / "ledger.jsonl"


@pytest.fixture(scope="module")
def endpoint(ledger: Path) -> Iterator[SimulatorProcess]:
    """One endpoint for these tests."""
    with start_simulator(SimulatorOptions(latency_s=0.01, ledger=ledger)) as simulator:
        yield simulator


def job_of(folder: Path, endpoint: SimulatorProcess, **changes: Any) -> Job:
    """A job without an input, made from a mapping."""
    values = {
        "model": "deepseek-v4-flash",
        "endpoint": {"base_url": endpoint.base_url},
        "prompt": "{{ text }}",
        "output": {"path": folder / "out", "rows_per_part": 50},
        "limits": {"concurrency": 16},
    }
    return load_job({**values, **changes})


def ids_of(texts: list[str]) -> list[str]:
    """The ids of the answers to these prompts."""
    return [f"chatcmpl-{digest(text)}" for text in texts]


def test_rows_of_a_generator_in_a_running_loop(tmp_path: Path, endpoint: SimulatorProcess) -> None:
    """In a notebook's loop: rows from a generator, figures to a function, the report as a table and a frame.

    A call without rows then finds everything done.
    """
    texts = [f"generated {number}" for number in range(120)]
    heard: list[Figures] = []

    async def cell() -> Any:
        return run(
            job_of(tmp_path, endpoint), ({"n": n, "text": t} for n, t in enumerate(texts)), progress=heard.append
        )

    report = asyncio.run(cell())
    assert (report.rows, report.parts, report.complete, report.totals.completed) == (120, 3, True, 120)
    table = report.to_arrow()
    assert table["text"].to_pylist() == texts
    assert table["response_id"].to_pylist() == ids_of(texts)
    assert table.equals(check_output(tmp_path / "out", texts))
    assert pa.Table.from_batches(report.batches()).equals(table)
    assert report.to_pandas()["text"].tolist() == texts
    assert [figures.done for figures in heard] == sorted(figures.done for figures in heard)
    assert (heard[0].done, heard[-1].done, heard[-1].total) == (0, 120, 120)
    again = run(job_of(tmp_path, endpoint))
    assert replace(again, path="") == replace(report, path="")


def test_a_table_keeps_its_types_and_its_rows(tmp_path: Path, endpoint: SimulatorProcess, ledger: Path) -> None:
    """Its columns come out as they went in; asked in two calls, each row is asked once; other rows are refused."""
    job = job_of(tmp_path, endpoint)
    some = run(job, TABLE, limit=2)
    assert (some.complete, some.to_arrow()["text"].to_pylist()) == (False, ["one", "two"])
    for other in (TABLE.slice(0, 2), TABLE.to_pylist()[:2], TABLE.set_column(0, "text", [["one", "two", "four"]])):
        with pytest.raises(InputError, match=r"the input changed .* Give the same rows, or none, to carry on"):
            run(job, other)
    same = pa.Table.from_batches(TABLE.to_batches(max_chunksize=1))
    table = run(job, same).to_arrow()
    assert table.select(TABLE.schema.names).equals(TABLE)
    assert table["response_id"].to_pylist() == ids_of(["one", "two", "three"])
    asked = Ledger.read(ledger).asked
    assert [asked[digest(text)] for text in ("one", "two", "three", "four")] == [1, 1, 1, 0]


def test_ctrl_c_in_a_running_loop(tmp_path: Path) -> None:
    """A notebook's stop button ends the run as a signal does: what is in flight is finished, and nothing is lost.

    What a watcher raises ends nothing.
    """
    texts = [f"interrupted {number}" for number in range(60)]
    ledger = tmp_path / "ledger.jsonl"

    def press(figures: Figures) -> None:
        if figures.done > 4:
            os.kill(os.getpid(), signal.SIGINT)
            raise LookupError("no more of this")

    async def cell(job: Job) -> None:
        with pytest.raises(Interrupted) as caught:
            run(job, [{"text": text} for text in texts], progress=press)
        assert caught.value.exit_code == 130

    with start_simulator(SimulatorOptions(latency_s=0.15, ledger=ledger)) as simulator:
        job = job_of(tmp_path, simulator, limits={"concurrency": 4})
        asyncio.run(cell(job))
        asked = sum(Ledger.read(ledger).asked.values())
        assert 4 < asked < 60
        report = run(job)
    assert report.to_arrow()["response_id"].to_pylist() == ids_of(texts)
    assert (report.totals.ambiguous, set(Ledger.read(ledger).asked.values())) == (0, {1})


def test_rows_in_place_of_a_job_files_input(tmp_path: Path, endpoint: SimulatorProcess) -> None:
    """Rows given count, whatever `input.path` names; a folder that began with a file refuses them."""
    write_rows(tmp_path / "rows.jsonl", ["from the file"])
    job = load_job(write_job(tmp_path, endpoint.base_url))
    assert run(job).to_arrow()["text"].to_pylist() == ["from the file"]
    with pytest.raises(InputError, match="the input changed"):
        run(job, [{"text": "given"}])
    other = load_job(tmp_path / "job.yaml", overrides=["output.path=other"])
    assert run(other, [{"text": "given"}]).to_arrow()["text"].to_pylist() == ["given"]


def test_what_does_not_begin_leaves_nothing(tmp_path: Path, endpoint: SimulatorProcess) -> None:
    """No rows, rows without the template's column, or a generator that fails: the folder is not even made."""
    job = job_of(tmp_path, endpoint)
    with pytest.raises(InputError, match=r"names no input\.path, and no rows were given"):
        run(job)
    with pytest.raises(JobError, match="the input has no column 'text'"):
        run(job, [{"txt": "a"}])
    with pytest.raises(InputError, match="is empty"):
        run(job, TABLE.slice(0, 0))
    with pytest.raises(ZeroDivisionError):
        run(job, ({"text": str(1 // n)} for n in (1, 0)))
    assert not (tmp_path / "out").exists()


def test_a_report_of_parts_that_are_gone(tmp_path: Path, endpoint: SimulatorProcess) -> None:
    """A report reads the folder when it is asked for rows, and says what is missing."""
    report = run(job_of(tmp_path, endpoint), [{"text": "a"}])
    (tmp_path / "out" / "part-00000.parquet").unlink()
    with pytest.raises(StorageError, match=r"part-00000\.parquet is missing"):
        report.to_arrow()


def test_importing_is_quick() -> None:
    """`import batcher` brings none of the large libraries; they come with the first call."""
    heavy = ("pyarrow", "pydantic", "aiohttp", "anyio", "orjson", "yaml", "pandas", "sqlite3", "asyncio")
    program = f"import batcher, sys; print([name for name in {heavy!r} if name in sys.modules])"
    end = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert end.stdout.strip() == "[]"
