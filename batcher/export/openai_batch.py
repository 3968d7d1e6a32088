"""The two result files of OpenAI's Batch API: a line per completed row in one, a line per failed row in the other.

    {"id": "batch_req_...", "custom_id": "...", "error": null,
     "response": {"status_code": 200, "request_id": "...", "body": {...completion...}}}
    {"id": "batch_req_...", "custom_id": "...", "error": {"code": "...", "message": "..."},
     "response": {"status_code": 400, "request_id": "", "body": {"error": {...}}}}           or null without a status

`custom_id` is the input's column of that name, else the column that `input.id` names, else `<input>-<row index>`, which
is the same in every export of that input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from batcher.results import Results
from batcher.results.plain import as_text, dumps, json_rows

#: the columns that a line is made of
_COLUMNS = (
    *("row_index", "completion", "reasoning", "finish_reason", "prompt_tokens", "completion_tokens", "total_tokens"),
    *("usage_raw", "response_id", "response_created", "response_model", "system_fingerprint", "choices_raw", "error"),
)

Row = dict[str, Any]


def write_openai_batch(results: Results, answered: BinaryIO, failed: BinaryIO) -> int:
    """Write all rows that have an outcome; return their number."""
    rows = 0
    for row_index, custom_id, row in _rows(results):
        file = answered if row["error"] is None else failed
        file.write(dumps(_line(results, row_index, custom_id, row)) + b"\n")
        rows += 1
    return rows


def id_column(results: Results) -> str | None:
    """Return the column that `custom_id` comes from; None if it is made of the row index."""
    names = ("custom_id", results.job["input"]["id"])
    return next((name for name in names if name in results.carried), None)


def _rows(results: Results) -> Iterator[tuple[int, str, Row]]:
    """Each row's index, its custom_id, and the added columns without the prefix."""
    named = id_column(results)
    columns = [results.column(name) for name in _COLUMNS]
    for batch in results.batches([*columns, *([] if named is None else [named])]):
        for given in json_rows(batch, set() if named is None else {named}):
            row = {name: given[column] for name, column in zip(_COLUMNS, columns, strict=True)}
            index = row["row_index"]
            custom_id = None if named is None else as_text(given[named])
            yield index, f"{results.input_fingerprint}-{index}" if custom_id is None else custom_id, row


def _line(results: Results, row_index: int, custom_id: str, row: Row) -> Row:
    own = hashlib.sha256(f"{results.input_fingerprint}-{row_index}".encode()).hexdigest()[:32]
    error = row["error"]
    return {
        "id": f"batch_req_{own}",
        "custom_id": custom_id,
        "response": _response(results, row) if error is None else _refusal(error),
        "error": None if error is None else {"code": error["code"], "message": error["message"]},
    }


def _response(results: Results, row: Row) -> Row:
    body = {
        "id": row["response_id"] or "",
        "object": "chat.completion",
        "created": int(row["response_created"].timestamp()) if row["response_created"] else 0,
        "model": row["response_model"] or results.job["model"],
        "choices": _choices(row),
        "usage": _usage(row),
        "system_fingerprint": row["system_fingerprint"],
    }
    return {"status_code": 200, "request_id": row["response_id"] or "", "body": body}


def _choices(row: Row) -> Any:
    if row["choices_raw"] is not None:
        return orjson.loads(row["choices_raw"])
    message = {"role": "assistant", "content": row["completion"], "refusal": None}
    if row["reasoning"] is not None:
        message["reasoning_content"] = row["reasoning"]
    return [{"index": 0, "message": message, "logprobs": None, "finish_reason": row["finish_reason"]}]


def _usage(row: Row) -> Any:
    if row["usage_raw"] is not None:
        return orjson.loads(row["usage_raw"])
    counts = {name: row[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return None if None in counts.values() else counts


def _refusal(error: Row) -> Row | None:
    if error["http_status"] is None:
        return None
    body = {name: error[name] for name in ("message", "type", "param", "code")}
    return {"status_code": error["http_status"], "request_id": "", "body": {"error": body}}
