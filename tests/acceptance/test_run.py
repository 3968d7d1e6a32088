"""`batcher run` and its neighbours as a user meets them: from the first run to the query of its result."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from math import inf
from pathlib import Path

import duckdb
import orjson
import pytest

from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.fault_server import fault_server
from tests.harness import (
    BARE,
    BATCHER,
    Ledger,
    batcher,
    check_output,
    kill,
    start,
    table,
    write_job,
    write_rows,
    write_script,
)

JOBS = Path(__file__).parents[2] / "jobs"
FAST = ("--set", "endpoint.simulator={latency_s: 0.001}")


def printed_queries(stdout: str) -> list[str]:
    """The SQL of every duckdb command that a report shows."""
    return [shlex.split(line.split(":", 1)[1])[2] for line in stdout.splitlines() if " duckdb -c " in line]


def test_quickstart_and_the_query_it_prints(tmp_path: Path) -> None:
    """The README's job answers every row, and the query printed at its end runs as it stands."""
    end = batcher("run", str(JOBS / "quickstart.yaml"), "--set", f"output.path={tmp_path / 'out'}", cwd=tmp_path)
    assert end.returncode == 0, end.stderr
    assert "176 completed, 0 failed" in end.stdout
    rows = table(tmp_path / "out")
    assert rows["status"].to_pylist() == ["completed"] * 176
    whole = [
        row["completion"]
        for row in rows.select(["completion", "finish_reason"]).to_pylist()
        if row["finish_reason"] == "stop"
    ]
    assert all(isinstance(orjson.loads(text), dict) for text in whole)
    (query,) = printed_queries(end.stdout)
    relative = query.replace("'out/", f"'{tmp_path}/out/")
    assert relative != query, "the query names the folder as seen from here"
    found = duckdb.sql(relative).fetchall()
    assert [row[0] for row in found] == [0, 1, 2, 3, 4]
    assert all(row[2] > 0 for row in found)


@pytest.mark.parametrize("name", sorted(path.name for path in JOBS.glob("*.yaml")))
def test_every_job_of_the_repository(tmp_path: Path, name: str) -> None:
    """Every job file that is shipped runs to its end against the simulator, all rows completed."""
    end = batcher("run", str(JOBS / name), "-q", "--set", f"output.path={tmp_path / 'out'}", *FAST, cwd=tmp_path)
    assert end.returncode == 0, end.stderr
    assert end.stdout == end.stderr == ""
    rows = table(tmp_path / "out")
    assert rows.num_rows > 0
    assert set(rows["status"].to_pylist()) == {"completed"}
    assert rows["row_index"].to_pylist() == list(range(rows.num_rows))


def test_finished_run_again(tmp_path: Path) -> None:
    """Running a finished job again says so, exits 0 and sends nothing, even where nothing listens any more."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(120)))
    with start_simulator(SimulatorOptions(latency_s=0, ledger=tmp_path / "ledger.jsonl")) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        first = batcher("run", str(job))
        again = batcher("run", str(job))
    asked = (tmp_path / "ledger.jsonl").read_bytes()
    assert sum(Ledger.read(tmp_path / "ledger.jsonl").asked.values()) == 120
    third = batcher("run", str(job))
    assert (first.returncode, again.returncode, third.returncode) == (0, 0, 0)
    assert first.stdout == again.stdout == third.stdout
    assert (tmp_path / "ledger.jsonl").read_bytes() == asked
    check_output(tmp_path / "out", texts)


def test_failed_rows(tmp_path: Path) -> None:
    """Rows that fail for good end the run with 3 and hold the reason; the printed command counts them by cause."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}{' poison' * (n in (3, 70))}" for n in range(100)))
    answer = {"status": 400, "code": "bad_image", "message": "no such image", "type": "invalid_request_error"}
    script = write_script(tmp_path / "script.yaml", {"match": "poison", "answers": [answer], "forever": True})
    with start_simulator(SimulatorOptions(latency_s=0.002, script=script)) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        end = batcher("run", str(job), cwd=tmp_path)
        quiet = batcher("run", str(job), "-q")
    assert end.returncode == 3, end.stderr
    rows = check_output(tmp_path / "out", texts, failed=[3, 70])
    error = rows["error"][70].as_py()
    assert error == {
        "message": "no such image",
        "type": "invalid_request_error",
        "param": None,
        "code": "bad_image",
        "http_status": 400,
    }
    assert rows["prompt_tokens"][70].as_py() is None
    (some,) = printed_queries(end.stdout)
    (why,) = [line.removeprefix("why:") for line in end.stdout.splitlines() if line.startswith("why:")]
    told = subprocess.run(shlex.split(why), cwd=tmp_path, env=BARE, capture_output=True, text=True, check=True)
    assert "bad_image" in told.stdout
    assert len(duckdb.sql(some.replace("'out/", f"'{tmp_path}/out/")).fetchall()) == 5
    assert (quiet.returncode, quiet.stdout) == (3, "")
    assert len(quiet.stderr.splitlines()) == 1
    assert "2 of 100 rows failed" in quiet.stderr


