"""The shards of a run, handed out to worker processes one by one, and how many processes are worth while.

Pure: knows no process and no message.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence

from batcher.job import Job
from batcher.records import Shard

#: with `processes: auto`, another process for each so many requests at once
_WORTH_A_PROCESS = 64


def processes_for(job: Job, shards: int, cpus: int | None = None) -> int:
    """Return how many processes are to work on so many shards: no more than have anything to do."""
    asked = job.engine.processes
    if asked == "auto":
        cpus = len(os.sched_getaffinity(0)) if cpus is None else cpus
        asked = min(cpus, max(1, job.limits.concurrency // _WORTH_A_PROCESS))
    return max(1, min(int(asked), shards, job.limits.concurrency))


class Hands:
    """Who has which shards, and which are to be had. Everybody gets his in ascending order."""

    def __init__(self, shards: Sequence[Shard], own: Sequence[Sequence[Shard]]) -> None:
        """`own` are those of `shards` whose rows are in a process's journal."""
        taken = {shard.number for shards_of_one in own for shard in shards_of_one}
        self._common = deque(shard for shard in shards if shard.number not in taken)
        self._own = [deque(shards_of_one) for shards_of_one in own]
        self._given: list[list[Shard]] = [[] for _ in own]

    def give(self, number: int) -> Shard | None:
        """Return the next shard for a process; None if there are no more."""
        sources = [source for source in (self._own[number], self._common) if source]
        if not sources:
            return None
        shard = min(sources, key=lambda source: source[0].number).popleft()
        self._given[number].append(shard)
        return shard

    def given(self, number: int) -> list[Shard]:
        """Return all that a process was given so far."""
        return list(self._given[number])

    def has_more(self, number: int) -> bool:
        """Whether a process has or can get any."""
        return bool(self._own[number] or self._common or self._given[number])
