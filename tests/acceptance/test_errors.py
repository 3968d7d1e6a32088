"""What a user got wrong before anything is sent: one clear line for each mistake, the right exit code, no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from batcher.simulator import SimulatorOptions, SimulatorProcess
from batcher.simulator import start as start_simulator
from tests.harness import BARE, batcher, check_output, write_job, write_rows


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Where the simulator writes what it was asked."""
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def simulator(ledger: Path) -> Iterator[SimulatorProcess]:
    """An endpoint that answers everything."""
    with start_simulator(SimulatorOptions(latency_s=0, ledger=ledger)) as process:
        yield process


def refused(job: Path, code: int, *needles: str, options: tuple[str, ...] = (), **more: Any) -> list[str]:
    """Assert that a run ends at once with this exit code and one line that says all of `needles`; return its lines."""
    end = batcher("run", str(job), *options, **more)
    assert end.returncode == code, end.stderr
    assert end.stdout == ""
    assert "Traceback" not in end.stderr
    assert "File " not in end.stderr
    lines = end.stderr.splitlines()
    assert any(all(needle in line for needle in needles) for line in lines), end.stderr
    return lines


def test_missing_input(tmp_path: Path, simulator: SimulatorProcess, ledger: Path) -> None:
    """An input file that is not there is named, exit 65."""
    job = write_job(tmp_path, simulator.base_url)
    assert len(refused(job, 65, "rows.jsonl")) == 1
    assert ledger.read_bytes() == b""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_empty_input(tmp_path: Path, simulator: SimulatorProcess, content: bytes) -> None:
    """An input without a single row is named in one line, not taken for a finished run."""
    (tmp_path / "rows.jsonl").write_bytes(content)
    assert len(refused(write_job(tmp_path, simulator.base_url), 65, "rows")) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder, so none is unreadable")
def test_unreadable_folder(tmp_path: Path, simulator: SimulatorProcess) -> None:
    """A folder that may not be read is named, exit 65."""
    folder = tmp_path / "rows"
    folder.mkdir(mode=0)
    job = write_job(tmp_path, simulator.base_url, input={"path": "rows"})
    assert len(refused(job, 65, str(folder))) == 1


def test_every_problem_of_a_job_file_at_once(tmp_path: Path) -> None:
    """All mistakes of a job file are said in one go, each with file:line:column and what was probably meant."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    job = tmp_path / "job.yaml"
    job.write_text(
        "version: 1\n"
        "model: deepseek-v4-flash\n"
        "endpoint: {base_url: simulator}\n"
        "input:\n"
        "  path: rows.jsonl\n"
        "  idd: n\n"
        'prompt: "{{ text }}"\n'
        "parameters:\n"
        "  temprature: 0.2\n"
        "limits:\n"
        "  concurency: 5\n"
        "  max_attempts: many\n"
        "output: {path: out}\n"
    )
    lines = refused(job, 78, "job.yaml:11:3: limits.concurency", "did you mean 'concurrency'")
    text = "\n".join(lines)
    assert f"{job}:6:3: input.idd" in text
    assert f"{job}:9:3: parameters.temprature" in text
    assert "did you mean 'temperature'" in text
    assert f"{job}:12:3: limits.max_attempts" in text
    assert len(lines) == 4
    assert not (tmp_path / "out").exists()


def test_yaml_that_does_not_parse(tmp_path: Path) -> None:
    """A job file that is not YAML is refused in one line with file, line and column."""
    (tmp_path / "job.yaml").write_text("version: 1\nmodel: [a\nprompt: b\n")
    assert len(refused(tmp_path / "job.yaml", 78, "job.yaml:3:")) == 1


def test_missing_job_file(tmp_path: Path) -> None:
    """A job file that is not there is named, exit 78."""
    assert len(refused(tmp_path / "no.yaml", 78, "no.yaml")) == 1


def test_template_column_that_the_input_lacks(tmp_path: Path, simulator: SimulatorProcess, ledger: Path) -> None:
    """A column that the template names and the input lacks is refused before any request, with what was meant."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    job = write_job(tmp_path, simulator.base_url, prompt="{{ txet }}")
    assert len(refused(job, 78, "'txet'", "did you mean 'text'")) == 1
    assert ledger.read_bytes() == b""


