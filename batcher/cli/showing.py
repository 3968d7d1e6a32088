"""`batcher show`: rows as a person reads them, the question, the answer and what it took."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import typer

from batcher.cli.folder import results_of
from batcher.cli.talk import say
from batcher.cli.text import block, cells, line, put
from batcher.results import Results
from batcher.results.asked import Question, Questions
from batcher.results.plain import dumps, json_rows
from batcher.structured import Answers

#: of a longer conversation only the last messages are shown without --full
_MAX_MESSAGES = 6
_NARROWEST = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows to show: one, or the first `count` that failed, do not match the schema or hold a text, as asked."""

    count: int
    row: int | None = None
    failed: bool = False
    text: str | None = None
    invalid: bool = False


def show_rows(target: Path, choice: Choice, *, full: bool, as_json: bool) -> int:
    """Print rows that have an outcome, also those of a run that works; exit code 0, however many there are."""
    width = max(_NARROWEST, shutil.get_terminal_size((100, 24)).columns)
    with results_of(target) as results:
        if choice.row is not None and not 0 <= choice.row < results.rows:
            raise typer.BadParameter(f"there is no row {choice.row}: the input has {results.rows} rows, from 0")
        if choice.invalid and results.answers is None:
            raise typer.BadParameter("--invalid: the answers of this run have no JSON schema")
        questions, answers = Questions(results), Answers.of(results.job["parameters"], 0)
        shown = 0
        for batch in _chosen(results, choice):
            rows = json_rows(batch, set(results.carried))
            for row, question in zip(rows, questions.of(batch), strict=True):
                if as_json:
                    put(dumps(_record(results, row, question)).decode())
                else:
                    put("\n".join([*_page(results, row, question, answers, width, full=full), ""]))
                shown += 1
        _say_what_is_missing(results, choice, shown)
    return 0


def _chosen(results: Results, choice: Choice) -> Iterator[pa.RecordBatch]:
    if choice.row is not None:
        yield from results.batches(first_row=choice.row, end_row=choice.row + 1)
        return
    left = choice.count
    for batch in results.batches(status="failed" if choice.failed else None):
        if choice.invalid:
            valid = batch.column(results.column("valid"))
            batch = batch.filter(pc.fill_null(pc.invert(valid), fill_value=False))
        found = batch if choice.text is None else batch.filter(_holding(results, batch, choice.text))
        if found.num_rows:
            yield found.slice(0, left)
        left -= found.num_rows
        if left <= 0:
            return


def _holding(results: Results, batch: pa.RecordBatch, text: str) -> pa.Array:
    """Which rows hold a text, in capitals or not, in an input column, the answer, its id or the error."""
    found = pa.array([False] * batch.num_rows)
    for column in _searched(results, batch):
        found = pc.or_(found, pc.fill_null(pc.match_substring(column, text, ignore_case=True), fill_value=False))
    return found


def _searched(results: Results, batch: pa.RecordBatch) -> Iterator[pa.Array]:
    """The columns of texts that a search goes through."""
    for name in results.carried:
        column = batch.column(name)
        if pa.types.is_string(column.type):
            yield column
        elif pa.types.is_nested(column.type):
            rows = json_rows(batch.select([name]), {name})
            yield pa.array([dumps(row[name]).decode() for row in rows], pa.string())
    for name in ("completion", "reasoning", "choices_raw", "response_id"):
        yield batch.column(results.column(name))
    for name in ("message", "code"):
        yield pc.struct_field(batch.column(results.column("error")), name)


def _say_what_is_missing(results: Results, choice: Choice, shown: int) -> None:
    if shown or (done := results.totals().rows) == results.rows:
        if not shown:
            say("no such row", sys.stderr)
    elif choice.row is None:
        say(f"no such row among the {done} of {results.rows} that have an outcome so far", sys.stderr)
    else:
        attempts = results.attempts(choice.row)
        say(f"row {choice.row} has no outcome yet; it was asked {attempts} times so far", sys.stderr)


