"""The local engine: one process, one event loop, one worker.

Puts the pieces together (client, limiter, guard, feed, worker), listens for signals and tells the watcher how it goes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from random import Random
from typing import Any

import anyio
import anyio.to_thread

from batcher.budget import Budget, answer_limit
from batcher.catalogue import load_catalogue
from batcher.client import Client, Destination, open_client
from batcher.client.gauges import watch_gauges
from batcher.errors import BatcherError, Interrupted, JobError
from batcher.feed import Feed
from batcher.guard import Guard
from batcher.job import Job, read_key
from batcher.job.baseurl import SIMULATOR
from batcher.limits import Limiter
from batcher.loop import received_signals, run_loop
from batcher.plan import Plan
from batcher.pricing import prices_of
from batcher.progress import Progress
from batcher.prompt import Builder
from batcher.records import Shard
from batcher.rundir import RunDir, figures_of
from batcher.settling import Rules
from batcher.simulator import SimulatorOptions, start
from batcher.timeline import Timeline
from batcher.tuning import tuned_process
from batcher.worker import Worker

_log = logging.getLogger(__name__)

#: seconds between two looks at the figures, and between two versions of summary.json
_LOOK_S = 0.2
_SUMMARY_S = 3.0
#: seconds between two looks at the key while it is refused
_KEY_S = 1.0


class LocalEngine:
    """Runs everything in this process."""

    def run(self, job: Job, plan: Plan, shards: Sequence[Shard], rundir: RunDir, progress: Progress) -> None:
        """See `Engine`."""
        with endpoint_of(job) as base_url, tuned_process():
            run_loop(_work, job, plan, shards, rundir, progress, base_url)


async def _work(
    job: Job, plan: Plan, shards: Sequence[Shard], rundir: RunDir, progress: Progress, base_url: str
) -> None:
    schema = load_catalogue(job.catalogue).schema_of(job.model)
    feed = await anyio.to_thread.run_sync(lambda: Feed(plan, shards, rundir, Builder(job, schema)))
    totals = await anyio.to_thread.run_sync(rundir.totals)
    figures = figures_of(plan, totals)
    prices = await anyio.to_thread.run_sync(prices_of, job)
    proven = figures.completed > 0
    random = Random()  # noqa: S311 - spreads retries, no secret
    limiter = Limiter(
        job.limits.concurrency,
        requests_per_minute=job.limits.requests_per_minute,
        tokens_per_minute=job.limits.tokens_per_minute,
        max_outage_s=job.limits.max_outage_s,
        proven=proven,
        random=random,
    )
    clients = [open_client(destination(job, base_url), job.limits.concurrency)]
    budget = Budget(job.limits.max_total_tokens, job.limits.max_cost_usd, prices, totals, answer_limit(job))
    rules = Rules(limiter=limiter, guard=Guard(proven=proven), random=random, budget=budget, prices=prices)
    worker = Worker(job, rundir, feed, clients[0], rules=rules, figures=figures)
    await anyio.to_thread.run_sync(rundir.journal.lay_in_reserve)
    timeline = await anyio.to_thread.run_sync(Timeline, rundir.state)
    timeline.look(figures)
    progress.started(figures)
    if rundir.orphaned:
        progress.note(
            f"{rundir.orphaned} requests were on their way when the last run ended; their rows are asked again"
        )
    state = "failed"
    asyncio.get_running_loop().set_exception_handler(_on_mistake(worker))
    try:
        async with anyio.create_task_group() as helpers:
            helpers.start_soon(_listen, worker, progress, job.limits.grace_s)
            helpers.start_soon(_report, worker, rundir, progress, timeline)
            helpers.start_soon(_renew_key, job, base_url, worker, limiter, clients)
            if job.endpoint.base_url != SIMULATOR and job.endpoint.proxy is None:
                helpers.start_soon(_heed_gauges, job, base_url, worker, limiter)
            reason = await worker.run()
            helpers.cancel_scope.cancel()
        state = "finished" if reason is None and figures.done == figures.total else "stopped"
    finally:
        with anyio.CancelScope(shield=True):
            for client in clients:
                await client.close()
        worker.look()
        progress.finished(figures)
        timeline.end(figures)
        rundir.write_summary({"state": state, **asdict(figures)})
    if reason is not None:
        raise reason
    progress.note(f"limit found: {limiter.found()}")


def destination(job: Job, base_url: str) -> Destination:
    """Where the requests of a job go, and with which key."""
    endpoint = job.endpoint
    return Destination(
        url=f"{base_url}/chat/completions",
        key=read_key(endpoint),
        headers=endpoint.headers,
        connect_s=endpoint.timeouts.connect_s,
        first_byte_s=endpoint.timeouts.first_byte_s,
        total_s=endpoint.timeouts.total_s,
        max_response_bytes=endpoint.max_response_bytes,
        ca_file=endpoint.ca_file,
        proxy=endpoint.proxy,
    )


def _on_mistake(worker: Worker) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """A callback that raises has left the run half way: end it rather than wait for ever; answers are saved."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        if "handle" in context:
            worker.stop(BatcherError())
            worker.stop_now()

    return handle


