"""`batcher show`: rows with question, answer and usage, for people and for scripts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.cli import main
from tests.fakes import begun, body_of, make_job, outcome
from tests.runs import answer, record, run_rows, write_records

ODD = "\x1b[2J\x07evil\u202e"


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of 12 rows; row 4 failed, row 7 has an odd text, row 9 a long one."""
    monkeypatch.setenv("COLUMNS", "60")
    records = [{"id": f"K-{n}", "text": f"question {n}"} for n in range(12)]
    records[7]["text"], records[9]["text"] = ODD, "long " * 2000
    write_records(tmp_path, records)
    outcomes = [answer(n) for n in range(12)]
    outcomes[4] = outcome(4, failed="bad_image", body=b"")
    usage = {
        "prompt_tokens": 1234,
        "completion_tokens": 5,
        "total_tokens": 1239,
        "prompt_tokens_details": {"cached_tokens": 1000},
    }
    message = {"role": "assistant", "content": f"reply {ODD}", "reasoning_content": "thought"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    body = body_of(usage=usage, choices=choices, model="served")
    outcomes[7] = outcome(7, body=body, prompt_tokens=1234, completion_tokens=5, cost_usd=0.0125)
    job = make_job(tmp_path, system_prompt="Be brief.", input={"path": "rows.jsonl", "id": "id"})
    run_rows(job, outcomes, parts=[0, 1, 2])
    return job.output.path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What the command prints on standard output; it must end with 0."""
    assert main(["show", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def indexes(page: str) -> list[int]:
    """The rows whose headings are on a page."""
    return [int(number) for number in re.findall(r"^── row (\d+) ", page, re.MULTILINE)]


def test_a_row(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Heading with index, status, finish reason and id; prompt, completion and usage under headings of their own."""
    page = shown(capsys, out, "--row", "2")
    assert page.splitlines() == [
        "── row 2 · completed · stop · id K-2 ───────────────────────",
        "system:",
        "  Be brief.",
        "user:",
        "  question 2",
        "completion:",
        "  answer 2",
        "usage: 3 prompt tokens, 5 completion tokens, 0.50 s, 1",
        "attempt, by served",
        "",
    ]


def test_texts_of_strangers(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of a prompt or an answer reaches the terminal as a control character; no line is too wide."""
    page = shown(capsys, out, "-n", "12")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", page)
    assert r"  \x1b[2J\x07evil\u202e" in page
    assert r"  reply \x1b[2J\x07evil\u202e" in page
    assert max(map(len, page.splitlines())) == 60
    assert "reasoning:\n  thought\ncompletion:" in page
    assert "usage: 1,234 prompt tokens (1,000 cached), 5 completion\ntokens, $0.012500," in page


def test_an_odd_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row's id is a stranger's text too: harmless, and cut to the width."""
    write_records(tmp_path, [{"custom_id": ODD * 50, "text": "t"}])
    job = make_job(tmp_path)
    run_rows(job, [answer(0)], parts=[0])
    heading = shown(capsys, job.output.path).splitlines()[0]
    assert len(heading) <= 100
    assert heading.startswith(r"── row 0 · completed · stop · custom_id \x1b[2J\x07evil\u202e")


def test_a_failed_row(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It shows its error in the place of the answer."""
    page = shown(capsys, out, "--failed")
    assert indexes(page) == [4]
    assert "user:\n  question 4\nerror bad_image (HTTP 400):\n  no\n" in page


def test_how_many(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first five, or as many as asked for."""
    assert indexes(shown(capsys, out)) == [0, 1, 2, 3, 4]
    assert indexes(shown(capsys, out, "-n", "7")) == [0, 1, 2, 3, 4, 5, 6]
    assert indexes(shown(capsys, out, "-n", "99")) == list(range(12))


def test_grep(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows with a text in an input column, the answer or the error, in capitals or not; it is no pattern."""
    assert indexes(shown(capsys, out, "--grep", "QUESTION 1")) == [1, 10, 11]
    assert indexes(shown(capsys, out, "--grep", "answer 8")) == [8]
    assert indexes(shown(capsys, out, "--grep", "k-3")) == [3]
    assert indexes(shown(capsys, out, "--grep", "NO")) == [4]
    assert indexes(shown(capsys, out, "--grep", "bad_image")) == [4]
    assert indexes(shown(capsys, out, "--grep", "ID-6")) == [6]
    assert indexes(shown(capsys, out, "--grep", "1234")) == []
    assert indexes(shown(capsys, out, "--grep", "q.*n")) == []
    assert indexes(shown(capsys, out, "--grep", "answer", "-n", "2")) == [0, 1]
    assert indexes(shown(capsys, out, "--grep", "question", "--failed")) == [4]


def test_grep_in_nested_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Conversations are searched too, as text or, from Parquet, nested."""
    talks = [[{"role": "user", "content": f"Grüße {n}"}] for n in range(3)]
    pq.write_table(pa.table({"messages": talks}), tmp_path / "rows.parquet")
    job = make_job(tmp_path, prompt=None, input={"path": "rows.parquet"})
    run_rows(job, map(answer, range(3)), parts=[0])
    assert indexes(shown(capsys, job.output.path, "--grep", "grüße 2")) == [2]


def test_long_texts(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are cut, with a note, unless --full."""
    page = shown(capsys, out, "--row", "9")
    assert "\n  [... cut; 10,000 characters in all, --full shows them]\n" in page
    assert len(page.splitlines()) < 30
    full = shown(capsys, out, "--row", "9", "--full")
    assert "cut" not in full
    assert full.count("long") == 2000


def test_long_conversations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last messages are shown, and how many there are before them."""
    talk = [{"role": ("user", "assistant")[n % 2], "content": f"turn {n}"} for n in range(11)]
    write_records(tmp_path, [{"messages": talk}])
    job = make_job(tmp_path, prompt=None)
    run_rows(job, [answer(0)], parts=[0])
    page = shown(capsys, job.output.path)
    assert "[... 5 earlier messages, --full shows them]\nassistant:\n  turn 5\n" in page
    assert "turn 4" not in page
    assert "turn 0" in shown(capsys, job.output.path, "--full")


def test_for_scripts(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line of JSON per row: names of the added columns, the conversation, the input columns apart, nothing cut."""
    rows = [orjson.loads(one) for one in shown(capsys, out, "--json", "-n", "12").splitlines()]
    assert [row["row_index"] for row in rows] == list(range(12))
    assert rows[9]["columns"] == {"id": "K-9", "text": "long " * 2000}
    assert rows[7]["completion"] == f"reply {ODD}"
    assert rows[2]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "question 2"},
    ]
    assert (rows[4]["status"], rows[4]["error"]["code"], rows[4]["prompt_tokens"]) == ("failed", "bad_image", None)
    assert rows[7]["prompt_tokens_details"]["cached_tokens"] == 1000


def test_a_prefix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of this run's columns make no difference to what is shown."""
    write_records(tmp_path, [{"text": "t", "completion": "mine"}])
    job = make_job(tmp_path, output={"path": "out", "prefix": "b_"})
    run_rows(job, [answer(0)], parts=[0])
    assert "completion:\n  answer 0\n" in shown(capsys, job.output.path)
    row = orjson.loads(shown(capsys, job.output.path, "--json"))
    assert (row["completion"], row["columns"]["completion"]) == ("answer 0", "mine")


def test_an_unfinished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While a run holds the folder its committed rows are shown; of the others it is said that they have no outcome."""
    write_records(tmp_path, [{"text": f"t{n}"} for n in range(12)])
    job = make_job(tmp_path)
    with begun(job) as run:
        record(run, [answer(1), answer(11)])
        run.rundir.journal.lease([3])
        record(run, [])
        run.rundir.journal.release(3, attempts=2, ambiguous=0)
        record(run, [])
        assert indexes(shown(capsys, job.output.path)) == [1, 11]
        assert indexes(shown(capsys, job.output.path, "--row", "11")) == [11]
        for arguments, words in [
            (("--row", "3"), "row 3 has no outcome yet; it was asked 2 times so far"),
            (("--grep", "t5"), "no such row among the 2 of 12 that have an outcome so far"),
        ]:
            assert main(["show", str(job.output.path), *arguments]) == 0
            end = capsys.readouterr()
            assert (end.out, end.err) == ("", f"{words}\n")


def test_nothing_to_show(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No match is said and no error; a row beyond the input is a wrong argument; a folder without a run is 65."""
    codes: dict[tuple[Any, ...], int] = {
        (out, "--grep", "nowhere"): 0,
        (out, "--row", "12"): 2,
        (tmp_path,): 65,
    }
    for arguments, code in codes.items():
        assert main(["show", *map(str, arguments)]) == code
        end = capsys.readouterr()
        assert end.out == ""
        assert "Traceback" not in end.err
        assert end.err
