"""The run folder as one of several worker processes has it: its own journal, its own shards, one lock for all.

Another process planned the run, holds the folder and hands out the shards; this one asks their rows, keeps their
outcomes in a journal of its own and publishes their parts. Nobody else works on its shards meanwhile, and whoever takes
them over when it dies begins as a run begins: with what its journal says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from batcher.lock import InheritedLock
from batcher.part import PartFormat
from batcher.records import Shard
from batcher.rundir import RunDir


class Branch(RunDir):
    """A worker process's part in a run folder, until `close`."""

    @classmethod
    def join(cls, path: Path, lock: int, number: int, form: PartFormat, max_full_disk_s: float) -> Self:
        """Open journal `number` of the folder whose `lock`, a file descriptor, this process has inherited.

        Raises:
            StorageError: the journal cannot be opened.
        """
        branch = cls(path, InheritedLock(lock))
        branch._form, branch._max_full_disk_s = form, max_full_disk_s
        branch._open_journal(number)
        return branch

    def take_over(self, shards: Sequence[Shard]) -> list[Shard]:
        """Settle what a process that died has left of its `shards`; return those without a part."""
        for shard in shards:
            for left in self.tmp.glob(f"shard-{shard.number:05d}.*"):
                left.unlink()
        self._settle(shards)
        return [shard for shard in shards if not self._is_done(shard)]

    def _forget_reopened(self) -> None:
        """Whether any part is reopened, whoever holds the folder knows."""