@pytest.mark.parametrize("place", ["taken", "taken/out"])
def test_output_that_cannot_be_a_folder(tmp_path: Path, simulator: SimulatorProcess, ledger: Path, place: str) -> None:
    """An output folder that is a file, or lies below one, is a storage error that names it, exit 74."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    (tmp_path / "taken").write_text("mine")
    job = write_job(tmp_path, simulator.base_url, output={"path": place})
    assert len(refused(job, 74, str(tmp_path / place))) == 1
    assert ledger.read_bytes() == b""
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("value", [None, "", "two words"])
def test_key_variable_unset(tmp_path: Path, simulator: SimulatorProcess, ledger: Path, value: str | None) -> None:
    """A key variable that is unset, empty or no key is named, and nothing is sent."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    job = write_job(tmp_path, "x", endpoint={"base_url": simulator.base_url, "api_key_env": "MY_KEY"})
    env = BARE if value is None else {**BARE, "MY_KEY": value}
    lines = refused(job, 78, "MY_KEY", env=env)
    assert len(lines) == 1
    assert "two words" not in lines[0]
    assert ledger.read_bytes() == b""


def test_key_file_missing(tmp_path: Path, simulator: SimulatorProcess, ledger: Path) -> None:
    """A key file that is not there is named, and nothing is sent."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    job = write_job(tmp_path, "x", endpoint={"base_url": simulator.base_url, "api_key_file": "key.txt"})
    assert len(refused(job, 78, "key.txt")) == 1
    assert ledger.read_bytes() == b""


def test_endpoint_refused_at_start(tmp_path: Path) -> None:
    """An address where nothing listens ends the run with 69, names host and port, and leaves the rows pending."""
    texts = write_rows(tmp_path / "rows.jsonl", ["a", "b", "c"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        port = taken.getsockname()[1]
        lines = refused(write_job(tmp_path, f"http://127.0.0.1:{port}"), 69, f"127.0.0.1 port {port}")
    assert sum(line.startswith("batcher:") for line in lines) == 1
    summary = orjson.loads((tmp_path / "out" / ".batcher" / "summary.json").read_bytes())
    assert (summary["completed"], summary["failed"], summary["total"]) == (0, 0, len(texts))


def test_id_column_missing(tmp_path: Path, simulator: SimulatorProcess, ledger: Path) -> None:
    """An `input.id` that the input lacks is refused before any request."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    job = write_job(tmp_path, simulator.base_url, input={"path": "rows.jsonl", "id": "ticket"})
    end = batcher("run", str(job))
    assert end.returncode in (65, 78), end.stderr
    assert "'ticket'" in end.stderr
    assert "input.id" in end.stderr
    assert len(end.stderr.splitlines()) == 1
    assert ledger.read_bytes() == b""


def test_output_column_unknown(tmp_path: Path, simulator: SimulatorProcess, ledger: Path) -> None:
    """An `output.columns` that the input lacks is refused with the columns there are, before any request."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    job = write_job(tmp_path, simulator.base_url, output={"path": "out", "columns": ["n", "txet"]})
    assert len(refused(job, 65, "output.columns", "'txet'", "n, text")) == 1
    assert ledger.read_bytes() == b""


def test_column_collision(tmp_path: Path, simulator: SimulatorProcess, ledger: Path) -> None:
    """An input column named like one of batcher's is refused with the way out, and that way works."""
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "a", "status": "open"}\n')
    job = write_job(tmp_path, simulator.base_url)
    assert len(refused(job, 78, "'status'", "output.prefix")) == 1
    assert ledger.read_bytes() == b""
    end = batcher("run", str(job), "--set", "output.prefix=b_")
    assert end.returncode == 0, end.stderr