def test_output_for_scripts(tmp_path: Path) -> None:
    """`--json` prints one JSON object and nothing else on standard output; it agrees with the parts."""
    write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(60)))
    job = write_job(tmp_path, "simulator")
    end = batcher("run", str(job), "--json")
    assert end.returncode == 0, end.stderr
    report = orjson.loads(end.stdout)
    rows = table(tmp_path / "out")
    assert (report["rows"], report["parts"], report["complete"]) == (60, 2, True)
    assert report["totals"]["completed"] == 60
    assert report["totals"]["completion_tokens"] == sum(rows["completion_tokens"].to_pylist())
    assert end.stdout.count("\n") == 1


def test_quiet_and_verbose(tmp_path: Path) -> None:
    """`-q` prints nothing when all is well and one line on trouble; `-v` logs no prompt."""
    write_rows(tmp_path / "rows.jsonl", (f"canary-{n}" for n in range(60)))
    job = write_job(tmp_path, "simulator")
    quiet = batcher("run", str(job), "-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    trouble = batcher("run", str(job), "-q", "--set", "parameters.temperature=0")
    assert trouble.returncode == 78
    assert len(trouble.stderr.splitlines()) == 1
    verbose = batcher("run", str(job), "-v", "--set", "output.path=" + str(tmp_path / "other"))
    assert verbose.returncode == 0
    assert "60 completed" in verbose.stdout
    assert "canary" not in verbose.stdout + verbose.stderr


def test_empty_environment_closed_input_and_another_folder(tmp_path: Path) -> None:
    """As under cron: no environment at all, standard input closed, another working directory."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(60)))
    job = write_job(tmp_path, "simulator")
    command = f"exec {shlex.quote(BATCHER)} run {shlex.quote(str(job))} -q <&-"
    end = subprocess.run(
        ["/bin/sh", "-c", command], env={}, cwd="/", capture_output=True, text=True, check=False, timeout=60
    )
    assert (end.returncode, end.stdout, end.stderr) == (0, "", "")
    check_output(tmp_path / "out", texts)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(tmp_path: Path, closed: str) -> None:
    """A run whose standard streams are closed works, and writes nothing of its talk into its own files."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(60)))
    job = write_job(tmp_path, "simulator")
    command = f"exec {shlex.quote(BATCHER)} run {shlex.quote(str(job))} {closed}"
    end = subprocess.run(["/bin/sh", "-c", command], env={}, cwd="/", check=False, timeout=60, capture_output=True)
    assert end.returncode == 0, end.stderr
    check_output(tmp_path / "out", texts)


def test_status_of_a_run(tmp_path: Path) -> None:
    """`batcher status` names the state by job file and by folder, before, after, and as JSON."""
    write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(60)))
    job = write_job(tmp_path, "simulator")
    before = batcher("status", str(job))
    assert (before.returncode, before.stdout) == (65, "")
    assert len(before.stderr.splitlines()) == 1
    assert batcher("run", str(job), "-q").returncode == 0
    for target in (job, tmp_path / "out"):
        after = batcher("status", str(target))
        assert after.returncode == 0, after.stderr
        assert "finished" in after.stdout
        assert "60 of 60" in after.stdout
    summary = orjson.loads(batcher("status", str(job), "--json").stdout)
    assert (summary["state"], summary["completed"], summary["failed"]) == ("finished", 60, 0)


def test_status_of_a_run_that_was_killed(tmp_path: Path) -> None:
    """`batcher status` says of a killed run that it can be resumed."""
    write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(300)))
    with start_simulator(SimulatorOptions(latency_s=0.3)) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        process = start("run", str(job))
        wait_for(tmp_path / "out" / ".batcher" / "summary.json")
        kill(process)
    end = batcher("status", str(job))
    assert end.returncode == 0
    assert "can be resumed" in end.stdout


