"""Asking rows again, and going on with a changed job: as a user does, against a simulator that keeps a ledger."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.harness import (
    Ledger,
    answer_to,
    batcher,
    check_output,
    digest,
    parts,
    table,
    write_job,
    write_rows,
    write_script,
)
from tests.simulator_client import counts

ROWS = 60
PROGRAM = """
import sys
from batcher import Retry, load_job, run
report = run(load_job(sys.argv[1]), retry=Retry(), accept_changes="all")
print(report.totals.failed, len(report.versions))
"""


def asked(ledger: Path, texts: list[str]) -> list[int]:
    """How often each row was asked."""
    found = Ledger.read(ledger).asked
    return [found[digest(text)] for text in texts]


def refused_once(text: str, status: int, code: str) -> dict[str, Any]:
    """A rule: this prompt is refused the first time."""
    return {"match": text, "answers": [{"status": status, "code": code, "message": "no"}]}


def test_from_failures_to_none(tmp_path: Path) -> None:
    """3, why, how, 0: the failed rows are asked once more, good ones never; then there is nothing to ask again."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"text {n}." for n in range(ROWS)))
    script = write_script(
        tmp_path / "script.yaml",
        refused_once("text 3.", 400, "bad_image"),
        refused_once("text 17.", 400, "bad_image"),
        refused_once("text 59.", 422, "odd_row"),
    )
    options = SimulatorOptions(latency_s=0.01, script=script, ledger=tmp_path / "ledger.jsonl")
    with start_simulator(options) as simulator:
        job = write_job(tmp_path, simulator.base_url, output={"path": "out", "rows_per_part": 20})
        first = batcher("run", str(job))
        assert first.returncode == 3
        (hint,) = re.findall(r"^again:  .*batcher(.*)$", first.stdout, re.MULTILINE)
        assert hint == f" run {job} --retry-failed"
        assert " --retry-failed --only bad_image\n" in batcher("failures", str(job)).stdout
        untouched = parts(tmp_path / "out")[1].stat().st_mtime_ns

        unknown = batcher("run", str(job), "--retry-failed", "--only", "bad_imag")
        assert unknown.returncode == 3
        assert "no row failed with bad_imag; failed rows with other codes: bad_image (2), odd_row (1)" in unknown.stderr
        counts(simulator)
        assert sum(asked(tmp_path / "ledger.jsonl", texts)) == ROWS

        one = batcher("run", str(job), "--retry-failed", "--only", "422", "--json")
        assert one.returncode == 3
        assert "asking 1 failed row again" in one.stderr
        assert re.search(
            rf"ask the failed rows again with: .*batcher run {re.escape(str(job))} --retry-failed\n", one.stderr
        )
        assert orjson.loads(one.stdout)["totals"]["failed"] == 2
        check_output(tmp_path / "out", texts, failed={3, 17})

        rest = batcher("run", str(job), "--retry-failed")
        assert rest.returncode == 0, rest.stderr
        nothing = batcher("run", str(job), "--retry-failed")
        assert nothing.returncode == 0
        assert "nothing to ask again: no row failed" in nothing.stderr
        assert batcher("run", str(job)).returncode == 0
        counts(simulator)
    rows = check_output(tmp_path / "out", texts)
    expected = [2 if row in (3, 17, 59) else 1 for row in range(ROWS)]
    assert asked(tmp_path / "ledger.jsonl", texts) == expected == rows["attempts"].to_pylist()
    assert parts(tmp_path / "out")[1].stat().st_mtime_ns == untouched
    status = orjson.loads(batcher("status", str(job), "--json").stdout)
    assert (status["state"], status["completed"], status["failed"]) == ("finished", ROWS, 0)
    assert "versions" not in status


