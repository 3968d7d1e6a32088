"""`batcher status`: how a run stands, read from its folder without touching it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

from batcher.cli.bar import cost_words
from batcher.cli.running import shown
from batcher.cli.talk import visible, visible_json
from batcher.errors import InputError, StorageError
from batcher.job import load_job


def show_status(target: Path, *, as_json: bool) -> int:
    """Print the state of the run of a job file or in an output folder; exit code 0 if there is one."""
    folder = target if target.is_dir() else load_job(target).output.path
    summary = read_summary(folder)
    try:
        words = visible_json(orjson.dumps(summary).decode()) if as_json else render_status(folder, summary)
    except (KeyError, TypeError, ValueError) as error:
        raise _not_ours(folder) from error
    print(words)
    return 0


def read_summary(folder: Path) -> dict[str, Any]:
    """Return `summary.json` of a run folder, with `state` corrected if its process is gone.

    Raises:
        InputError: there is no run in this folder.
    """
    path = folder / ".batcher" / "summary.json"
    try:
        summary: dict[str, Any] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{shown(str(folder))} holds no run yet") from None
    except (OSError, orjson.JSONDecodeError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    try:
        if summary["state"] == "running" and not _is_alive(summary["pid"]):
            summary["state"] = "died"
    except (KeyError, TypeError, OverflowError) as error:
        raise _not_ours(folder) from error
    return summary


def render_status(folder: Path, summary: dict[str, Any]) -> str:
    """The summary in a few lines."""
    done = summary["completed"] + summary["failed"]
    words = {
        "running": f"running (pid {summary['pid']})",
        "finished": "finished",
        "died": "not running; it was killed and can be resumed with the same command",
    }
    lines = [
        f"{shown(str(folder))}: {words.get(summary['state'], 'stopped; the same command resumes it')}",
        f"rows:   {done} of {summary['total']} ({summary['completed']} completed, {summary['failed']} failed),"
        f" {summary['in_flight']} in flight, {summary['waiting']} waiting for another attempt",
        f"tokens: {summary['prompt_tokens']:,} prompt, {summary['completion_tokens']:,} completion",
        f"cost:   {cost_words(summary.get('cost_usd'), summary.get('unpriced', 0), done, summary['total'])}",
    ]
    if summary["ambiguous"]:
        lines.append(f"unsure: {summary['ambiguous']} requests may have been paid for without an answer")
    if summary["why_waiting"]:
        lines.append(f"waits:  {summary['why_waiting']}")
    lines.append(f"as of:  {summary['updated_at']}")
    return "\n".join(map(visible, lines))


def _not_ours(folder: Path) -> StorageError:
    return StorageError(f"{folder / '.batcher' / 'summary.json'} is not what batcher wrote")


def _is_alive(pid: int) -> bool:
    """The process exists. (Trying the lock instead would, for a moment, lock out a run that is just starting.)"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