def test_check_of_a_good_job(tmp_path: Path) -> None:
    """`batcher check` says what it found in a line each, sends one tiny request and creates nothing."""
    write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(60)))
    with start_simulator(SimulatorOptions(latency_s=0, ledger=tmp_path / "ledger.jsonl")) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        end = batcher("check", str(job))
        offline = batcher("check", str(job), "--offline")
    assert end.returncode == offline.returncode == 0, end.stdout + end.stderr
    assert "60 rows" in end.stdout
    assert {line.split()[0] for line in end.stdout.splitlines()} <= {"ok", "warn"}
    assert {line.split()[1] for line in end.stdout.splitlines()} >= {"job", "input", "key", "output", "endpoint"}
    assert sum(Ledger.read(tmp_path / "ledger.jsonl").asked.values()) == 1
    assert not (tmp_path / "out").exists()


def test_check_of_a_job_with_several_problems(tmp_path: Path) -> None:
    """`batcher check` shows every problem, not only the first, and exits with the first one's code."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    endpoint = {"base_url": "http://127.0.0.1:9", "api_key_env": "NO_KEY"}
    (tmp_path / "taken").write_text("mine")
    job = write_job(tmp_path, "", endpoint=endpoint, prompt="{{ txet }}", output={"path": "taken/out"})
    end = batcher("check", str(job), "--offline")
    assert end.returncode == 78
    assert "Traceback" not in end.stderr
    for word in ("txet", "NO_KEY", "taken"):
        assert any(line.startswith("FAIL") and word in line for line in end.stdout.splitlines()), end.stdout


def test_models() -> None:
    """`batcher models` lists the catalogue; with a name it lists that model's parameters and a request."""
    everything = batcher("models")
    assert everything.returncode == 0
    assert "deepseek-v4-flash" in everything.stdout
    one = batcher("models", "deepseek-v4-flash")
    assert one.returncode == 0
    for word in ("temperature", "top_p", "presence_penalty", "frequency_penalty", "max_tokens", "response_format"):
        assert re.search(rf"^ *{word} ", one.stdout, re.MULTILINE), word
    assert "curl" in one.stdout
    other = batcher("models", "some-model-nobody-knows")
    assert other.returncode == 0
    assert other.stdout != one.stdout


@pytest.mark.parametrize("arguments", [(), ("run",), ("check",), ("status",), ("models",), ("simulator",)])
def test_help(arguments: tuple[str, ...]) -> None:
    """`--help` prints on standard output and exits 0, for every command."""
    end = batcher(*arguments, "--help")
    assert end.returncode == 0, end.stderr
    assert "usage" in end.stdout.lower()
    assert end.stderr == ""


def test_second_run_on_the_same_folder(tmp_path: Path) -> None:
    """While a run works, another one on its folder exits 75, names the first one's pid and sends nothing."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(20)))
    with fault_server() as server:
        server.most_answers = 0
        job = write_job(tmp_path, server.base_url)
        first = start("run", str(job), "-q")
        wait_for(tmp_path / "out" / ".batcher" / "summary.json")
        second = batcher("run", str(job))
        assert first.poll() is None, "the first run ended too early to tell"
        assert second.returncode == 75
        assert f"pid {first.pid}" in second.stderr.splitlines()[0]
        assert second.stdout == ""
        server.most_answers = inf
        assert kill_nothing(first) == 0
    check_output(tmp_path / "out", texts)
    assert set(server.ledger().asked.values()) == {1}


def kill_nothing(process: subprocess.Popen[str]) -> int:
    """Let a process come to its own end and return its exit code."""
    process.communicate(timeout=60)
    return process.returncode


def wait_for(path: Path) -> None:
    """Look until a file is there."""
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def test_the_query_for_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    """What is printed can be copied into a shell whatever the output folder is called."""
    place = tmp_path / "it's $HOME `x`"
    place.mkdir()
    write_rows(place / "rows.jsonl", ["one", "two"])
    end = batcher("run", str(write_job(place, "simulator")), cwd=place.parent)
    assert end.returncode == 0, end.stderr
    (line,) = [line for line in end.stdout.splitlines() if " duckdb -c " in line]
    echoed = subprocess.run(["/bin/sh", "-c", f"printf %s {line.split('-c ', 1)[1]}"], capture_output=True, text=True)
    query = echoed.stdout.replace("it''s", f"{tmp_path}/it''s")
    assert len(duckdb.sql(query).fetchall()) == 2