async def _listen(worker: Worker, progress: Progress, grace_s: float) -> None:
    """First signal: finish what is in flight, for `grace_s` at most. Second: leave now."""
    async with received_signals() as signals:
        first = True
        async for signum in signals:
            if first:
                waiting = worker.figures.in_flight
                progress.note(f"stopping: finishing {waiting} requests in flight (again to stop now)")
                worker.stop(Interrupted(signum))
                asyncio.get_running_loop().call_later(grace_s, worker.stop_now)
            else:
                progress.note("stopping now; requests in flight are given up and counted as perhaps paid")
                worker.stop_now()
            first = False


async def _renew_key(job: Job, base_url: str, worker: Worker, limiter: Limiter, clients: list[Client]) -> None:
    """While the run finds out why it is refused, look whether the key was exchanged, and ask on with the new one."""
    known = destination(job, base_url)
    while True:
        await anyio.sleep(_KEY_S)
        if not limiter.suspecting:
            continue
        try:
            found = await anyio.to_thread.run_sync(destination, job, base_url)
        except JobError as error:  # the file is just being written
            _log.warning("the key cannot be read: %s", error)
            continue
        if found.key is not None and (known.key is None or found.key.reveal() != known.key.reveal()):
            known = found
            clients.append(open_client(known, job.limits.concurrency))
            worker.client = clients[-1]


async def _heed_gauges(job: Job, base_url: str, worker: Worker, limiter: Limiter) -> None:
    """Let the limiter know how full a self-hosted server says it is."""
    before = worker.figures.completed
    await watch_gauges(
        base_url,
        lambda running, waiting: limiter.gauged(running, waiting, time.monotonic()),
        lambda: worker.figures.completed > before,
        ca_file=job.endpoint.ca_file,
    )


async def _report(worker: Worker, rundir: RunDir, progress: Progress, timeline: Timeline) -> None:
    rounds = 0
    while True:
        worker.look()
        progress.updated(worker.figures)
        timeline.look(worker.figures)
        if rounds % round(_SUMMARY_S / _LOOK_S) == 0:
            await anyio.to_thread.run_sync(rundir.write_summary, {"state": "running", **asdict(worker.figures)})
            await anyio.to_thread.run_sync(timeline.save)
        rounds += 1
        await anyio.sleep(_LOOK_S)


@contextmanager
def endpoint_of(job: Job) -> Iterator[str]:
    """The base URL to send to; a simulator of our own lives as long as this."""
    if job.endpoint.base_url != SIMULATOR:
        yield job.endpoint.base_url
        return
    options = job.endpoint.simulator
    with start(SimulatorOptions(**({} if options is None else options.model_dump()))) as simulator:
        yield simulator.base_url
