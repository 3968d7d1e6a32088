"""Rows whose answers must match a schema: which are asked for again, which one a row ends with, what it costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from batcher.errors import BudgetError, JobError
from batcher.job import Job
from batcher.plan import make_plan
from batcher.progress import Figures
from batcher.records import Fault, Reply
from batcher.results import Results
from batcher.rundir import RunDir
from batcher.source import find_files
from tests.fakes import (
    Begun,
    ScriptedClient,
    begun,
    body_of,
    disconnected,
    good,
    make_job,
    refusal,
    work,
    write_numbers,
)
from tests.runs import rows_of

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
Answer = str | Reply | Fault
Given = Answer | Callable[[int], Answer]

FIT, MISFIT, NO_JSON = '{"n": 7}', '{"n": "seven"}', "seven"


def cut_off(content: str) -> Reply:
    answer = orjson.loads(body_of(content))
    answer["choices"][0]["finish_reason"] = "length"
    return Reply(200, {}, orjson.dumps(answer))


class Model(ScriptedClient):
    """Gives each row its answers in turn, the last one again and again, and keeps the requests."""

    def __init__(self, *answers: Given) -> None:
        super().__init__(self._answer)
        self._answers = answers
        self.requests: list[dict[str, Any]] = []

    def _answer(self, row: int, attempt: int) -> Reply | Fault:
        answer = self._answers[min(attempt, len(self._answers) - 1)]
        found = answer(row) if callable(answer) else answer
        return good(found) if isinstance(found, str) else found

    async def send(self, body: bytes) -> Reply | Fault:
        """Answer by the first message, as repairs go on with the conversation."""
        request = orjson.loads(body)
        self.requests.append(request)
        return await super().send(orjson.dumps({"messages": request["messages"][:1]}))


def job_in(folder: Path, rows: int = 1, **changes: Any) -> Job:
    write_numbers(folder, rows)
    response_format = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    output = {"path": "out", "rows_per_part": 5, "flatten": True, **changes.pop("output", {})}
    return make_job(folder, parameters={"response_format": response_format}, output=output, **changes)


def asked(folder: Path, *answers: Given, rows: int = 1, **changes: Any) -> tuple[Model, list[dict[str, Any]]]:
    """Run all rows with these answers; return the model and the rows of the output."""
    model = Model(*answers)
    job = job_in(folder, rows, **changes)
    with begun(job) as run:
        assert work(run, model) is None
    with Results.open(job.output.path) as results:
        return model, rows_of(results)


def test_an_answer_that_matches_is_taken_as_it_is(tmp_path: Path) -> None:
    """One attempt, `parsed` and `valid`, and the schema's field as a column."""
    _, (row,) = asked(tmp_path, f"```json\n{FIT}\n```")
    assert (row["status"], row["valid"], row["parsed"], row["n"], row["attempts"]) == (
        "completed",
        True,
        '{"n":7}',
        7,
        1,
    )
    assert row["completion"] == f"```json\n{FIT}\n```"


def test_an_answer_that_does_not_match_is_repaired_and_both_are_paid(tmp_path: Path) -> None:
    """The model sees its answer and the complaint, the settings stay, and the row's tokens are those of both."""
    model, (row,) = asked(tmp_path, MISFIT, FIT)
    assert (row["valid"], row["n"], row["attempts"]) == (True, 7, 2)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (6, 10)
    first, again = model.requests
    assert again["messages"][:2] == [*first["messages"], {"role": "assistant", "content": MISFIT}]
    assert "/n: must be of type integer" in again["messages"][2]["content"]
    assert {**again, "messages": None} == {**first, "messages": None}


@pytest.mark.parametrize(
    ("answers", "attempts", "completion", "parsed"),
    [
        ([MISFIT, MISFIT], 2, MISFIT, '{"n":"seven"}'),
        ([NO_JSON, NO_JSON], 2, NO_JSON, None),
        ([NO_JSON, MISFIT], 2, MISFIT, '{"n":"seven"}'),
        ([MISFIT, NO_JSON], 2, MISFIT, '{"n":"seven"}'),
        ([cut_off('{"n": 7')], 1, '{"n": 7', None),
        ([MISFIT, cut_off('{"n": 7')], 2, MISFIT, '{"n":"seven"}'),
        ([MISFIT, refusal(400, "context_length_exceeded")], 2, MISFIT, '{"n":"seven"}'),
        ([NO_JSON, refusal(400)], 2, NO_JSON, None),
        ([MISFIT, good("  ")], 4, MISFIT, '{"n":"seven"}'),
    ],
    ids=range(9),
)
def test_a_row_ends_completed_with_the_best_it_got(
    tmp_path: Path, answers: list[Any], attempts: int, completion: str, parsed: str | None
) -> None:
    """However the repair ends, the row is completed and not valid; JSON is better than none, else the last answer."""
    _, (row,) = asked(tmp_path, *answers)
    assert (row["status"], row["valid"], row["n"], row["error"]) == ("completed", False, None, None)
    assert (row["completion"], row["parsed"]) == (completion, parsed)
    assert row["attempts"] == attempts


