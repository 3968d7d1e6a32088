"""The feed: rows of the unfinished shards become requests that wait to be sent, a chunk at a time.

Runs on a thread, since it reads files; the worker calls `next` when it runs low. Rows that have an outcome already are
left out, as are those that the run is not to ask; rows that cannot be asked come out as failed, and the columns to
carry go to their shard's spool.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass

from batcher.pending import Pending
from batcher.plan import Plan
from batcher.prompt import Builder, PromptError
from batcher.records import ApiError, Outcome, Row, Shard, Spent
from batcher.repairing import resumed
from batcher.rundir import RunDir
from batcher.shard import OpenShard
from batcher.source import Chunk, GivenUp, read


@dataclass(frozen=True, slots=True)
class Feeding:
    """What one chunk gave."""

    shard: OpenShard
    pending: list[Pending]
    failed: list[Outcome]
    #: the shard has no more rows after these
    is_last: bool


class Feed:
    """Reads the rows of `shards` forwards, once."""

    def __init__(self, plan: Plan, shards: Iterable[Shard], rundir: RunDir, builder: Builder) -> None:
        builder.check_columns(plan.schema.names)  # what `row` means in a template depends on them
        self._given_up = False
        self._chunks = read(plan.files, shards, plan.schema, given_up=lambda: self._given_up)
        self._rundir = rundir
        self._builder = builder
        #: of the rows of the shard that is being read
        self._tried: dict[int, tuple[int, int]] = {}
        self._spent: dict[int, Spent] = {}
        #: what answers have to be like; None: nothing
        self.answers = builder.answers
        self._drafts = rundir.journal.drafts() if self.answers else {}
        if self.answers:
            _ = self.answers.checker  # compiled here, on a thread
        self._carried = rundir.form.carried.names
        self._shard: OpenShard | None = None

    @property
    def opens_shard(self) -> bool:
        """The next chunk begins a shard, if there is a next chunk."""
        return self._shard is None or self._shard.fully_read

    def give_up(self) -> None:
        """Let a `next` that is under way on its thread come to an end soon; what it returns is of no use."""
        self._given_up = True

    def next(self) -> Feeding | None:
        """Read the next chunk; None at the end of the last shard. Blocks on the disk.

        Raises:
            InputError: the input cannot be read any more.
            StorageError: the spool cannot be written.
        """
        try:
            chunk = next(self._chunks, None)
        except GivenUp:
            return None
        if chunk is None:
            return None
        shard = self._shard if self._shard and not self._shard.fully_read else self._open(chunk.shard)
        self._shard = shard
        shard.carry(chunk.carried.select(self._carried))
        return self._build(chunk, shard)

    def _open(self, shard: Shard) -> OpenShard:
        journal = self._rundir.journal
        self._tried, self._spent = journal.attempts(shard), journal.spent(shard)
        return OpenShard(shard, self._rundir)

    def _build(self, chunk: Chunk, shard: OpenShard) -> Feeding:
        feeding = Feeding(shard, [], [], is_last=shard.fully_read)
        only = shard.shard.only
        for row in chunk.rows:
            if row.row_index in shard.done or not (only is None or row.row_index in only):
                continue
            try:
                feeding.pending.append(self._pending(row, shard))
            except PromptError as error:
                feeding.failed.append(self._unaskable(row, str(error)))
            except Exception as error:  # whatever its values do to the template or to JSON, it is one row's problem
                feeding.failed.append(self._unaskable(row, f"the request cannot be built ({type(error).__name__})"))
        return feeding

    def _pending(self, row: Row, shard: OpenShard) -> Pending:
        if row.problem is not None:
            raise PromptError(row.problem)
        prompt = self._builder.build(row.values)
        draft = self._drafts.pop(row.row_index, None)
        if draft is not None and shard.job_version > 1 and draft.requested_at < self._rundir.job_began_at:
            draft = None  # an answer to what another version of the job asked
        if draft is not None and self.answers is not None:
            prompt = resumed(prompt, draft, self.answers)
        attempts, ambiguous = self._tried.pop(row.row_index, (0, 0))
        spent, before = self._spent.pop(row.row_index, None), shard.reopened.get(row.row_index)
        return Pending(row.row_index, shard, prompt, attempts, ambiguous, spent, draft=draft, before=before)

    def _unaskable(self, row: Row, message: str) -> Outcome:
        code = "invalid_row" if row.problem is not None else "row_cannot_be_asked"
        error = ApiError(message, type="batcher", code=code)
        attempts, ambiguous = self._tried.pop(row.row_index, (0, 0))  # the job may have been another then
        spent = self._spent.pop(row.row_index, Spent())
        return Outcome(row.row_index, "failed", b"", attempts, ambiguous, None, None, error, *astuple(spent))
