"""The input rows of failed rows, as a new input: what another job asks again.

They are taken from the input itself, so that a template sees the same values as the first time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from batcher.errors import InputError
from batcher.export.newfile import new_file
from batcher.records import Shard
from batcher.results import Results
from batcher.results.plain import dumps
from batcher.source import read
from batcher.source.columns import json_text


def export_failed_inputs(results: Results, path: Path, *, force: bool = False) -> tuple[int, int]:
    """Write the input of all failed rows so far as JSON Lines; return how many, and how many could not be read.

    Raises:
        InputError: the input is not there any more, or changed.
        StorageError: the file cannot be written, or exists and `force` is not set; or the run folder is damaged.
    """
    written = unreadable = 0
    with new_file(path, force=force) as file:
        for shard in results.plan.shards:
            for line in _failed_inputs(results, shard):
                if line is None:
                    unreadable += 1
                else:
                    file.write(line)
                    written += 1
    return written, unreadable


def _failed_inputs(results: Results, shard: Shard) -> list[bytes | None]:
    """The failed rows of one shard as lines; None for one that cannot be read."""
    column = results.column("row_index")
    batches = results.batches([column], first_row=shard.first_row, end_row=shard.end_row, status="failed")
    failed = {row_index for batch in batches for row_index in batch.column(0).to_pylist()}
    if not failed:
        return []
    chunks = read(results.plan.files, [shard], results.plan.schema)
    try:
        rows = [row for chunk in chunks for row in chunk.rows if row.row_index in failed]
    except InputError as error:
        raise InputError(f"the failed rows cannot be read from the input again: {error}") from error
    return [_as_line(row.values) if row.problem is None else None for row in rows]


def _as_line(values: dict[str, Any]) -> bytes:
    try:
        return dumps(values) + b"\n"
    except orjson.JSONEncodeError:  # an integer beyond 64 bits, or nested deeply
        return json_text(values).encode() + b"\n"
