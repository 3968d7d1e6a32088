"""`batcher run --input ...`: an OpenAI Batch input file and four options are all that is needed."""

from __future__ import annotations

import shlex
import signal
import subprocess
from pathlib import Path

import orjson
import pytest

from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.harness import BARE, MODEL, Ledger, batcher, digest, kill, start, table
from tests.simulator_client import lines, wait_until

ROWS = 30


def write_batch(path: Path) -> list[str]:
    """Write an OpenAI Batch input file whose lines name a model of OpenAI's; return the prompts."""
    prompts = [f"say {number}" for number in range(ROWS)]
    entries = (
        {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "gpt-5", "messages": [{"role": "user", "content": prompt}], "max_tokens": 30},
        }
        for number, prompt in enumerate(prompts)
    )
    path.write_bytes(b"".join(orjson.dumps(entry) + b"\n" for entry in entries))
    return prompts


def test_a_batch_file_is_run_interrupted_and_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No YAML at all: Ctrl-C, the printed command in the same folder, and every row is answered and paid for once.

    Estimating, checking and looking at the folder need no job file either.
    """
    prompts = write_batch(tmp_path / "my batch.jsonl")
    ledger = tmp_path / "ledger.jsonl"
    monkeypatch.setenv("THE_KEY", "k-1234567")
    with start_simulator(SimulatorOptions(latency_s=0.1, ledger=ledger, api_key_env="THE_KEY")) as simulator:
        key = {**BARE, "THE_KEY": "k-1234567"}
        job = ("--input", "my batch.jsonl", "--output", "it's out/", "--model", MODEL, "--base-url", simulator.base_url)
        bare = batcher("run", *job, cwd=tmp_path)
        assert (bare.returncode, "no key was sent; to send one: --api-key-env" in bare.stderr) == (77, True)
        job = (*job, "--api-key-env", "THE_KEY", "--concurrency", "3")
        foreseen = batcher("run", *job, "--dry-run", "--json", cwd=tmp_path, env=key)
        assert orjson.loads(foreseen.stdout)["rows_left"] == ROWS
        checked = batcher("check", *job, "--offline", cwd=tmp_path, env=key)
        assert checked.returncode == 0, checked.stdout
        (again,) = [line.removeprefix("next: ") for line in checked.stderr.splitlines() if line.startswith("next: ")]

        before = len(lines(ledger, "answered"))
        run = start(*shlex.split(again)[1:], cwd=tmp_path, env=key, start_new_session=True)
        wait_until(lambda: len(lines(ledger, "answered")) > before + 5)
        run.send_signal(signal.SIGINT)
        _, stderr = run.communicate(timeout=60)
        assert run.returncode == 130, stderr
        (again,) = [line.removeprefix("carry on with: ") for line in stderr.splitlines() if line.startswith("carry on")]
        assert "k-1234567" not in stderr
        status = batcher("status", "it's out", "--json", cwd=tmp_path)
        assert orjson.loads(status.stdout)["state"] == "stopped"
        end = subprocess.run(again, shell=True, cwd=tmp_path, env=key, capture_output=True, text=True, check=False)
        assert end.returncode == 0, end.stderr
        assert kill(run) == 130
    rows = table(tmp_path / "it's out")
    assert rows["custom_id"].to_pylist() == [f"request-{number}" for number in range(ROWS)]
    assert rows["response_id"].to_pylist() == [f"chatcmpl-{digest(prompt)}" for prompt in prompts]
    assert set(rows["response_model"].to_pylist()) == {MODEL}
    assert set(Ledger.read(ledger).answered.values()) == {1}
    exported = batcher("export", "it's out", "--format", "openai-batch", "--to", "batch.out.jsonl", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    first, *_ = (tmp_path / "batch.out.jsonl").read_bytes().splitlines()
    assert orjson.loads(first)["custom_id"] == "request-0"
