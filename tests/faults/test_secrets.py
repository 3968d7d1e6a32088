"""The key appears nowhere, and prompts only where rows belong: in parts, journal and spool."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.harness import BARE, BATCHER, batcher, check_output, digest, kill, write_job, write_rows
from tests.recording_server import Answer, Request, as_json, completion, recording
from tests.simulator_client import counts, wait_until

KEY = "sk-canary-key-5b1f0c"
PROMPT = "canary-prompt-9e2d"
SYSTEM = "canary-system-77aa"
ENV = {**BARE, "MY_KEY": KEY}
#: files of a run folder that may hold prompts
HOLDS_ROWS = ("part-", "journal-", "shard-")


def job_with_canaries(folder: Path, base_url: str, rows: int = 200) -> tuple[Path, list[str]]:
    """A job whose key, prompts and system prompt can be recognised."""
    texts = write_rows(folder / "rows.jsonl", (f"{PROMPT} {n}" for n in range(rows)))
    endpoint = {"base_url": base_url, "api_key_env": "MY_KEY"}
    return write_job(folder, "", endpoint=endpoint, system_prompt=SYSTEM), texts


def run(job: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run with the key in the environment."""
    return batcher("run", str(job), *options, env=ENV)


def check_talk(*talk: str) -> None:
    """Assert that nothing secret was said."""
    for text in talk:
        for canary in (KEY, PROMPT, SYSTEM):
            assert canary not in text


def check_folder(out: Path) -> None:
    """Assert that the key is in no file, and prompts in no file but those that hold rows."""
    files = [path for path in out.rglob("*") if path.is_file()]
    assert any(path.name == "manifest.json" for path in files)
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert KEY not in path.name
        if not path.name.startswith(HOLDS_ROWS):
            assert PROMPT.encode() not in content, path


def test_normal_run(tmp_path: Path) -> None:
    """A run that succeeds, as talkative as it can be, shows neither key nor prompt."""
    with start_simulator(SimulatorOptions(latency_s=0.005)) as simulator:
        job, texts = job_with_canaries(tmp_path, simulator.base_url)
        end = run(job, "-v")
    assert end.returncode == 0, end.stderr
    check_talk(end.stdout, end.stderr)
    check_folder(tmp_path / "out")
    check_output(tmp_path / "out", texts)
    for part in (tmp_path / "out").glob("*.parquet"):
        assert SYSTEM.encode() not in part.read_bytes()


def test_killed_run(tmp_path: Path) -> None:
    """While it works and after SIGKILL, neither its command line, its talk nor its files show the key."""
    with start_simulator(SimulatorOptions(latency_s=0.1)) as simulator:
        job, texts = job_with_canaries(tmp_path, simulator.base_url)
        process = subprocess.Popen([BATCHER, "run", str(job), "-v"], stdout=-1, stderr=-1, text=True, env=ENV)
        wait_until(lambda: counts(simulator)["answered"] >= 20)
        check_talk(Path(f"/proc/{process.pid}/cmdline").read_text())
        check_folder(tmp_path / "out")
        os.kill(process.pid, 9)
        check_talk(*process.communicate(timeout=30))
        check_folder(tmp_path / "out")
        end = run(job, "-v")
    assert end.returncode == 0, end.stderr
    check_talk(end.stdout, end.stderr)
    check_folder(tmp_path / "out")
    check_output(tmp_path / "out", texts)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 302, 204])
def test_refusal_that_echoes_key_and_prompt(tmp_path: Path, status: int) -> None:
    """A provider that repeats key and prompt in its error message makes neither appear in talk or summary."""

    def respond(request: Request) -> Answer:
        told = f"{request.headers['authorization']} asked {request.prompt}"
        code = "insufficient_quota" if status == 429 else None
        refusal = as_json({"error": {"message": told, "code": code}}, status, Location=f"/{PROMPT}")
        return Answer(b"", 204) if status == 204 else refusal

    with recording(respond) as server:
        job, _ = job_with_canaries(tmp_path, server.base_url)
        end = run(job, "-v")
        checked = batcher("check", str(job), env=ENV)
    assert end.returncode in (77, 78), end.stderr
    assert checked.returncode != 0
    check_talk(end.stdout, end.stderr, checked.stderr)
    assert KEY not in checked.stdout  # where a check shows a prompt, since that is what it was asked for
    assert " asked " not in checked.stdout
    check_folder(tmp_path / "out")


def test_failed_row_whose_error_echoes_the_key(tmp_path: Path) -> None:
    """A failed row keeps the provider's message, but not a key that stands in it."""

    def respond(request: Request) -> Answer:
        if request.prompt.endswith(" 3"):
            return as_json({"error": {"message": f"no, {request.headers['authorization']}", "code": "odd"}}, 400)
        return completion(id=f"chatcmpl-{digest(request.prompt)}")

    with recording(respond) as server:
        job, texts = job_with_canaries(tmp_path, server.base_url, rows=20)
        end = run(job, "-v")
    assert end.returncode == 3, end.stderr
    check_talk(end.stdout, end.stderr)
    check_output(tmp_path / "out", texts, failed=[3])
    check_folder(tmp_path / "out")


def test_template_that_fails_for_a_row(tmp_path: Path) -> None:
    """A template error in one row names no text of that row."""
    write_rows(tmp_path / "rows.jsonl", (f"{PROMPT} {n}" for n in range(5)))
    job = write_job(tmp_path, "simulator", prompt="{{ text.nothing.here }}", system_prompt=SYSTEM)
    end = run(job, "-v")
    checked = batcher("check", str(job), "--offline", env=ENV)
    assert end.returncode == 3, end.stderr
    check_talk(end.stdout, end.stderr, checked.stdout, checked.stderr)


def test_state_is_private(tmp_path: Path) -> None:
    """The state of a run, which holds answers, can be entered by its owner alone."""
    with start_simulator(SimulatorOptions(latency_s=0)) as simulator:
        job, _ = job_with_canaries(tmp_path, simulator.base_url, rows=5)
        process = subprocess.Popen([BATCHER, "run", str(job), "-q"], env=ENV, umask=0, stdout=-1, stderr=-1, text=True)
        process.communicate(timeout=60)
    kill(process)
    assert (tmp_path / "out" / ".batcher").stat().st_mode & 0o777 == 0o700
