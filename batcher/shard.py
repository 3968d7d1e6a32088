"""One open shard: which of its rows still miss an outcome, and the input columns its part will carry.

The columns are kept in a spool, an Arrow stream beside the journal, as they are read for asking. So the input is read
once and only forwards, compressed or not, and a part holds exactly the values that were asked about even if the input
file changes meanwhile. The spool is not durable and need not be: a new process reads the shard again.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from batcher.durable import create
from batcher.errors import DiskFullError, StorageError
from batcher.part import write_part
from batcher.records import Shard
from batcher.rundir import RunDir
from batcher.tuning import give_back_memory


class OpenShard:
    """A shard from its first row read to its part published. `missing` counts rows without a committed outcome."""

    def __init__(self, shard: Shard, rundir: RunDir) -> None:
        self.shard = shard
        self._rundir = rundir
        self.done = rundir.journal.rows_with_outcome(shard)
        self.missing = shard.rows - len(self.done)
        #: set once every row has been handed out; by whoever counts `missing`, not by the thread that reads
        self.all_read = False
        self._unread = shard.rows
        self._spool = self._path("columns.arrow")
        if self.partial:
            return
        try:
            self._file = create(self._spool)
            self._writer = pa.ipc.new_stream(self._file, rundir.form.carried)
        except OSError as error:
            raise _unwritable(self._spool, error) from error

    def __repr__(self) -> str:
        return f"<OpenShard {self.shard.number}: {self._unread} unread, {self.missing} without outcome>"

    @property
    def partial(self) -> bool:
        """Some rows are not asked in this run, so that there will be no part: no columns are kept."""
        return self.shard.only is not None

    @property
    def fully_read(self) -> bool:
        """All rows of the shard have been read, as the thread that reads knows."""
        return self._unread == 0

    @property
    def ready(self) -> bool:
        """Every row is read and has an outcome: `finish` may be called."""
        return self.all_read and self.missing == 0

    def carry(self, columns: pa.RecordBatch) -> None:
        """Keep the columns of the next rows."""
        if self.partial:
            self._unread -= columns.num_rows
            return
        try:
            self._writer.write_batch(columns)
            self._unread -= columns.num_rows
            if self.fully_read:
                self._writer.close()
                self._file.close()
        except OSError as error:
            raise _unwritable(self._spool, error) from error

    def finish(self) -> None:
        """Write the part, put it in place, and forget the rows in the journal. Blocks for as long as that takes.

        Raises:
            StorageError: it could not be written; the rows' outcomes stay in the journal.
        """
        temporary = self._path("part")
        try:
            totals = write_part(
                temporary, self.shard, self._rundir.form, self._carried(), self._rundir.journal.outcomes
            )
        except OSError as error:
            raise _unwritable(temporary, error) from error
        self._rundir.publish(self.shard, temporary, totals)
        self._spool.unlink()
        give_back_memory()

    def abandon(self) -> None:
        """Close the spool of a shard that stays unfinished in this run."""
        if self.partial:
            return
        with contextlib.suppress(OSError):  # what it still held does not fit on a full disk, nor is it needed
            self._file.close()

    def _carried(self) -> Iterator[pa.RecordBatch]:
        with self._spool.open("rb") as file:
            yield from pa.ipc.open_stream(file)

    def _path(self, suffix: str) -> Path:
        return self._rundir.tmp / f"shard-{self.shard.number:05d}.{suffix}"


def _unwritable(path: Path, error: OSError) -> StorageError:
    kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
    return kind(
        f"{path} cannot be written: {error.strerror or error}. What was received before is safe;"
        " make room and run the same command again"
    )
