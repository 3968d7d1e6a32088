"""How a run is led: signals stop it, a watcher is told how it goes, and the run folder keeps the figures over time.

Does not know who does the work, one process or several: that is a `Runner`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any, Protocol

import anyio
import anyio.to_thread

from batcher.errors import BatcherError, Interrupted
from batcher.loop import received_signals
from batcher.progress import Figures, Progress
from batcher.rundir import RunDir
from batcher.timeline import Timeline

#: seconds between two looks at the figures, and between two versions of summary.json
LOOK_S = 0.2
_SUMMARY_S = 1.0


class Runner(Protocol):
    """Gets rows done."""

    @property
    def figures(self) -> Figures:
        """How it stands, as of the latest look."""

    def look(self) -> None:
        """Bring the figures up to date."""

    def stop(self, reason: BatcherError) -> None:
        """Send nothing more, finish what is in flight, end with `reason`."""

    def stop_now(self) -> None:
        """End without waiting for what is in flight."""

    def found(self) -> str:
        """Say which limit was found and what bounds it."""

    async def run(self, *helpers: Callable[[], Coroutine[Any, Any, object]]) -> BatcherError | None:
        """Work until all is done or there is a reason to stop, which is returned; the helpers run meanwhile."""


async def conduct(runner: Runner, rundir: RunDir, progress: Progress, grace_s: float) -> None:
    """Let `runner` work, and lead it. Raises the reason for which it stopped."""
    timeline = await anyio.to_thread.run_sync(Timeline, rundir.state)
    timeline.look(runner.figures)
    progress.started(runner.figures)
    if rundir.orphaned:
        progress.note(
            f"{rundir.orphaned} requests were on their way when the last run ended; their rows are asked again"
        )

    async def listen() -> None:
        await _listen(runner, progress, grace_s)

    async def report() -> None:
        await _report(runner, rundir, progress, timeline)

    state = "failed"
    try:
        reason = await runner.run(listen, report)
        runner.look()
        state = "finished" if reason is None and runner.figures.done == runner.figures.total else "stopped"
    finally:
        runner.look()
        progress.finished(runner.figures)
        timeline.end(runner.figures)
        rundir.write_summary({"state": state, **asdict(runner.figures)})
    if reason is not None:
        raise reason
    progress.note(f"limit found: {runner.found()}")


async def _listen(runner: Runner, progress: Progress, grace_s: float) -> None:
    """First signal: finish what is in flight, for `grace_s` at most. Second: leave now."""
    async with received_signals() as signals:
        first = True
        async for signum in signals:
            if first:
                waiting = runner.figures.in_flight
                progress.note(f"stopping: finishing {waiting} requests in flight (again to stop now)")
                runner.stop(Interrupted(signum))
                asyncio.get_running_loop().call_later(grace_s, runner.stop_now)
            else:
                progress.note("stopping now; requests in flight are given up and counted as perhaps paid")
                runner.stop_now()
            first = False


async def _report(runner: Runner, rundir: RunDir, progress: Progress, timeline: Timeline) -> None:
    rounds = 0
    while True:
        runner.look()
        progress.updated(runner.figures)
        timeline.look(runner.figures)
        if rounds % round(_SUMMARY_S / LOOK_S) == 0:
            await anyio.to_thread.run_sync(rundir.write_summary, {"state": "running", **asdict(runner.figures)})
            await anyio.to_thread.run_sync(timeline.save)
        rounds += 1
        await anyio.sleep(LOOK_S)
