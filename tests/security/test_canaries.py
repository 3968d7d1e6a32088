"""The key and the prompts, looked for in all that a run prints and leaves behind, also when batcher itself fails.

Normal, killed and refused runs are looked through in tests/faults/test_secrets.py. Here the key comes back in every way
a server has, and mistakes are put into batcher, each of which raises an error that quotes key and prompt. They come by
a `sitecustomize.py`, which names neither. Nothing of faulthandler or core files is tested: batcher turns on neither.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from batcher.secret import Secret
from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.harness import BARE, BATCHER, batcher, start, table, write_job, write_rows
from tests.recording_server import Answer, Request, as_json, completion, recording
from tests.simulator_client import wait_until

KEY = "sk-canary/with/slashes+8c1f"
PROMPT = "canary-prompt-41aa"
SYSTEM = "canary-system-0b7d"
ENV = {**BARE, "CANARY_KEY": KEY}


def write(folder: Path, base_url: str, rows: int = 40, **changes: Any) -> Path:
    """A job whose key and prompts can be recognised."""
    write_rows(folder / "rows.jsonl", (f"{PROMPT} {n}" for n in range(rows)))
    endpoint = {"base_url": base_url, "api_key_env": "CANARY_KEY"}
    return write_job(folder, "", **{"endpoint": endpoint, "system_prompt": SYSTEM, **changes})


def check_talk(end: subprocess.CompletedProcess[str]) -> None:
    """Assert that neither key nor prompt was said."""
    for canary in (KEY, PROMPT, SYSTEM):
        assert canary not in end.stdout + end.stderr


def check_files(folder: Path) -> None:
    """Assert that the key is in no file, compressed or not, and prompts are only where rows belong."""
    for path in folder.rglob("*"):
        assert KEY not in path.name
        if path.is_file():
            data = path.read_bytes()
            for form in (KEY, KEY.replace("/", "\\/")):
                assert form.encode() not in data, path
            if not path.name.startswith(("part-", "journal-", "shard-")):
                assert PROMPT.encode() not in data, path
    if list(folder.glob("part-*.parquet")):
        for row in table(folder).to_pylist():
            assert KEY not in orjson.dumps(row, default=str).decode().replace("\\/", "/"), row["row_index"]


def echoes(request: Request) -> Iterator[Answer]:
    """Every way in which a server may send the key back."""
    key = request.headers["authorization"].removeprefix("Bearer ")
    headers = {"X-Request-Id": key, "Set-Cookie": f"k={key}", "Server": key, "Retry-After": key, "Location": f"/{key}"}
    yield completion(f"you are {key}", id=key, model=key, system_fingerprint=key, service_tier=key)
    refusal = {"error": {"message": f"no {key}", "type": key, "param": key, "code": key}}
    yield as_json(refusal, 400, **headers)
    escaped = Answer(orjson.dumps(refusal).replace(b"/", b"\\/"), 400, headers)
    assert key.encode() not in escaped.body
    yield escaped
    call = {"id": key, "type": "function", "function": {"name": key, "arguments": key}}
    message = {"role": "assistant", "content": None, "refusal": key, "reasoning_content": key, "tool_calls": [call]}
    yield completion(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}], usage={key: 1})


def test_row_10_a_key_that_comes_back_is_kept_nowhere(tmp_path: Path) -> None:
    """In whichever field, header or spelling a server repeats the key, no file and no line of a run shows it."""
    asked: list[str] = []

    def answer(request: Request) -> Answer:
        asked.append(request.prompt)
        answers = list(echoes(request))
        return answers[len(asked) % len(answers)] if len(asked) > 8 else completion()

    with recording(answer) as server:
        job = write(tmp_path, server.base_url)
        end = batcher("run", str(job), "-v", env=ENV)
        again = batcher("run", str(job), "-v", "--json", env=ENV)
        checked = batcher("check", str(job), env=ENV)
        status = batcher("status", str(job), env=ENV)
    assert (end.returncode, again.returncode) == (3, 3), end.stderr
    assert len(table(tmp_path / "out")) == 40
    for run in (end, again, status):
        check_talk(run)
    assert KEY not in checked.stdout + checked.stderr  # prompts it shows, for whoever asks it to
    check_files(tmp_path / "out")


def test_row_10_the_key_is_on_no_command_line(tmp_path: Path) -> None:
    """Neither batcher nor the simulator it starts can be seen with the key in a list of processes."""
    job = write(tmp_path, "simulator")
    process = start("run", str(job), "--set", "endpoint.simulator={latency_s: 0.3}", env=ENV)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: any("batcher.simulator" in line for line in command_lines(children.read_text().split())))
    lines = command_lines([str(process.pid), *children.read_text().split()])
    process.terminate()
    process.communicate(timeout=60)
    assert len(lines) == 2
    assert not [line for line in lines if KEY in line]


def command_lines(pids: list[str]) -> list[str]:
    """The command lines of processes, as anybody on the machine may read them."""
    return [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids]


def test_row_10_a_key_hides_in_every_spelling_that_json_has_for_it() -> None:
    """PHP escapes slashes; what is no key stays as it is, and an empty key hides nothing."""
    assert Secret("a/b").hide_in(b'{"x": "a/b, a\\/b, a, b"}') == b'{"x": "***, ***, a, b"}'
    assert Secret("").hide_in(b"ab") == b"ab"


def test_row_11_the_command_to_carry_on_repeats_no_prompt(tmp_path: Path) -> None:
    """A prompt that was given on the command line is not printed when the run is stopped."""
    with start_simulator(SimulatorOptions(latency_s=0.5)) as simulator:
        job = write(tmp_path, simulator.base_url)
        process = start("run", str(job), "--set", f"system_prompt={SYSTEM} two", env=ENV)
        wait_until((tmp_path / "out" / ".batcher" / "summary.json").exists)
        process.terminate()
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"carry on with: {BATCHER} run {job} --set system_prompt=..." in stderr
    check_talk(subprocess.CompletedProcess([], 143, stdout, stderr))


def test_row_11_a_changed_prompt_is_not_repeated(tmp_path: Path) -> None:
    """That a job differs from the run it would resume is said without the text of either prompt, however short."""
    job = write(tmp_path, "simulator", prompt=f"{PROMPT} {{{{ text }}}}")
    assert batcher("run", str(job), "-q", env=ENV).returncode == 0
    end = batcher("run", str(job), "--set", "prompt=x", env=ENV)
    assert end.returncode == 78
    check_talk(end)


#: mistakes of batcher by the place where they happen; `leak(x)` raises an error that quotes key, prompt and x
MISTAKES = {
    "a request": """
        from batcher.client.wire import WireClient
        async def send(self, body): leak(body)
        WireClient.send = send
    """,
    "an answer": """
        from batcher.settling import Settling
        Settling.settle = lambda self, *args: leak(args)
    """,
    "a part, on a thread": """
        import batcher.shard
        batcher.shard.write_part = lambda *args: leak(args)
    """,
    "the report": """
        import batcher.cli.running
        batcher.cli.running.render_report = lambda report: leak(report)
    """,
    "a thread": """
        import threading
        import batcher.engines.local as local
        def figures(*args, made=local.figures_of):
            threading.Thread(target=leak, args=args).start()
            return made(*args)
        local.figures_of = figures
    """,
    "a callback of the loop": """
        import asyncio
        import batcher.worker
        look = batcher.worker.Worker.look
        def looks(self):
            asyncio.get_running_loop().call_soon(leak, self)
            return look(self)
        batcher.worker.Worker.look = looks
    """,
    "a finalizer": """
        from batcher.settling import Settling
        class Fragile:
            def __del__(self): leak(self)
        settle = Settling.settle
        def settles(self, *args):
            Fragile()
            return settle(self, *args)
        Settling.settle = settles
    """,
}
LEAK = """
import os, sys, textwrap
def leak(*things):
    raise RuntimeError(os.environ["CANARY_KEY"], os.environ["CANARY_PROMPT"], things)
