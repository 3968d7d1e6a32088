"""How the simulator starts and ends, and the ledger it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batcher.errors import JobError, StorageError
from batcher.simulator import SimulatorOptions, main, start
from batcher.simulator.serve import _options, parser
from tests.harness import digest
from tests.simulator_client import CHAT, FORM, PROMPT, ask, connect, counts, ended, http_request, lines, wait_until


def test_ledger_holds_every_parameter_and_both_ends_of_a_request(tmp_path: Path) -> None:
    """Two lines a request with one number, soon written; a second simulator counts on, after a torn line too."""
    ledger = tmp_path / "ledger.jsonl"
    body = {**FORM, "temperature": 0.2, "stop": ["x"]}
    options = SimulatorOptions(latency_s=0, ledger=ledger)
    with start(options) as running:
        tokens = ask(running, body)["usage"]["completion_tokens"]
        wait_until(lambda: lines(ledger, "answered"))
    with ledger.open("a") as file:
        file.write('{"event":"answ')
    with start(options) as running:
        ask(running, body)
    ledger.write_text(ledger.read_text().replace('{"event":"answ\n', ""))
    first, second = lines(ledger, "request")
    assert first["fields"] == list(body)
    assert first["parameters"] == {"model": "m", "temperature": 0.2, "stop": ["x"]}
    assert first["digest"] == digest(PROMPT)
    assert first["system_digest"] == digest("Be kind.")
    assert first["body_digest"] == second["body_digest"]
    assert first["in_flight"] == 1
    answers = lines(ledger, "answered")
    assert [(line["n"], line["status"], line["whole"]) for line in answers] == [(1, 200, True), (2, 200, True)]
    assert answers[0]["digest"] == first["digest"]
    assert answers[0]["completion_tokens"] == tokens
    assert second["t"] >= answers[0]["t"] >= first["t"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_cleanly_with_the_ledger_written(tmp_path: Path, signum: int) -> None:
    """A request under way is recorded as not answered, and the exit code is 0."""
    ledger = tmp_path / "ledger.jsonl"
    with start(SimulatorOptions(latency_s=60, ledger=ledger)) as running:
        with connect(running, http_request(FORM)):
            wait_until(lambda: counts(running)["in_flight"] == 1)
            os.kill(running.pid, signum)
            wait_until(lambda: ended(running.base_url))
        assert running.close() == 0
    (answer,) = lines(ledger, "answered")
    assert (answer["n"], answer["status"], answer["whole"]) == (1, None, False)


def test_simulator_dies_with_its_parent() -> None:
    """When the parent is killed, the simulator reads the end of its lifeline and leaves; it has its own session."""
    code = "from batcher.simulator import start; s = start(); print(s.pid, s.base_url, flush=True); input()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout
    assert parent.stdin
    pid, base_url = parent.stdout.readline().decode().split()
    assert os.getsid(int(pid)) == int(pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: ended(base_url))
    parent.stdin.close()
    parent.stdout.close()


def test_options_and_arguments_say_the_same() -> None:
    """Options survive the way through the command line."""
    full = SimulatorOptions(
        latency_s=1.5,
        spread=0.0,
        max_concurrency=3,
        script=Path("/s.yaml"),
        ledger=Path("/l.jsonl"),
        seed=-4,
        api_key_env="NAME",
        model="m",
    )
    for options in (SimulatorOptions(), full):
        assert _options(parser().parse_args(options.arguments())) == options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latency", "-1"], "latency_s must be between 0 and 86400"),
        (["--max-concurrency", "0"], "max_concurrency must be at least 1"),
        (["--api-key-env", "NOT_SET_ANYWHERE"], "this environment variable is not set"),
        (["--ledger", "/no/such/folder/x"], "No such file or directory"),
        (["--script", "/no/such/script"], "cannot be read"),
    ],
)
def test_impossible_options_are_refused_in_words(
    arguments: list[str], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be started ends with exit code 2 and one line that says why."""
    assert main(arguments) == 2
    assert message in caplog.text


def test_parent_learns_that_it_did_not_start(tmp_path: Path) -> None:
    """A simulator that cannot start is an error of the job, not a hang."""
    with pytest.raises(JobError, match="did not start"):
        start(SimulatorOptions(ledger=tmp_path / "missing" / "ledger"))


def test_nothing_heavy_is_imported() -> None:
    """The server starts without an HTTP client, PyYAML or anything as large."""
    code = "import sys, batcher.simulator.serve; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["aiohttp", "yaml", "pydantic", "pyarrow", "typer", "anyio", "httptools"]
    ran = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_full_disk_ends_the_simulator() -> None:
    """A ledger with holes would prove nothing: when it cannot be written, the simulator leaves with a storage error."""
    with start(SimulatorOptions(latency_s=0, ledger=Path("/dev/full"))) as running:
        assert ask(running, CHAT)["object"] == "chat.completion"
        wait_until(lambda: ended(running.base_url))
        assert running.close() == StorageError.exit_code
