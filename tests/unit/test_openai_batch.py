"""OpenAI Batch files: the shape of each line, whose ids they carry, and that nothing of an answer is lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.cli import main
from batcher.completion import parse
from batcher.export import export_file
from batcher.records import ApiError, Completion, Outcome
from batcher.results import Results
from tests.fakes import body_of, make_job, outcome
from tests.runs import answer, run_rows, write_records

TALK = [{"role": "user", "content": "hello"}]


def exported(folder: Path, records: list[dict[str, Any]], outcomes: list[Outcome], **changes: Any) -> list[Any]:
    """The lines of both files, the second one's after the first one's."""
    if not (folder / "rows.parquet").exists():
        write_records(folder, records)
    job = make_job(folder, **changes)
    run_rows(job, outcomes, parts=range((len(outcomes) + 4) // 5))
    with Results.open(job.output.path) as results:
        rows, files = export_file(results, folder / "done.jsonl", "openai-batch", force=True)
    assert files == [folder / "done.jsonl", folder / "done.errors.jsonl"]
    assert rows == len(outcomes)
    answered, failed = ([orjson.loads(line) for line in file.read_bytes().splitlines()] for file in files)
    assert all(line["error"] is None for line in answered)
    assert all(line["error"] is not None for line in failed)
    return [*answered, *failed]


def batch_line(custom_id: Any) -> dict[str, Any]:
    """A line of an OpenAI Batch input file."""
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": {"messages": TALK}}


def test_an_answered_row(tmp_path: Path) -> None:
    """The line that OpenAI writes: id, custom_id, response with status, request id and completion, error null."""
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8, "other": {"x": 1}}
    body = body_of("hi", id="cmpl-1", created=1_700_000_000, model="served", system_fingerprint="fp", usage=usage)
    (line,) = exported(tmp_path, [batch_line("mine-1")], [outcome(0, body=body)], prompt=None)
    assert re.fullmatch("batch_req_[0-9a-f]{32}", line.pop("id"))
    assert line == {
        "custom_id": "mine-1",
        "response": {
            "status_code": 200,
            "request_id": "cmpl-1",
            "body": {
                "id": "cmpl-1",
                "object": "chat.completion",
                "created": 1_700_000_000,
                "model": "served",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "hi", "refusal": None},
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
                "usage": usage,
                "system_fingerprint": "fp",
            },
        },
        "error": None,
    }


def test_a_failed_row(tmp_path: Path) -> None:
    """The same shape in the other file: code and message, and the refusal where the endpoint answered at all."""
    refused = outcome(0, failed="x", error=ApiError("no such image", "invalid", "messages", "bad_image", 400))
    silent = outcome(1, failed="x", error=ApiError("too slow", code="timeout"))
    first, second = exported(tmp_path, [batch_line("a"), batch_line("b")], [refused, silent], prompt=None)
    assert first.pop("id") != second.pop("id")
    assert first == {
        "custom_id": "a",
        "response": {
            "status_code": 400,
            "request_id": "",
            "body": {
                "error": {"message": "no such image", "type": "invalid", "param": "messages", "code": "bad_image"}
            },
        },
        "error": {"code": "bad_image", "message": "no such image"},
    }
    assert second == {"custom_id": "b", "response": None, "error": {"code": "timeout", "message": "too slow"}}


def test_nothing_of_an_answer_is_lost(tmp_path: Path) -> None:
    """Reading an exported body gives the completion that the answer gave: tool calls, several choices, reasoning."""
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "t", "function": {"name": "f"}}]}
    bodies = [
        body_of("a", choices=[{"index": n, "message": {"content": f"c{n}"}, "finish_reason": "stop"} for n in (0, 1)]),
        body_of(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}], created=1_700_000_000),
        body_of(
            choices=[
                {"index": 0, "message": {"content": "x", "reasoning_content": "because"}, "finish_reason": "length"}
            ]
        ),
    ]
    outcomes = [outcome(n, body=body) for n, body in enumerate(bodies)]
    lines = exported(tmp_path, [batch_line(str(n)) for n in range(3)], outcomes, prompt=None)
    for body, line in zip(bodies, lines, strict=True):
        before, after = parse(body), parse(orjson.dumps(line["response"]["body"]))
        assert isinstance(before, Completion)
        assert isinstance(after, Completion)
        for name in ("content", "finish_reason", "usage", "reasoning", "id", "choices_raw"):
            assert getattr(after, name) == getattr(before, name), name


def test_an_answer_that_says_little(tmp_path: Path) -> None:
    """What the endpoint left out is filled with what the API's clients need: the requested model, a number, null."""
    body = orjson.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]})
    counted, silent = outcome(0, body=body), outcome(1, body=body, prompt_tokens=None, completion_tokens=None)
    lines = exported(tmp_path, [batch_line("a"), batch_line("b")], [counted, silent], prompt=None)
    first, second = (line["response"]["body"] for line in lines)
    assert (first["id"], first["created"], first["model"]) == ("", 0, "some-model")
    assert first["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert second["usage"] is None


def test_whose_ids(tmp_path: Path) -> None:
    """custom_id wins over the column that names rows; numbers become text; a row without one gets a generated one."""
    records = [{"custom_id": "c-0", "n": 10, "text": "t"}, {"custom_id": None, "n": 11, "text": "t"}]
    source = {"path": "rows.jsonl", "id": "n"}
    first, second = exported(tmp_path, records, [answer(0), answer(1)], input=source)
    assert first["custom_id"] == "c-0"
    assert re.fullmatch(r"[0-9a-f]{12}-1", second["custom_id"])
    other = tmp_path / "other"
    other.mkdir()
    lines = exported(other, [{"n": n, "text": "t"} for n in (10, 11)], [answer(0), answer(1)], input=source)
    assert [line["custom_id"] for line in lines] == ["10", "11"]


def test_generated_ids_are_stable(tmp_path: Path) -> None:
    """They follow from the input and the row, whatever happened in the run: a second run of it has the same."""
    ids = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        outcomes = [answer(n) if name == "one" or n != 3 else outcome(3, failed="bad") for n in range(7)]
        lines = exported(tmp_path / name, [{"text": f"t{n}"} for n in range(7)], outcomes)
        ids.append(sorted((line["custom_id"], line["id"]) for line in lines))
    assert ids[0] == ids[1]
    assert len({custom_id for custom_id, _ in ids[0]}) == 7
    assert all(len(custom_id) <= 64 for custom_id, _ in ids[0])
    (tmp_path / "three").mkdir()
    lines = exported(tmp_path / "three", [{"text": f"u{n}"} for n in range(7)], [answer(n) for n in range(7)])
    assert not {line["custom_id"] for line in lines} & {custom_id for custom_id, _ in ids[0]}


def test_a_prefix(tmp_path: Path) -> None:
    """An input column with the name of an added one is not mistaken for it."""
    records = [{"text": "t", "error": "mine", "completion": "mine"}]
    output = {"path": "out", "rows_per_part": 5, "prefix": "b_"}
    (line,) = exported(tmp_path, records, [answer(0)], output=output)
    assert line["response"]["body"]["choices"][0]["message"]["content"] == "answer 0"


def test_ids_of_parquet_inputs(tmp_path: Path) -> None:
    """Whatever type the column has, the id is text."""
    pq.write_table(pa.table({"custom_id": pa.array([7], pa.int16())}), tmp_path / "rows.parquet")
    (line,) = exported(tmp_path, [], [answer(0)], prompt="x", input={"path": "rows.parquet"})
    assert line["custom_id"] == "7"


def test_ids_that_the_output_does_not_carry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says that ids had to be generated although the input has some."""
    for columns, said in (([], True), (["custom_id"], False)):
        folder = tmp_path / str(said)
        folder.mkdir()
        write_records(folder, [batch_line("a")])
        job = make_job(folder, prompt=None, output={"path": "out", "columns": columns})
        run_rows(job, [answer(0)], parts=[0])
        arguments = ["export", str(job.output.path), "--to", str(folder / "x.jsonl"), "--format", "openai-batch"]
        assert main(arguments) == 0
        assert ("custom_id" in capsys.readouterr().err) is said
