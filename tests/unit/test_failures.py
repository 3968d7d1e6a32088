"""`batcher failures`: every failed row is in one cause, the most frequent first, with advice that can be followed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from batcher.cli import main
from batcher.cli.app import app
from batcher.job import Job
from batcher.records import ApiError, FaultKind, Outcome
from batcher.results import Results
from batcher.results import failures as failures_module
from batcher.results.advice import ADVICE, advice
from batcher.results.failures import OTHERS, Cause, causes
from batcher.retry.rules import (
    BLANK,
    BROKEN_OFF,
    NAMES,
    NO_RESOURCES,
    ROW_SPECIFIC_CODES,
    UNFINISHED,
    UNKNOWN_FINISH,
    Action,
)
from tests.fakes import make_job, outcome, write_numbers
from tests.runs import answer, run_rows


def failed(row: int, code: str | None, http_status: int | None, message: str = "no") -> Outcome:
    """A failed outcome."""
    return outcome(row, failed="x", error=ApiError(message, code=code, http_status=http_status))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run of twelve rows in three shards, the last of which has no part; six rows failed for three causes."""
    write_numbers(tmp_path, 12)
    job = make_job(tmp_path)
    outcomes = [answer(row) for row in range(12)]
    outcomes[1] = failed(1, "content_filter", 400, "\x1b[31mflagged\nas bad")
    for row in (3, 7, 11):
        outcomes[row] = failed(row, "http_422", 422, f"row {row} is wrong")
    for row in (8, 9):
        outcomes[row] = failed(row, "timeout", None, "too slow")
    run_rows(job, outcomes, parts=[0, 1])
    return job.output.path


def test_causes(out: Path) -> None:
    """Rows by code and status, counted over parts and journal, each with its first rows as samples."""
    with Results.open(out) as results:
        assert causes(results, samples=2) == [
            Cause("http_422", 422, 3, [(3, "row 3 is wrong"), (7, "row 7 is wrong")]),
            Cause("timeout", None, 2, [(8, "too slow"), (9, "too slow")]),
            Cause("content_filter", 400, 1, [(1, "\x1b[31mflagged\nas bad")]),
        ]


def test_codes_that_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that puts a row's own words into the code does not fill the memory: the rest is counted together."""
    monkeypatch.setattr(failures_module, "MOST_CAUSES", 3)
    write_numbers(tmp_path, 12)
    job = make_job(tmp_path)
    run_rows(job, [failed(row, f"code-{row % 10}", 400) for row in range(12)], parts=[0, 1, 2])
    with Results.open(job.output.path) as results:
        found = causes(results)
    assert [(cause.code, cause.rows) for cause in found] == [(OTHERS, 7), ("code-0", 2), ("code-1", 2), ("code-2", 1)]


def test_for_people(out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Count, share, cause, sample and advice; nothing that steers the terminal; what to do next."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["failures", str(out)]) == 0
    page = capsys.readouterr().out
    lines = page.splitlines()
    assert lines[0] == "6 of 12 rows failed"
    assert lines[2:4] == ["3 (50%): http_422", "  row 3: row 3 is wrong"]
    assert "1 (17%): content_filter (HTTP 400)" in lines
    assert r"  row 1: \x1b[31mflagged as bad" in lines
    assert max(map(len, lines[:-4])) <= 80
    assert " ".join(ADVICE["timeout"].split()) in " ".join(page.split())
    assert f"batcher show {out} --failed" in page
    assert " run JOB --retry-failed\n" in page
    assert " run JOB --retry-failed --only http_422\n" in page


def test_for_scripts(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line of JSON with everything; -n says how many samples."""
    assert main(["failures", str(out), "--json", "-n", "3"]) == 0
    found = orjson.loads(capsys.readouterr().out)
    assert (found["rows"], found["completed"], found["failed"]) == (12, 6, 6)
    first, *_ = found["causes"]
    assert first == {
        "code": "http_422",
        "http_status": 422,
        "rows": 3,
        "share": 0.5,
        "samples": [{"row_index": row, "message": f"row {row} is wrong"} for row in (3, 7, 11)],
        "advice": advice("http_422", 422),
    }
    assert main(["failures", str(out), "--json", "-n", "0"]) == 0
    assert orjson.loads(capsys.readouterr().out)["causes"][0]["samples"] == []


def test_no_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, and no advice is given; also of a run that is not finished."""
    write_numbers(tmp_path, 12)
    job = make_job(tmp_path)
    run_rows(job, [answer(0), answer(1)])
    assert main(["failures", str(job.output.path)]) == 0
    assert capsys.readouterr().out == "0 of 2 rows failed, and 10 have no outcome yet\n"
    assert main(["failures", str(job.output.path), "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out)["causes"] == []


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without a run is an error, and not the same as no failures."""
    assert main(["failures", str(tmp_path)]) == 65
    assert "holds no run yet" in capsys.readouterr().err


def test_every_code_of_ours_has_advice() -> None:
    """What batcher itself calls a failure is in the table, so that nobody is left with the general advice."""
    rules = (BLANK, BROKEN_OFF, NO_RESOURCES, UNFINISHED, UNKNOWN_FINISH, *NAMES.values())
    named = {rule.code for rule in rules if rule.code is not None and rule.action is not Action.STOP}
    assert {*named, *ROW_SPECIFIC_CODES, *(kind.value for kind in FaultKind), "unreadable"} <= ADVICE.keys()


@pytest.mark.parametrize(
    ("code", "http_status", "word"),
    [
        ("Content_Filter", 400, "refuses this content"),
        ("bad_image", 400, "the message says why"),
        ("http_429", 429, "limits.concurrency"),
        ("http_500", 500, "limits.max_attempts"),
        ("http_503", 503, "limits.concurrency"),
        ("http_413", 413, "larger than"),
        (None, None, "limits.max_attempts"),
        ("strange", 200, "the message says why"),
    ],
)
def test_advice_for_codes_of_a_provider(code: str | None, http_status: int | None, word: str) -> None:
    """What the table does not know follows from the status."""
    assert word in advice(code, http_status)


def test_advice_names_keys_and_commands_that_exist() -> None:
    """Whatever stands in backquotes is a key of the job file or a command with options that it takes."""
    commands = {command.name or command.callback.__name__: command for command in app.registered_commands}  # type: ignore[union-attr]
    for text in ADVICE.values():
        for word in re.findall("`([^`]*)`", text):
            program, *arguments = word.split()
            if program == "batcher":
                assert arguments[0] in commands, word
                assert set(arguments[1:]) <= {"--failed"}, word
            else:
                assert_key(word)


def assert_key(key: str) -> None:
    """A dotted key leads through the job's sections."""
    model: Any = Job
    for step in key.split("."):
        assert issubclass(model, BaseModel), key
        assert step in model.model_fields, key
        model = model.model_fields[step].annotation
