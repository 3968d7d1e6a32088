"""The local engine: everything on this machine, in this process or shared among several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio.to_thread

from batcher.engines.conducting import conduct
from batcher.engines.crew import Crew, destination
from batcher.job import Job
from batcher.job.baseurl import SIMULATOR
from batcher.loop import run_loop
from batcher.plan import Plan
from batcher.progress import Progress
from batcher.records import Shard
from batcher.rundir import RunDir, figures_of
from batcher.simulator import SimulatorOptions, start
from batcher.tuning import tuned_process
from batcher.worker import Worker

__all__ = ["LocalEngine", "destination", "endpoint_of"]


class LocalEngine:
    """Runs everything on this machine."""

    def run(self, job: Job, plan: Plan, shards: Sequence[Shard], rundir: RunDir, progress: Progress) -> None:
        """See `Engine`."""
        with endpoint_of(job) as base_url, tuned_process():
            run_loop(_work, job, plan, shards, rundir, progress, base_url)


async def _work(
    job: Job, plan: Plan, shards: Sequence[Shard], rundir: RunDir, progress: Progress, base_url: str
) -> None:
    totals = await anyio.to_thread.run_sync(rundir.totals)
    figures = figures_of(plan, totals)
    proven = figures.completed > 0
    crew = await Crew.muster(Worker, job, plan, shards, rundir, base_url, figures=figures, spent=totals, proven=proven)
    await conduct(crew, rundir, progress, job.limits.grace_s)


@contextmanager
def endpoint_of(job: Job) -> Iterator[str]:
    """The base URL to send to; a simulator of our own lives as long as this."""
    if job.endpoint.base_url != SIMULATOR:
        yield job.endpoint.base_url
        return
    options = job.endpoint.simulator
    with start(SimulatorOptions(**({} if options is None else options.model_dump()))) as simulator:
        yield simulator.base_url
