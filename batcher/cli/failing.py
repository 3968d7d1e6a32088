"""`batcher failures`: why rows failed, how often, and what to do about it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from batcher.cli.folder import results_of
from batcher.cli.hints import command, path_word
from batcher.cli.running import shown
from batcher.cli.text import block, line, put
from batcher.records import Totals
from batcher.results.advice import advice
from batcher.results.failures import OTHERS, Cause, causes
from batcher.retry.rules import ROW_SPECIFIC_CODES

#: causes that are listed for people; scripts get all of them
_MOST_LISTED = 20
_NARROWEST = 40


def show_failures(target: Path, *, samples: int, as_json: bool) -> int:
    """Print the causes of failure; exit code 0 whether or not there are any."""
    with results_of(target) as results:
        found, totals = causes(results, samples=samples), results.totals()
    if as_json:
        put(orjson.dumps(_record(results.rows, totals, found)).decode())
        return 0
    width = max(_NARROWEST, shutil.get_terminal_size((100, 24)).columns)
    put("\n".join(_page(target, results.rows, totals, found, width)))
    return 0


def _page(target: Path, rows: int, totals: Totals, found: list[Cause], width: int) -> Iterator[str]:
    failed = sum(cause.rows for cause in found)
    so_far = "" if totals.rows == rows else f", and {rows - totals.rows:,} have no outcome yet"
    yield f"{failed:,} of {totals.rows:,} rows failed{so_far}"
    for cause in found[:_MOST_LISTED]:
        yield ""
        yield line(f"{cause.rows:,} ({_share(cause.rows, failed)}): {_named(cause)}", width)
        for row_index, message in cause.samples:
            yield f"  {line(f'row {row_index}: {message}', width - 2)}"
        yield from (f"  {one}" for one in block(advice(cause.code, cause.http_status), width - 2, full=True))
    if len(found) > _MOST_LISTED:
        yield f"\n{len(found) - _MOST_LISTED} further causes; --json shows them"
    if found:
        yield ""
        yield f"look at them:    batcher show {shlex.quote(shown(str(target)))} --failed"
        yield from _again(target, found)


def _again(target: Path, found: list[Cause]) -> Iterator[str]:
    """How to ask the failed rows again; the rows that are done stay as they are."""
    job = "JOB" if target.is_dir() else path_word(target)
    yield f"ask them again:  {command('run', job, '--retry-failed')}"
    codes = [cause.code for cause in found if cause.code != OTHERS and cause.code not in ROW_SPECIFIC_CODES]
    if len(found) > 1 and codes:  # others would fail in the same way again
        yield f"only some:       {command('run', job, '--retry-failed', '--only', codes[0])}"
    if target.is_dir():
        yield "                 (JOB is the job file that wrote this folder)"


def _named(cause: Cause) -> str:
    said = cause.http_status is None or cause.code == f"http_{cause.http_status}"
    return cause.code if said else f"{cause.code} (HTTP {cause.http_status})"


def _share(part: int, whole: int) -> str:
    percent = 100 * part / whole
    return f"{percent:.0f}%" if percent >= 1 else "<1%"


def _record(rows: int, totals: Totals, found: list[Cause]) -> dict[str, Any]:
    failed = sum(cause.rows for cause in found)
    return {
        "rows": rows,
        "completed": totals.completed,
        "failed": failed,
        "causes": [
            {
                **asdict(cause),
                "share": cause.rows / failed,
                "samples": [{"row_index": row_index, "message": message} for row_index, message in cause.samples],
                "advice": advice(cause.code, cause.http_status),
            }
            for cause in found
        ],
    }
