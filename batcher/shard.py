"""One open shard: which of its rows still miss an outcome, and the input columns its part will carry.

The columns are kept in a spool, an Arrow stream beside the journal, as they are read for asking. So the input is read
once and only forwards, compressed or not, and a part holds exactly the values that were asked about even if the input
file changes meanwhile. The spool is not durable and need not be: a new process reads the shard again. A reopened shard
needs none: what its part carries is in the part that is there.
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
from batcher.records import Shard, Totals
from batcher.renewal import renew_part
from batcher.rundir import RunDir
from batcher.tuning import give_back_memory

#: of a reopened shard in the window, however few of its rows are asked
_SMALLEST_PLACE = 1 / 1024


class OpenShard:
    """A shard from its first row read to its part published. `missing` counts rows without a committed outcome."""

    def __init__(self, shard: Shard, rundir: RunDir) -> None:
        self.shard = shard
        self._rundir = rundir
        self._reopening = rundir.reopenings.get(shard.number)
        #: rows that are asked again, and how they stood
        self.reopened = {} if self._reopening is None else rundir.journal.reopened_rows(shard)
        #: rows that are not to be asked
        self.done = rundir.settled_rows(shard)
        self.missing = shard.rows - len(self.done)
        #: of the job that its rows are asked with
        self.job_version = rundir.job_version
        #: how much of the window it takes up: a shard of which few rows are asked again is no more than these rows
        self.place = 1.0 if self._reopening is None else max(self.missing / shard.rows, _SMALLEST_PLACE)
        #: set once every row has been handed out; by whoever counts `missing`, not by the thread that reads
        self.all_read = False
        self._unread = shard.rows
        self._spool = self._path("columns.arrow")
        self._spools = not self.partial and self._reopening is None
        if not self._spools:
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

    def keeps(self, row_index: int) -> bool:
        """Whether a row is completed, and stays so should its new attempt fail."""
        return row_index in self.reopened and self.reopened[row_index].kept

    def carry(self, columns: pa.RecordBatch) -> None:
        """Keep the columns of the next rows."""
        if not self._spools:
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
            totals = self._write(temporary)
        except OSError as error:
            raise _unwritable(temporary, error) from error
        self._rundir.publish(self.shard, temporary, totals)
        self._spool.unlink(missing_ok=True)
        give_back_memory()

    def abandon(self) -> None:
        """Close the spool of a shard that stays unfinished in this run."""
        if not self._spools:
            return
        with contextlib.suppress(OSError):  # what it still held does not fit on a full disk, nor is it needed
            self._file.close()

    def _write(self, temporary: Path) -> Totals:
        form, outcomes = self._rundir.form, self._rundir.journal.outcomes
        if self._reopening is None:
            return write_part(temporary, self.shard, form, self._carried(), outcomes)
        old = self._rundir.part_path(self.shard)
        return renew_part(temporary, old, self.shard, form, outcomes, revision=self._reopening.revision)

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