if any(word.endswith("bin/batcher") for word in sys.orig_argv):
    exec(textwrap.dedent(os.environ["CANARY_MISTAKE"]))
"""


@pytest.mark.parametrize("place", MISTAKES)
def test_row_11_an_error_that_nobody_expected_shows_only_its_place(tmp_path: Path, place: str) -> None:
    """Of a mistake of batcher's own the places and the type are shown, and none of the values it quotes."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(LEAK)
    job = write(tmp_path, "simulator")
    env = {**ENV, "CANARY_PROMPT": f"{PROMPT} {SYSTEM}", "CANARY_MISTAKE": MISTAKES[place]}
    end = batcher("run", str(job), "-v", env={**env, "PYTHONPATH": str(tmp_path / "site")})
    ends_it = place in ("a request", "an answer", "a part, on a thread", "a callback of the loop", "the report")
    assert end.returncode == (1 if ends_it else 0), end.stderr
    assert "batcher: internal error (RuntimeError); please report the lines above" in end.stderr
    assert 'sitecustomize.py", line' in end.stderr
    check_talk(end)
    check_files(tmp_path / "out")


def test_row_11_a_journal_that_fails_quotes_no_value(tmp_path: Path) -> None:
    """An outcome that cannot be written stops the run with the type of the error and without the outcome."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(LEAK)
    job = write(tmp_path, "simulator")
    mistake = "import batcher.journal.writer as journal\njournal.insert = lambda db, batch: leak(batch)"
    env = {**ENV, "CANARY_PROMPT": PROMPT, "CANARY_MISTAKE": mistake, "PYTHONPATH": str(tmp_path / "site")}
    end = batcher("run", str(job), "-v", env=env)
    assert end.returncode in (1, 74), end.stderr
    check_talk(end)