def test_longer_answers_and_a_changed_prompt(tmp_path: Path) -> None:
    """Cut-off answers are asked again with more tokens; a changed job only on purpose; rows say where they are from."""
    texts = write_rows(tmp_path / "rows.jsonl", [*(f"text {n}" for n in range(9)), "failing"])
    tokens = [answer_to(text).usage["completion_tokens"] for text in texts]
    most = sorted(tokens[:9])[4]
    script = write_script(tmp_path / "script.yaml", {**refused_once("failing", 400, "bad_image"), "forever": True})
    ledger, out = tmp_path / "ledger.jsonl", tmp_path / "out"
    with start_simulator(SimulatorOptions(latency_s=0.01, script=script, ledger=ledger)) as simulator:
        job = write_job(tmp_path, simulator.base_url, parameters={"max_tokens": most})
        assert batcher("run", str(job)).returncode == 3
        cut_off = [n for n, reason in enumerate(table(out)["finish_reason"].to_pylist()) if reason == "length"]
        assert cut_off == [n for n in range(9) if tokens[n] > most] != []
        again = ["--truncated", "--set", "parameters.max_tokens=4000"]

        refused = batcher("run", str(job), "--truncated", "--set", "parameters.max_tokens=4000", "--set", "model=m-2")
        assert refused.returncode == 78
        assert f'model was "deepseek-v4-flash", is "m-2"; parameters.max_tokens was {most}, is 4000' in refused.stderr
        assert "--accept-changes" in refused.stderr

        assert batcher("run", str(job), "--truncated").returncode == 2, "they would be cut off again"
        dry = orjson.loads(batcher("run", str(job), *again, "--dry-run", "--json").stdout)
        assert (dry["rows_left"], dry["answer_tokens_at_most"]) == (len(cut_off), len(cut_off) * 4000)
        dry = orjson.loads(batcher("run", str(job), "--retry-failed", "--only", "400", "-n", "--json").stdout)
        assert dry["rows_left"] == 1

        longer = batcher("run", str(job), *again)
        assert longer.returncode == 3, longer.stderr
        before = table(out)
        assert "length" not in before["finish_reason"].to_pylist()
        assert [n for n, version in enumerate(before["job_version"].to_pylist()) if version == 2] == cut_off
        counts(simulator)
        assert asked(ledger, texts) == [2 if n in cut_off else 1 for n in range(10)]
        old = batcher("run", str(job))
        assert old.returncode == 78
        assert "differs from version 2 of the run" in old.stderr
        assert f"parameters.max_tokens was 4000, is {most}" in old.stderr

        changes: dict[str, Any] = {"parameters": {"max_tokens": 4000}, "prompt": "A canary: {{ text.upper() }}"}
        changed = write_job(tmp_path, simulator.base_url, **changes)
        assert batcher("run", str(changed), "--retry-failed").returncode == 78
        accepted = batcher("run", str(changed), "--retry-failed", "--accept-changes", "--json")
        assert accepted.returncode == 0, accepted.stderr
        assert batcher("run", str(changed)).returncode == 0  # without the flag from now on
        other_input = write_job(tmp_path, simulator.base_url, input={"path": "rows.jsonl", "id": "n"})
        fixed = batcher("run", str(other_input), "--accept-changes")
        assert (fixed.returncode, "(input.id cannot be changed on purpose)" in fixed.stderr) == (78, True)
        write_job(tmp_path, simulator.base_url, **changes)
    rows = table(out)
    assert rows.slice(0, 9).equals(before.slice(0, 9))
    assert rows["job_version"].to_pylist()[9] == 3
    _check_versions(tmp_path, changed, orjson.loads(accepted.stdout)["versions"], most, cut_off)


def _check_versions(folder: Path, job: Path, versions: list[dict[str, Any]], most: int, cut_off: list[int]) -> None:
    """Everything that reports says how many rows came from which version, and no prompt."""
    assert [(one["number"], one["rows"], one["changes"]) for one in versions] == [
        (1, 9 - len(cut_off), []),
        (2, len(cut_off), [f"parameters.max_tokens was {most}, is 4000"]),
        (3, 1, ["prompt changed"]),
    ]
    assert orjson.loads(batcher("status", str(job), "--json").stdout)["versions"] == versions
    status = batcher("status", str(job)).stdout
    assert re.search(rf"rows from version 2 of the job, since .*: {len(cut_off)} \(parameters.max_tokens was", status)
    closing = batcher("run", str(job)).stdout
    assert "rows from version 3 of the job" in closing
    assert "canary" not in status + closing
    pytest.importorskip("vl_convert")
    assert batcher("report", str(job), "--to", str(folder / "report.html")).returncode == 0
    page = (folder / "report.html").read_text()
    assert "Versions of the job" in page
    assert "<bdi>prompt changed</bdi>" in page
    shown = batcher("show", str(job), "--row", "9", "--json").stdout
    assert orjson.loads(shown)["job_version"] == 3


def test_a_few_first_and_from_python(tmp_path: Path) -> None:
    """With --limit so many of them are asked; the plain command asks the others; Python has the same options."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"text {n}." for n in range(20)))
    script = write_script(tmp_path / "script.yaml", *(refused_once(f"text {n}.", 400, "bad") for n in (2, 5, 11)))
    ledger = tmp_path / "ledger.jsonl"
    with start_simulator(SimulatorOptions(latency_s=0.01, script=script, ledger=ledger)) as simulator:
        job = write_job(tmp_path, simulator.base_url, output={"path": "out", "rows_per_part": 10})
        assert batcher("run", str(job), "-q").returncode == 3
        few = batcher("run", str(job), "--retry-failed", "--limit", "2")
        assert few.returncode == 75, few.stderr
        assert "18 of 20 rows" not in few.stdout
        assert "19 of 20 rows: 19 completed, 0 failed" in few.stdout
        status = batcher("status", str(job)).stdout
        assert "again:  1 rows are asked again" in status
        assert batcher("export", str(job), "--to", str(tmp_path / "all.jsonl"), "--partial").returncode == 0
        exported = [orjson.loads(line) for line in (tmp_path / "all.jsonl").read_bytes().splitlines()]
        assert [row["row_index"] for row in exported if row["status"] == "failed"] == [11]
        assert len(exported) == 20
        ended = subprocess.run([sys.executable, "-c", PROGRAM, job], capture_output=True, text=True, check=True)
        assert ended.stdout == "0 1\n"
        counts(simulator)
    check_output(tmp_path / "out", texts)
    assert asked(ledger, texts) == [2 if n in (2, 5, 11) else 1 for n in range(20)]


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    """They are refused in words before anything is read."""
    assert "goes with --retry-failed" in batcher("run", "none.yaml", "--only", "timeout").stderr
    assert "max_tokens=N" in batcher("run", "none.yaml", "--truncated", "--dry-run").stderr
