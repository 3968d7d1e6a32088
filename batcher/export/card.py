"""The card of a dataset: what its rows are, in the Markdown that Hugging Face reads. Pure.

It holds nothing of where it was made: no path, host, address of the endpoint, key or name of a person. Parameters that
may hold such things are named without their value.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from typing import Any, Final

from batcher.records import Totals
from batcher.results import Results

#: parameters whose values may name people or accounts; those of `extra`, which nobody has checked, are hidden too
_PRIVATE: Final = frozenset({"user", "user_id", "metadata", "safety_identifier", "prompt_cache_key"})
_HEADER: Final = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---"""
_COLUMNS: Final = {
    "row_index": "number of the row in the input, from 0",
    "status": "`completed` or `failed`",
    "completion": "the answer",
    "reasoning": "the model's reasoning before the answer",
    "finish_reason": "why the answer ended",
    "prompt_tokens": "tokens of the prompt",
    "completion_tokens": "tokens of the answer, reasoning included",
    "total_tokens": "both together",
    "prompt_tokens_details": "kinds of prompt tokens",
    "completion_tokens_details": "kinds of completion tokens",
    "usage_raw": "the usage as the API sent it, JSON text",
    "cost_usd": "price of the row in US dollars, where prices are known",
    "response_id": "the API's id of the response",
    "response_object": "the API's kind of object",
    "response_created": "when the response was made",
    "response_model": "the model that answered",
    "system_fingerprint": "the API's fingerprint of its configuration",
    "choices_raw": "what the other columns do not hold, such as tool calls, JSON text",
    "error": "why the row failed",
    "attempts": "requests made for the row",
    "latency_s": "seconds from request to answer",
    "requested_at": "when the request was sent",
    "job_version": "which version of the job it came from: 1 unless a change was accepted",
    "parsed": "the answer as JSON text, null where it is none",
    "valid": "whether the answer matches the JSON schema that was asked for",
}


def dataset_card(results: Results, totals: Totals) -> str:
    """Return the card; `totals` are the sums over the rows that the dataset holds."""
    blocks = [_HEADER, *_title(results, totals), *_facts(results, totals), *_parameters(results), *_schema(results)]
    return "\n\n".join(blocks) + "\n"


def _title(results: Results, totals: Totals) -> Iterator[str]:
    yield f"# Completions of {_model(results)}"
    part = "" if totals.rows == results.rows else f", the first to be ready of {results.rows:,}"
    yield f"{totals.rows:,} rows{part}: input columns, and beside them what the model answered."


def _facts(results: Results, totals: Totals) -> Iterator[str]:
    facts = {
        "model": _model(results),
        "request format": results.job["endpoint"]["request_format"],
        "rows": f"{totals.rows:,} ({totals.completed:,} completed, {totals.failed:,} failed)",
        "prompt tokens": f"{totals.prompt_tokens:,}",
        "completion tokens": f"{totals.completion_tokens:,}",
        "made with": f"batcher {_cell(results.version)}",
    }
    yield "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items())])


def _parameters(results: Results) -> Iterator[str]:
    given = dict(results.job["parameters"])
    hidden = [f"extra.{name}" for name in given.pop("extra", {})]
    hidden += [name for name in list(given) if name in _PRIVATE and given.pop(name) is not None]
    yield "## Parameters"
    if given:
        lines = (f"| `{_cell(name)}` | {_code(value)} |" for name, value in given.items())
        yield "\n".join(["| parameter | value |", "| --- | --- |", *lines])
    if hidden:
        yield f"Also set: {', '.join(f'`{_cell(name)}`' for name in hidden)}."
    if not given and not hidden:
        yield "The model's defaults."


def _schema(results: Results) -> Iterator[str]:
    inputs = set(results.carried)
    lines = []
    for field in results.schema:
        what = (
            "input"
            if field.name in inputs
            else _COLUMNS.get(field.name.removeprefix(results.prefix), "a field of the answer")
        )
        lines.append(f"| {_code(field.name)} | {_code(str(field.type))} | {what} |")
    yield "## Columns"
    yield "\n".join(["| column | type | |", "| --- | --- | --- |", *lines])


def _model(results: Results) -> str:
    """The model's name; of one that is a path on somebody's machine only the last step."""
    name: str = results.job["model"]
    is_path = name.startswith(("/", ".", "~")) or "\\" in name
    return _cell(name.replace("\\", "/").rstrip("/").rpartition("/")[2] if is_path else name)


def _code(value: Any) -> str:
    return f"<code>{_cell(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))}</code>"


def _cell(text: str) -> str:
    """Text that stays inside its cell, whatever it holds."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "&#124;").replace("`", "&#96;")
