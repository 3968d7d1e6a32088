"""One process at work: a bounded pool of slots over the rows of the open shards.

Where a row is, in this order; it is in one place at a time:

    feed -> backlog (fresh -> leasing -> ready) -> in flight -> recorded -> its shard's part
                        ^                              |
                        +---------- waiting <----------+

All of this state is changed on the event loop by plain methods that never await, `_pump` first among them, so nothing
can interleave and there is no lock. A slot is a task that sends, settles and takes the next ready row.
Nothing is sent before its lease is committed, and nothing counts before its outcome is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import anyio
import anyio.abc
import anyio.to_thread

from batcher.backlog import Backlog
from batcher.client import Client
from batcher.errors import BatcherError, BudgetError, DiskFullError, EndpointError, Interrupted, StorageError
from batcher.feed import Feed
from batcher.job import Job
from batcher.journal import Batch
from batcher.limits.bound import DISK, INPUT
from batcher.pending import Pending
from batcher.progress import Figures
from batcher.rundir import RunDir
from batcher.settling import Rules, Settling
from batcher.shard import OpenShard
from batcher.window import Window, window_size

#: rows and bytes of requests that are read ahead of what is being sent
_FRESH_ROWS = 256
_FRESH_BYTES = 8 << 20
#: parts that are still written when the run is to stop
_PARTS_AT_THE_END = 10
#: bytes of answers that may wait for their commit before no more requests are sent
_UNSAVED_BYTES = 64 << 20
#: seconds after which a part that found no room is written again
_PART_RETRY_S = 5.0


class Worker:
    """Asks all rows of a feed. Use once."""

    def __init__(
        self,
        job: Job,
        rundir: RunDir,
        feed: Feed,
        client: Client,
        *,
        rules: Rules,
        figures: Figures,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal, self._feed = rundir.journal, feed
        #: makes the attempts; may be replaced by one with another key
        self.client = client
        self._limiter, self._budget, self.figures = rules.limiter, rules.budget, figures
        self._clock, self._wall_clock = clock, wall_clock
        self._limits = job.limits
        self._rows = Backlog(
            max_bytes=job.limits.max_inflight_mb << 20, max_waiting=max(256, 4 * job.limits.concurrency)
        )
        self._in_flight = 0
        size = window_size(job.limits.concurrency, job.output.rows_per_part)
        self._window = Window(rundir.journal, size, figures)
        self._settling = Settling(job, self._journal, self._rows, self._window, figures, rules, self.stop, feed.answers)

        self._idle: list[asyncio.Future[Pending]] = []
        self._slots = 0
        self._dispatched = 0
        self._lookahead = 0
        self._stopping: BatcherError | None = None
        #: why there is no room: for the journal, for a part
        self._disk_full: StorageError | None = None
        self._part_held: StorageError | None = None
        self._writing = False
        self._held_since_s, self._started_s = 0.0, clock()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._wants = anyio.Event()
        self._finishes = anyio.Event()
        self._over = anyio.Event()

    def __repr__(self) -> str:
        return f"<Worker: {self._rows!r}, {self._in_flight} in flight, {self._window!r}>"

    async def run(self) -> BatcherError | None:
        """Work until every row has its outcome in a part, or until there is a reason to stop; return that reason.

        Everything received is saved by then, unless the reason is a StorageError.
        """
        self._journal.tell(asyncio.get_running_loop(), self)
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._read)
                self._tasks.start_soon(self._finish_shards)
                await self._over.wait()
                self._tasks.cancel_scope.cancel()
        finally:
            self._journal.tell_nobody()
            if self._timer is not None:
                self._timer.cancel()
            self._window.abandon()
        return self._stopping

    def stop(self, reason: BatcherError) -> None:
        """Send nothing more; wait for what is in flight (it is paid for), save it, then end with `reason`."""
        if isinstance(self._stopping, Interrupted) and not isinstance(reason, Interrupted):
            self._stopping = reason  # who asked it to stop should hear why it would not have gone on
        if self._stopping is None:
            self._stopping = reason
            self._settling.stopping = True
            self._feed.give_up()
            while self._rows.ready:
                self._settling.release(self._rows.ready.popleft())
            self._pump()

    def stop_now(self) -> None:
        """End without waiting for what is in flight; what was received is committed all the same."""
        self._over.set()

    def look(self) -> None:
        """Bring the figures up to date, and stop if there is no hope or no time left. Call a few times a second."""
        now = self._clock()
        if (reason := self._limiter.hopeless(now)) is not None:
            self.stop(EndpointError(f"{reason} ({self._settling.trouble}); run the same command again later"))
        if self._limits.max_runtime_s is not None and now - self._started_s >= self._limits.max_runtime_s:
            self.stop(BudgetError(f"limits.max_runtime_s: {self._limits.max_runtime_s:g} s are over"))
        self._limiter.looked(self._in_flight, now, unused_for=self._missing(), cpu_s=time.thread_time())
        figures = self.figures
        figures.in_flight, figures.waiting = self._in_flight, self._rows.waiting
        figures.limit, figures.why_waiting = self._limiter.limit, self._why(now)

    def _why(self, now: float) -> str | None:
        """Why nothing or less is sent at the moment, in words, or None."""
        if held := self._disk_full or self._part_held:
            return f"no room on the disk, waiting for up to {self._limits.max_full_disk_s:g} s ({held})"
        if self._in_flight and (reason := self._budget.reason()):
            return f"{reason}, waiting for what is in flight"
        return self._limiter.why(now)

    def _missing(self) -> str | None:
        """What rows to send are missing for, if they are: the input or the disk."""
        if self._rows.ready or (self._rows.all_read and self._rows.empty):
            return None
        return DISK if self._rows.leasing or self._rows.fresh else INPUT

    # -- the pump: decides what happens next; the only place that leases and hands out rows

    def _pump(self) -> None:
        if self._over.is_set():
            return
        now = self._clock()
        if self._stopping is None and self._disk_full is None:
            self._lease_more(now)
            while (self._idle or self._slots < self._limits.concurrency) and (pending := self._next(now)):
                self._hand_out(pending)
            self._arm_timer(now)
            if self._wants_rows():
                self._wants.set()
        if self._window.ready:
            self._finishes.set()
        if self._is_over(now):
            self._over.set()

    def _lease_more(self, now: float) -> None:
        free = self._limiter.allowance(self._in_flight, now)
        if self._window.unsaved_bytes > _UNSAVED_BYTES or (free == 0 and self._in_flight < self._limiter.limit):
            return  # the disk or the endpoint is behind: what is leased now would only wait
        ahead = min(self._lookahead, self._limiter.limit // 8)
        chosen = self._rows.choose(free + ahead - len(self._rows.ready) - self._rows.leasing, now)
        if chosen:
            self._journal.lease(chosen)

    def _hand_out(self, pending: Pending) -> None:
        """Give a row to a resting slot or a new one."""
        if self._idle:
            self._idle.pop().set_result(pending)
        else:
            self._slots += 1
            self._tasks.start_soon(self._slot, pending)

    def _next(self, now: float) -> Pending | None:
        """Return the next ready row as one that is being sent; None if none may be sent now."""
        if self._stopping is not None or self._disk_full is not None or not self._rows.ready:
            return None
        if self._limiter.allowance(self._in_flight, now) <= 0:
            return None
        size = len(self._rows.ready[0].prompt.body)
        reserved = self._budget.reserve(size)
        if reserved is None:
            if not self._in_flight and not self._budget.is_leased:
                self.stop(BudgetError(self._budget.reason()))
            return None
        pending = self._rows.ready.popleft()
        self._settling.sending(pending, now, self._wall_clock(), reserved)
        self._in_flight += 1
        self._dispatched += 1
        self._limiter.sent(now, size // 4)
        return pending

    def _arm_timer(self, now: float) -> None:
        """Come back when time alone lets the next row go: a retry falls due, or the limiter opens."""
        opens = None if self._rows.empty else self._limiter.wake_at(now)
        if opens is None and self._in_flight >= self._limiter.limit:
            return  # only an answer makes room
        due = self._rows.next_due_s if opens is None else opens  # a row due earlier could not be sent
        if due is None or due <= now or (self._timer is not None and self._timer_due <= due):
            return  # nothing but an event helps, or the timer rings early and sets itself again
        if self._timer:
            self._timer.cancel()
        self._timer_due = due
        self._timer = asyncio.get_running_loop().call_later(max(0.001, due - now), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._pump()

    def _is_over(self, now: float) -> bool:
        if self._in_flight or self._rows.leasing or self._writing or self._window.uncommitted:
            return False
        if self._stopping is not None:
            return not self._window.ready or self._leaves_parts()
        if self._rows.empty and (self._rows.all_read or self._window.full) and not self._settling.conclude(now):
            asyncio.get_running_loop().call_soon(self._pump)  # for rows that it has put back
            return False
        return self._rows.all_read and self._rows.empty and self._window.at_rest

    # -- a slot: send, settle, take the next

    async def _slot(self, pending: Pending | None) -> None:
        while True:
            if pending is None:
                rest: asyncio.Future[Pending] = asyncio.get_running_loop().create_future()
                self._idle.append(rest)
                pending = await rest
            try:
                result = await self.client.send(pending.prompt.body)
            except Exception as error:  # one attempt's, not the end of a slot
                result = self._settling.mistake(error)
            now, in_flight = self._clock(), self._in_flight
            self._in_flight -= 1
            self._settling.settle(pending, result, now, self._wall_clock(), in_flight)
            pending = self._next(now)
            self._pump()

    # -- the journal speaks

    def committed(self, batch: Batch) -> None:
        """The journal has made a batch durable: leased rows may be sent, outcomes count."""
        self._lookahead, self._dispatched = 2 * self._dispatched, 0
        for row_index in batch.leases:
            pending = self._rows.leased(row_index)
            if self._stopping is None:
                self._rows.ready.append(pending)
            else:
                self._settling.release(pending)
        self._window.committed(batch.outcomes)
        self._pump()

    def disk_full(self, error: StorageError) -> None:
        """Send nothing, read nothing and write no part until `has_room`; answers are still taken."""
        self._disk_full = error

    def has_room(self) -> None:
        """Go on: the disk has room again."""
        self._disk_full = None
        self._pump()

    def broke(self, error: StorageError, *, saving: bool) -> None:
        """The journal takes nothing any more: finish what is in flight if that is saved elsewhere, else end at once."""
        self.stop(error)
        self._stopping = error
        if not saving:
            self._over.set()

    def _wants_rows(self) -> bool:
        if self._stopping is not None or self._disk_full is not None or self._rows.all_read:
            return False
        if self._rows.fresh >= _FRESH_ROWS + self._limiter.limit or self._rows.fresh_bytes >= _FRESH_BYTES:
            return False
        return not (self._feed.opens_shard and self._window.full)

    async def _read(self) -> None:
        while not self._rows.all_read:
            while not self._wants_rows():
                self._wants = anyio.Event()
                await self._wants.wait()
            try:
                feeding = await anyio.to_thread.run_sync(self._feed.next)
            except BatcherError as error:
                self.stop(error)
                return
            if feeding is None:
                self._rows.all_read = True
            else:
                self._rows.add(feeding.pending)
                for outcome in feeding.failed:
                    self._window.record(outcome, feeding.shard)
                self._window.opened(feeding.shard, all_read=feeding.is_last)
            self._pump()

    def _leaves_parts(self) -> bool:
        """Whether finished shards are left to the next run: there is no room for them, or it would take too long."""
        if self._stopping is not None and (self._part_held or len(self._window.ready) > _PARTS_AT_THE_END):
            return True
        return self._disk_full is not None or isinstance(self._stopping, StorageError)

    async def _finish_shards(self) -> None:
        """Write parts one at a time: a second writer would double the memory, not the speed."""
        while True:
            while not self._window.ready or self._leaves_parts():
                self._finishes = anyio.Event()
                await self._finishes.wait()
            await self._finish(self._window.ready[0])

    async def _finish(self, shard: OpenShard) -> None:
        """Write a part; while the disk is full, again and again."""
        self._writing = True
        try:
            await anyio.to_thread.run_sync(shard.finish)
            self._part_held = None
        except DiskFullError as error:
            self._hold_part(error)
        except BatcherError as error:
            self.stop(error)
        self._writing = False
        if self._part_held is None or self._stopping is not None:
            self._window.closed(shard)
            self._pump()
        else:
            await anyio.sleep(_PART_RETRY_S)

    def _hold_part(self, error: StorageError) -> None:
        """Wait for room: the outcomes stay in the journal, and rows are asked as long as that has room."""
        now = self._clock()
        if self._part_held is None:
            self._part_held, self._held_since_s = error, now
        elif now - self._held_since_s >= self._limits.max_full_disk_s:
            self.stop(error)
