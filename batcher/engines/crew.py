"""What works on rows within one process: a worker with its feed, client, limiter, guard and budget, put together.

It is the same whether the process is the only one or one of several. Does not know who listens or watches.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

from batcher.budget import Budget, answer_limit
from batcher.catalogue import load_catalogue
from batcher.client import Client, Destination, open_client
from batcher.client.gauges import watch_gauges
from batcher.errors import BatcherError, JobError
from batcher.feed import Feed
from batcher.guard import Guard
from batcher.job import Job, read_key
from batcher.job.baseurl import SIMULATOR
from batcher.limits.shared import SharedLimiter
from batcher.plan import Plan
from batcher.pricing import Prices
from batcher.progress import Figures
from batcher.prompt import Builder
from batcher.records import Shard, Totals
from batcher.rundir import RunDir
from batcher.settling import Rules
from batcher.worker import Worker

W = TypeVar("W", bound=Worker)

_log = logging.getLogger(__name__)

#: requests that are sent at first, by all processes together
START = 8
#: seconds between two looks at the key while it is refused
_KEY_S = 1.0


@dataclass(slots=True)
class Crew(Generic[W]):
    """The pieces of a process's work. Use once."""

    job: Job
    base_url: str
    worker: W
    limiter: SharedLimiter
    guard: Guard
    budget: Budget
    clients: list[Client] = field(repr=False)

    @classmethod
    async def muster(
        cls,
        kind: type[W],
        job: Job,
        plan: Plan,
        shards: Iterable[Shard],
        rundir: RunDir,
        base_url: str,
        *,
        figures: Figures,
        prices: Prices | None,
        spent: Totals,
        proven: bool,
        start: int = START,
    ) -> Crew[W]:
        """Put the pieces together; `spent` is what the whole run has used so far, `figures` are kept up to date.

        Raises:
            BatcherError: the job, its key or the disk does not allow it; nothing was sent.
        """
        schema = load_catalogue(job.catalogue).schema_of(job.model)
        feed = await anyio.to_thread.run_sync(lambda: Feed(plan, shards, rundir, Builder(job, schema)))
        limits = job.limits
        random = Random()  # noqa: S311 - spreads retries, no secret
        limiter = SharedLimiter(
            limits.concurrency,
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            max_outage_s=limits.max_outage_s,
            proven=proven,
            random=random,
            start=start,
        )
        guard = Guard(proven=proven)
        budget = Budget(limits.max_total_tokens, limits.max_cost_usd, prices, spent, answer_limit(job))
        client = open_client(destination(job, base_url), limits.concurrency)
        rules = Rules(limiter=limiter, guard=guard, random=random, budget=budget, prices=prices)
        worker = kind(job, rundir, feed, client, rules=rules, figures=figures)
        await anyio.to_thread.run_sync(rundir.journal.lay_in_reserve)
        return cls(job, base_url, worker, limiter, guard, budget, [client])

    @property
    def figures(self) -> Figures:
        """How it stands."""
        return self.worker.figures

    def look(self) -> None:
        """See `Worker.look`."""
        self.worker.look()

    def stop(self, reason: BatcherError) -> None:
        """See `Worker.stop`."""
        self.worker.stop(reason)

    def stop_now(self) -> None:
        """See `Worker.stop_now`."""
        self.worker.stop_now()

    def found(self) -> str:
        """Say which limit was found and what bounds it."""
        return self.limiter.found()

    async def run(self, *helpers: Callable[[], Coroutine[Any, Any, object]]) -> BatcherError | None:
        """See `Worker.run`; the helpers run meanwhile."""
        asyncio.get_running_loop().set_exception_handler(on_mistake(self.worker))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._renew_key)
                if self.job.endpoint.base_url != SIMULATOR and self.job.endpoint.proxy is None:
                    tasks.start_soon(self._heed_gauges)
                for helper in helpers:
                    tasks.start_soon(helper)
                reason = await self.worker.run()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                for client in self.clients:
                    await client.close()
        return reason

    async def _renew_key(self) -> None:
        """While the run finds out why it is refused, look whether the key was exchanged; ask on with the new one."""
        known = destination(self.job, self.base_url)
        while True:
            await anyio.sleep(_KEY_S)
            if not self.limiter.suspecting:
                continue
            try:
                found = await anyio.to_thread.run_sync(destination, self.job, self.base_url)
            except JobError as error:  # the file is just being written
                _log.warning("the key cannot be read: %s", error)
                continue
            if found.key is not None and (known.key is None or found.key.reveal() != known.key.reveal()):
                known = found
                self.clients.append(open_client(known, self.job.limits.concurrency))
                self.worker.client = self.clients[-1]

    async def _heed_gauges(self) -> None:
        """Let the limiter know how full a self-hosted server says it is."""
        before = self.figures.completed
        await watch_gauges(
            self.base_url,
            lambda running, waiting: self.limiter.gauged(running, waiting, time.monotonic()),
            lambda: self.figures.completed > before,
            ca_file=self.job.endpoint.ca_file,
        )


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


def on_mistake(worker: Worker) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """A callback that raises has left the run half way: end it rather than wait for ever; answers are saved."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        if "handle" in context:
            worker.stop(BatcherError())
            worker.stop_now()

    return handle
