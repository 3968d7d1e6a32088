"""Engines hand out shards. What an engine does for a shard is the worker's business, the same for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from batcher.job import Job
from batcher.plan import Plan
from batcher.progress import Progress
from batcher.records import Shard
from batcher.rundir import RunDir


class Engine(Protocol):
    """Gets shards done."""

    def run(self, job: Job, plan: Plan, shards: Sequence[Shard], rundir: RunDir, progress: Progress) -> None:
        """Ask the rows of `shards` and publish their parts; return when all are done.

        Raises:
            BatcherError: why some are not. What was received is in the run folder.
        """


def load_engine(kind: str) -> Engine:
    """Return the engine of a job's `engine.kind`; imported here, so that no other one is paid for."""
    if kind == "local":
        from batcher.engines.local import LocalEngine

        return LocalEngine()
    raise ValueError(f"no engine is called {kind!r}")
