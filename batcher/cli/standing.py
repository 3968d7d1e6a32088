"""How a run stands: what its summary says, corrected by what can be seen of its process and its folder.

States: `starting` (a process took the folder and has not reported yet), `running`, `finished`, `stopped`, `failed`,
`died` (its process is gone without a word) and `unknown` (a process on another machine that was not heard of lately).
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from batcher.cli.running import shown
from batcher.errors import BatcherError, InputError, StorageError
from batcher.progress import Figures
from batcher.results.holder import Holder, holder_of

#: states that another look may find changed
UNDER_WAY = ("starting", "running", "unknown")
#: seconds of silence after which a run that cannot be seen is not believed to run; it reports every few seconds
_SILENCE_S = 60.0


def standing_of(folder: Path) -> dict[str, Any]:
    """Return the summary of a run folder: `state`, `pid`, `updated_at` and the figures of `Figures`.

    While rows are asked again also `asked_again`, how many are left; if changes of the job were accepted `versions`.

    Raises:
        InputError: there is no run in this folder.
        StorageError: the summary cannot be read.
    """
    holder = holder_of(folder)
    summary = _summary(folder)
    standing = _corrected(folder, summary, holder) if summary is not None else _unreported(folder, holder)
    return {**standing, **_history(folder)}


def _unreported(folder: Path, holder: Holder | None) -> dict[str, Any]:
    """A folder whose process has not written a summary, or did not live to."""
    counted = _counted(folder)
    if holder is None or (holder.at_work is False and not counted):
        raise InputError(f"{shown(str(folder))} holds no run yet")
    state = "died" if holder.at_work is False else "starting"
    return {"state": state, **asdict(Figures()), **counted, "updated_at": holder.since.isoformat(), "pid": holder.pid}


def _corrected(folder: Path, summary: dict[str, Any], holder: Holder | None) -> dict[str, Any]:
    at_work = holder.at_work if holder is not None else False
    if holder is not None and at_work and holder.pid != summary["pid"]:
        return {**summary, "state": "starting", "pid": holder.pid}
    if summary["state"] == "finished" and summary["completed"] + summary["failed"] < summary["total"]:
        return {**summary, "state": "stopped"}  # it asked as many rows as it was told to
    if at_work:
        return summary
    if summary["state"] != "running":
        return {**summary, "in_flight": 0}  # what it gave up when it was told to leave at once
    if at_work is None:
        return {**summary, "state": "unknown" if _age_s(summary) > _SILENCE_S else "running"}
    idle = {"in_flight": 0, "waiting": 0, "limit": 0, "why_waiting": None}
    return {**summary, "state": "died", **idle, **_counted(folder)}


def _summary(folder: Path) -> dict[str, Any] | None:
    path = folder / ".batcher" / "summary.json"
    try:
        summary = orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    if not isinstance(summary, dict) or not {"state", "pid", "updated_at"} <= summary.keys():
        raise StorageError(f"{path} is not what batcher wrote")
    return {**asdict(Figures()), **summary}


def _counted(folder: Path) -> dict[str, Any]:
    """The figures that the folder itself knows better than the last report of a process that is gone."""
    from batcher.results import Results

    try:
        with Results.open(folder) as results:
            totals = results.totals()
            return {
                "total": results.rows,
                "completed": totals.completed,
                "failed": totals.failed,
                "ambiguous": totals.ambiguous + results.on_their_way(),
                "prompt_tokens": totals.prompt_tokens,
                "completion_tokens": totals.completion_tokens,
                "cost_usd": totals.known_cost_usd if totals.rows else None,
                "unpriced": totals.unpriced,
                "invalid": totals.invalid,
            }
    except BatcherError:  # a damaged folder is the next run's to refuse; the last report still stands
        return {}


def _history(folder: Path) -> dict[str, Any]:
    """What the summary does not know: rows that are asked again, and the versions of the job."""
    from batcher.results import Results

    found: dict[str, Any] = {}
    try:
        with Results.open(folder) as results:
            if again := results.asked_again():
                found["asked_again"] = again
            if len(results.jobs) > 1:
                found["versions"] = [asdict(version) for version in results.versions()]
    except BatcherError:  # as above
        return {}
    return found


def _age_s(summary: dict[str, Any]) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(summary["updated_at"])).total_seconds()