def test_unknown_command(tmp_path: Path) -> None:
    """A command that does not exist is a usage error, exit 2."""
    end = batcher("rum", "job.yaml", cwd=tmp_path)
    assert end.returncode == 2
    assert "rum" in end.stderr
    assert "Traceback" not in end.stderr


def test_changed_job_on_resume(tmp_path: Path, simulator: SimulatorProcess, ledger: Path) -> None:
    """A job that would give another result than the run it resumes is refused with the keys that changed."""
    texts = write_rows(tmp_path / "rows.jsonl", ["a", "b"])
    job = write_job(tmp_path, simulator.base_url, parameters={"temperature": 0.2})
    assert batcher("run", str(job), "-q").returncode == 0
    asked = ledger.read_bytes()
    set_both = ("--set", "parameters.temperature=0.7", "--set", "model=deepseek-v4-pro")
    lines = refused(job, 78, "parameters.temperature was 0.2, is 0.7", "model was", options=set_both)
    assert len(lines) == 1
    assert ledger.read_bytes() == asked
    check_output(tmp_path / "out", texts)


def test_changed_limits_on_resume(tmp_path: Path, simulator: SimulatorProcess) -> None:
    """Limits may change between runs."""
    write_rows(tmp_path / "rows.jsonl", ["a", "b"])
    job = write_job(tmp_path, simulator.base_url)
    assert batcher("run", str(job), "-q").returncode == 0
    assert batcher("run", str(job), "-q", "--set", "limits.concurrency=3").returncode == 0


@pytest.mark.parametrize("now", [["a", "b", "c"], ["a"], ["a", "x"]])
def test_changed_input_on_resume(tmp_path: Path, simulator: SimulatorProcess, ledger: Path, now: list[str]) -> None:
    """An input with other rows than the run began with is refused, exit 65, and nothing is asked."""
    write_rows(tmp_path / "rows.jsonl", ["a", "b"])
    job = write_job(tmp_path, simulator.base_url)
    assert batcher("run", str(job), "-q").returncode == 0
    asked = ledger.read_bytes()
    write_rows(tmp_path / "rows.jsonl", now)
    assert len(refused(job, 65, "input changed", "rows.jsonl")) == 1
    assert ledger.read_bytes() == asked


@pytest.mark.parametrize("setting", ["limits.concurency=5", "limits.concurrency=many", "concurrency"])
def test_typo_in_an_override(tmp_path: Path, simulator: SimulatorProcess, ledger: Path, setting: str) -> None:
    """A `--set` that fits no key, or no value of it, is refused in one line that repeats it."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    job = write_job(tmp_path, simulator.base_url)
    assert len(refused(job, 78, setting.partition("=")[0], options=("--set", setting))) == 1
    assert ledger.read_bytes() == b""


def test_row_that_is_not_json_with_on_bad_row_stop(tmp_path: Path, simulator: SimulatorProcess, ledger: Path) -> None:
    """With `on_bad_row: stop` a line that is not JSON is named with file and line, and nothing is sent."""
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "a"}\n{"text": \n{"text": "c"}\n')
    job = write_job(tmp_path, simulator.base_url, input={"path": "rows.jsonl", "on_bad_row": "stop"})
    assert len(refused(job, 65, "rows.jsonl:2")) == 1
    assert ledger.read_bytes() == b""


def test_usage_errors_name_the_option(tmp_path: Path) -> None:
    """An option that does not exist is a usage error, exit 2, on standard error."""
    end: subprocess.CompletedProcess[str] = batcher("run", "job.yaml", "--fast", cwd=tmp_path)
    assert end.returncode == 2
    assert "--fast" in end.stderr
    assert end.stdout == ""