@pytest.mark.parametrize(("repairs", "attempts"), [(0, 1), (1, 2), (3, 4)])
def test_repairs_are_bounded(tmp_path: Path, repairs: int, attempts: int) -> None:
    """`output.repair_attempts` says how often, whatever `limits.max_attempts` allows for failures."""
    model, (row,) = asked(tmp_path, MISFIT, output={"repair_attempts": repairs}, limits={"max_attempts": 1})
    assert (row["attempts"], row["valid"]) == (attempts, False)
    assert len(model.requests[-1]["messages"]) == 1 + 2 * repairs


def test_a_row_without_any_answer_fails_as_ever(tmp_path: Path) -> None:
    """`valid` and `parsed` of a failed row are null."""
    _, (good_row, row) = asked(tmp_path, lambda row: refusal(400) if row else FIT, rows=2)
    assert (good_row["status"], good_row["valid"]) == ("completed", True)
    assert (row["status"], row["valid"], row["parsed"], row["n"]) == ("failed", None, None, None)


def test_what_was_received_before_a_kill_is_repaired_and_not_asked_again(tmp_path: Path) -> None:
    """The first answer is durable before the repair is sent: the next run sends the repair, and its tokens count."""
    job = job_in(tmp_path)
    with begun(job) as run:
        stopped = Model(MISFIT)
        stop_at_second(run, stopped)
    with begun(job) as run:
        assert list(run.rundir.journal.drafts()) == [0]
        model = Model(FIT)
        assert work(run, model) is None
        assert run.rundir.totals().invalid == 0
    assert len(model.requests) == 1
    assert model.requests[0]["messages"][1]["content"] == MISFIT
    with Results.open(job.output.path) as results:
        (row,) = rows_of(results)
    assert (row["valid"], row["attempts"], row["prompt_tokens"]) == (True, 2, 6)


def test_a_draft_of_an_earlier_version_of_the_job_is_not_repaired_by_a_later_one(tmp_path: Path) -> None:
    """Once another prompt is accepted, the row is asked that; what its first answer used still counts."""
    job = job_in(tmp_path)
    with begun(job) as run:
        stop_at_second(run, Model(MISFIT))
    later = job.model_copy(update={"prompt": "{{ text }} anew"})
    plan = make_plan(later, find_files(later.input.path))
    with RunDir.open(later.output.path) as rundir:
        rundir.begin(later, plan, "all")
        model = Model(FIT)
        assert work(Begun(later, plan, rundir), model) is None
    (request,) = model.requests
    assert [message["role"] for message in request["messages"]] == ["user"]
    with Results.open(later.output.path) as results:
        (row,) = rows_of(results)
    assert (row["valid"], row["attempts"], row["job_version"]) == (True, 2, 2)


def stop_at_second(run: Begun, model: Model) -> None:
    """Work until the repair would be sent, and end there as if the process had been killed."""
    worker: list[Any] = []
    take = model.send

    async def send(body: bytes) -> Reply | Fault:
        reply = await take(body)
        worker[0].stop(BudgetError())
        return reply

    model.send = send  # type: ignore[method-assign]
    assert isinstance(work(run, model, prepare=worker.append), BudgetError)


def test_a_repair_that_is_lost_with_its_connection_is_tried_again(tmp_path: Path) -> None:
    """It is an attempt like others: failures are retried, and counted as unsure where they may have been paid for."""
    _, (row,) = asked(tmp_path, MISFIT, disconnected(), FIT)
    assert (row["valid"], row["attempts"]) == (True, 3)


def test_invalid_rows_are_counted_everywhere(tmp_path: Path) -> None:
    """In the totals of parts and of the journal, and in the figures of the run."""
    model, figures = Model(lambda row: MISFIT if row % 2 else FIT), Figures()
    job = job_in(tmp_path, 7)
    with begun(job) as run:
        assert work(run, model, figures=figures) is None
        assert (figures.completed, figures.invalid) == (7, 3)
        assert run.rundir.totals().invalid == 3
        assert run.rundir.report(run.plan).totals.invalid == 3
    with Results.open(job.output.path) as results:
        assert results.totals().invalid == 3


def test_names_that_collide_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """A field like a column of batcher's wants a prefix of its own; one like an input column `output.prefix`."""
    schema = {"properties": {"status": {}, "reasoning": {}}}
    parameters = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}
    write_numbers(tmp_path, 1)
    output = {"path": "out", "flatten": True}
    with (
        pytest.raises(JobError, match=r"'reasoning', 'status'.*give output.flatten a text"),
        begun(make_job(tmp_path, parameters=parameters, output=output)),
    ):
        pass
    with begun(make_job(tmp_path, parameters=parameters, output={"path": "out2", "flatten": "a_"})) as run:
        assert run.rundir.form.schema.names[-2:] == ["a_status", "a_reasoning"]
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "x", "valid": 1, "a_status": 2}\n')
    with (
        pytest.raises(JobError, match=r"column 'a_status', 'valid'.*output.prefix"),
        begun(make_job(tmp_path, parameters=parameters, output={"path": "out3", "flatten": "a_"})),
    ):
        pass
    prefixed = {"path": "out4", "flatten": "a_", "prefix": "b_"}
    with begun(make_job(tmp_path, parameters=parameters, output=prefixed)) as run:
        assert run.rundir.form.schema.names[-4:] == ["b_parsed", "b_valid", "b_a_status", "b_a_reasoning"]
