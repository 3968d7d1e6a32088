"""The window of open shards: outcomes go in, finished shards come out.

An outcome is recorded in the journal, and only its commit counts. A shard whose rows all have committed outcomes is
ready to be written. The window is bounded, so memory and disk are, and wide enough that one slow row never idles the
pool.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from batcher.journal import Journal
from batcher.progress import Figures
from batcher.records import Outcome
from batcher.shard import OpenShard


def window_size(concurrency: int, rows_per_part: int) -> int:
    """Shards that may be open at once: room for 16 rows a slot, and for all failures that the guard may hold back."""
    return 1 + max(2, math.ceil(max(16 * concurrency, 256) / rows_per_part))


class Window:
    """The open shards of one worker, and the outcomes that are not committed yet."""

    def __init__(self, journal: Journal, size: int, figures: Figures) -> None:
        self._journal, self._size, self._figures = journal, size, figures
        self._open: set[OpenShard] = set()
        self._places = 0.0
        self._recorded: dict[int, OpenShard] = {}
        #: bytes of answers that wait for their commit
        self.unsaved_bytes = 0
        #: shards whose part can be written, in the order in which they became so
        self.ready: deque[OpenShard] = deque()

    def __repr__(self) -> str:
        return f"<Window: {len(self._open)} of {self._size} shards, {len(self._recorded)} rows recorded>"

    @property
    def full(self) -> bool:
        """No further shard may be opened now."""
        return self._places >= self._size

    @property
    def uncommitted(self) -> bool:
        """Some outcome waits for its commit."""
        return bool(self._recorded)

    @property
    def at_rest(self) -> bool:
        """No outcome waits for its commit and no shard to be written."""
        return not self._recorded and not self.ready

    def opened(self, shard: OpenShard, *, all_read: bool) -> None:
        """Take in a shard some rows of which were read, perhaps the last ones.

        A partial one takes no place: it is not written in this run, so there is nothing to bound.
        """
        if shard.partial:
            return
        self._open.add(shard)
        self._measure()
        if all_read:
            shard.all_read = True
            self._check(shard)

    def record(self, outcome: Outcome, shard: OpenShard) -> None:
        """Hand an outcome to the journal."""
        outcome.job_version = shard.job_version
        self._recorded[outcome.row_index] = shard
        self.unsaved_bytes += len(outcome.body)
        self._journal.record(outcome)

    def committed(self, outcomes: Iterable[Outcome]) -> None:
        """Count outcomes that the journal has made durable."""
        for outcome in outcomes:
            self.unsaved_bytes -= len(outcome.body)
            shard = self._recorded.pop(outcome.row_index)
            self._count(outcome, shard)
            shard.missing -= 1
            self._check(shard)

    def _count(self, outcome: Outcome, shard: OpenShard) -> None:
        figures = self._figures
        if outcome.status == "completed":
            figures.completed += 1
            figures.invalid += outcome.valid is False
        elif shard.keeps(outcome.row_index):
            figures.completed += 1
            figures.invalid += shard.reopened[outcome.row_index].invalid
        else:
            figures.failed += 1

    def _check(self, shard: OpenShard) -> None:
        if shard.ready:
            self.ready.append(shard)

    def closed(self, shard: OpenShard) -> None:
        """Forget the first of the ready shards: its part is in place, or could not be written."""
        self.ready.remove(shard)
        self._open.discard(shard)
        self._measure()

    def _measure(self) -> None:
        self._places = sum(shard.place for shard in self._open)

    def abandon(self) -> None:
        """Close the files of shards that stay unfinished in this run."""
        for shard in self._open:
            shard.abandon()
