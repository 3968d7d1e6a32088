"""batcher without its journal and without parts: what the two cost is what this leaves out.

    python -m tests.benchmarks.engine_only JOB

Rows are read, asked, judged and counted as ever; what is recorded is committed at the loop's next turn, and forgotten.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.to_thread

from batcher.catalogue import load_catalogue
from batcher.client import Client, open_client
from batcher.engines.local import destination
from batcher.feed import Feed
from batcher.guard import Guard
from batcher.job import Job, load_job
from batcher.journal import Batch
from batcher.limits import Limiter
from batcher.plan import Plan, make_plan
from batcher.progress import Figures
from batcher.prompt import Builder
from batcher.records import Outcome, Shard, Spent
from batcher.settling import Rules
from batcher.source import find_files
from batcher.tuning import spare_pandas, tuned_process
from batcher.worker import Worker


class NoJournal:
    """Says of everything that it is committed."""

    def __init__(self) -> None:
        self._batch = Batch()
        self._told = True

    def tell(self, loop: asyncio.AbstractEventLoop, listener: Any) -> None:
        self._loop, self._listener = loop, listener

    def tell_nobody(self) -> None:
        self._told = True

    def lease(self, rows: Sequence[int]) -> None:
        self._batch.leases.extend(rows)
        self._soon()

    def record(self, outcome: Outcome) -> None:
        self._batch.outcomes.append(outcome)
        self._soon()

    def release(self, row_index: int, **_: Any) -> None:
        raise SystemExit("a request failed; this measures only what succeeds")

    def rows_with_outcome(self, shard: Shard) -> set[int]:
        return set()

    def attempts(self, shard: Shard) -> dict[int, tuple[int, int]]:
        return {}

    def spent(self, shard: Shard) -> dict[int, Spent]:
        return {}

    def _soon(self) -> None:
        if self._told:
            self._told = False
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        batch, self._batch, self._told = self._batch, Batch(), True
        self._listener.committed(batch)


async def ask_all(job: Job, plan: Plan, opened: Callable[[], Client]) -> None:
    """Ask every row with the client that `opened` returns; it is called on the event loop."""
    # a shard of which only some rows are asked has no part; here these are all of its rows
    shards = [replace(shard, only=frozenset(range(shard.first_row, shard.end_row))) for shard in plan.shards]
    journal, form = NoJournal(), SimpleNamespace(carried=plan.schema)
    rundir: Any = SimpleNamespace(
        journal=journal,
        form=form,
        tmp=Path("nowhere"),
        reopenings={},
        settled_rows=journal.rows_with_outcome,
        job_version=1,
    )
    feed = await anyio.to_thread.run_sync(
        lambda: Feed(plan, shards, rundir, Builder(job, load_catalogue(job.catalogue).schema_of(job.model)))
    )
    chance = Random(1)
    limiter = Limiter(job.limits.concurrency, random=chance)
    client = opened()
    rules = Rules(limiter=limiter, guard=Guard(proven=False), random=chance)
    figures = Figures(total=plan.rows)
    worker = Worker(job, rundir, feed, client, rules=rules, figures=figures)

    async def look() -> None:
        while True:
            worker.look()
            await anyio.sleep(0.2)

    async with anyio.create_task_group() as helpers:
        helpers.start_soon(look)
        reason = await worker.run()
        helpers.cancel_scope.cancel()
    await client.close()
    if reason is not None or figures.completed != plan.rows:
        raise SystemExit(f"{figures.completed} of {plan.rows} rows: {reason}")


def main(path: Path) -> None:
    """Ask every row of a job."""
    spare_pandas()
    job = load_job(path)
    options = {"use_uvloop": importlib.util.find_spec("uvloop") is not None}
    with tuned_process():
        plan, where = make_plan(job, find_files(job.input.path)), destination(job, job.endpoint.base_url)
        anyio.run(ask_all, job, plan, lambda: open_client(where, job.limits.concurrency), backend_options=options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