# -- for people


def _page(
    results: Results, row: dict[str, Any], question: Question, answers: Answers | None, width: int, *, full: bool
) -> Iterator[str]:
    get = _getter(results, row)
    yield _heading(results, row, width)
    wrong = answers.checker.check(get("completion")).problems if answers is not None and get("valid") is False else ()
    for name, text in (
        *_texts(get, question, full=full),
        *([("does not match the schema", "\n".join(wrong))] * bool(wrong)),
    ):
        if text is None:
            yield line(name, width)
        else:
            yield f"{line(name, width - 1)}:"
            yield from (f"  {one}".rstrip() for one in block(text, width - 2, full=full))
    if question.note is not None:
        yield from block(f"prompt: {question.note}", width, full=True)
    yield from block(_usage(get), width, full=True)


def _heading(results: Results, row: dict[str, Any], width: int) -> str:
    get = _getter(results, row)
    words = [f"row {get('row_index')}", get("status")]
    if get("finish_reason") is not None:
        words.append(get("finish_reason"))
    named = next((name for name in (results.job["input"]["id"], "custom_id") if name in results.carried), None)
    if named is not None:
        words.append(f"{named} {row[named]}")
    text = line(" · ".join(words), width - 8)
    return f"── {text} {'─' * (width - cells(text) - 4)}"


def _texts(get: Any, question: Question, *, full: bool) -> Iterator[tuple[str, str | None]]:
    """Headings and what stands below them; None for a heading that says it all."""
    messages = question.messages or []
    hidden = 0 if full else max(0, len(messages) - _MAX_MESSAGES)
    if hidden:
        yield f"[... {hidden} earlier messages, --full shows them]", None
    for message in messages[hidden:]:
        yield str(message.get("role", "message")), _content(message)
    for name in ("reasoning", "completion", "choices_raw"):
        if get(name) is not None:
            yield name, get(name)
    if (error := get("error")) is not None:
        status = f" (HTTP {error['http_status']})" if error["http_status"] else ""
        yield f"error {error['code']}{status}", error["message"] or ""


def _content(message: dict[str, Any]) -> str:
    """The text of a message; what else it holds is shown as JSON."""
    content = message.get("content")
    rest = {name: value for name, value in message.items() if name not in ("role", "content")}
    texts = [content if isinstance(content, str) else dumps(content).decode()] if content is not None else []
    return "\n".join([*texts, *([dumps(rest).decode()] if rest else [])])


def _usage(get: Any) -> str:
    words = []
    for name, part in (("prompt", "cached"), ("completion", "reasoning")):
        if (count := get(f"{name}_tokens")) is not None:
            of_these = (get(f"{name}_tokens_details") or {}).get(f"{part}_tokens")
            words.append(f"{count:,} {name} tokens{f' ({of_these:,} {part})' if of_these else ''}")
    if get("cost_usd") is not None:
        words.append(f"${get('cost_usd'):.6f}")
    if get("latency_s") is not None:
        words.append(f"{get('latency_s'):.2f} s")
    words.append(f"{get('attempts')} {'attempt' if get('attempts') == 1 else 'attempts'}")
    if get("response_model") is not None:
        words.append(f"by {get('response_model')}")
    return f"usage: {', '.join(words)}"


# -- for scripts


def _record(results: Results, row: dict[str, Any], question: Question) -> dict[str, Any]:
    """One row as `--json` shows it: names without the prefix, the input columns apart."""
    inputs = set(results.carried)
    added = {name.removeprefix(results.prefix): value for name, value in row.items() if name not in inputs}
    return {
        **added,
        "messages": question.messages,
        "note": question.note,
        "columns": {name: row[name] for name in results.carried},
    }


def _getter(results: Results, row: dict[str, Any]) -> Any:
    return lambda name: row[results.column(name)]
