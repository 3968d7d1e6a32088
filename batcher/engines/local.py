"""The local engine: everything on this machine, in this process or shared among several."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import anyio
import anyio.to_thread

from batcher.engines.conducting import conduct
from batcher.engines.crew import Crew, destination
from batcher.engines.hands import Hands, processes_for
from batcher.engines.processes import Parent
from batcher.errors import BatcherError
from batcher.job import Job
from batcher.job.baseurl import SIMULATOR
from batcher.journal import deal
from batcher.loop import run_loop
from batcher.plan import Plan
from batcher.pricing import prices_of
from batcher.progress import Progress
from batcher.records import Shard
from batcher.rundir import RunDir, figures_of
from batcher.simulator import SimulatorOptions, start
from batcher.tuning import tuned_process
from batcher.worker import Worker

_log = logging.getLogger(__name__)

__all__ = ["LocalEngine", "destination", "endpoint_of"]


class LocalEngine:
    """Runs everything on this machine."""

    def run(self, job: Job, plan: Plan, shards: Sequence[Shard], rundir: RunDir, progress: Progress) -> None:
        """See `Engine`."""
        count = processes_for(job, len(shards))
        if isinstance(job.engine.processes, int) and count < job.engine.processes:
            _log.warning("%d of %d processes are used: %s", count, job.engine.processes, _too_few(job, shards))
        work = _work if count == 1 else partial(_share, count)
        with endpoint_of(job) as base_url, tuned_process():
            run_loop(work, job, plan, shards, rundir, progress, base_url)


async def _work(
    job: Job, plan: Plan, shards: Sequence[Shard], rundir: RunDir, progress: Progress, base_url: str
) -> None:
    totals = await anyio.to_thread.run_sync(rundir.totals)
    figures = figures_of(plan, totals)
    proven = figures.completed > 0
    prices = await anyio.to_thread.run_sync(prices_of, job)
    crew = await Crew.muster(
        Worker, job, plan, shards, rundir, base_url, figures=figures, prices=prices, spent=totals, proven=proven
    )
    await conduct(crew, rundir, progress, job.limits.grace_s)


async def _share(
    count: int, job: Job, plan: Plan, shards: Sequence[Shard], rundir: RunDir, progress: Progress, base_url: str
) -> None:
    """The same in so many processes, to which the journals are lent meanwhile."""
    totals = await anyio.to_thread.run_sync(rundir.totals)
    parent = Parent(
        job,
        plan,
        count=count,
        form=rundir.form,
        base_url=base_url,
        figures=figures_of(plan, totals),
        prices=await anyio.to_thread.run_sync(prices_of, job),
        spent=totals,
        progress=progress,
    )
    lock = await anyio.to_thread.run_sync(rundir.lend)
    try:
        whole = [plan.shards[shard.number] for shard in shards]  # whatever part of them is to be asked
        dealt = await anyio.to_thread.run_sync(deal, rundir.state, whole, count)
        chosen = {shard.number: shard for shard in shards}
        parent.take(Hands(shards, [[chosen[shard.number] for shard in hand] for hand in dealt]), lock)
        await conduct(parent, rundir, progress, job.limits.grace_s)
    except BatcherError:
        with anyio.CancelScope(shield=True):
            await _take_back_if_possible(rundir, plan)
        raise
    await anyio.to_thread.run_sync(rundir.take_back, plan)


async def _take_back_if_possible(rundir: RunDir, plan: Plan) -> None:
    """Where the disk is full or broken, the journals stay as they are until the next start."""
    try:
        await anyio.to_thread.run_sync(rundir.take_back, plan)
    except BatcherError as error:
        _log.warning("the journals of the worker processes were left as they are: %s", error)


def _too_few(job: Job, shards: Sequence[Shard]) -> str:
    if len(shards) <= job.limits.concurrency:
        return f"there {'is one shard' if len(shards) == 1 else f'are {len(shards)} shards'} (output.rows_per_part)"
    return f"limits.concurrency is {job.limits.concurrency}"


@contextmanager
def endpoint_of(job: Job) -> Iterator[str]:
    """The base URL to send to; a simulator of our own lives as long as this."""
    if job.endpoint.base_url != SIMULATOR:
        yield job.endpoint.base_url
        return
    options = job.endpoint.simulator
    with start(SimulatorOptions(**({} if options is None else options.model_dump()))) as simulator:
        yield simulator.base_url
