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
from random import Random

import anyio
import anyio.abc
import anyio.to_thread

from batcher.backlog import Backlog
from batcher.client import Client
from batcher.errors import BatcherError, EndpointError, Interrupted, StorageError
from batcher.feed import Feed
from batcher.guard import Guard
from batcher.job import Job
from batcher.journal import Batch
from batcher.limits import Limiter
from batcher.pending import Pending
from batcher.pricing import Prices
from batcher.progress import Figures
from batcher.records import Fault, Outcome, Reply
from batcher.retry import Action, Verdict, is_row_specific, safely_judged
from batcher.rundir import RunDir
from batcher.window import Window, window_size

#: rows and bytes of requests that are read ahead of what is being sent
_FRESH_ROWS = 256
_FRESH_BYTES = 8 << 20
#: parts that are still written when the run is to stop
_PARTS_AT_THE_END = 10
#: bytes of answers that may wait for their commit before no more requests are sent
_UNSAVED_BYTES = 64 << 20


class Worker:
    """Asks all rows of a feed. Use once."""

    def __init__(
        self,
        job: Job,
        rundir: RunDir,
        feed: Feed,
        client: Client,
        *,
        limiter: Limiter,
        guard: Guard,
        figures: Figures,
        random: Random,
        prices: Prices | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal, self._feed, self._client = rundir.journal, feed, client
        self._limiter, self._guard, self.figures = limiter, guard, figures
        self._random, self._clock, self._wall_clock, self._prices = random, clock, wall_clock, prices
        self._slots_allowed = job.limits.concurrency
        self._max_attempts = job.limits.max_attempts
        self._rows = Backlog(
            max_bytes=job.limits.max_inflight_mb << 20, max_waiting=max(256, 4 * job.limits.concurrency)
        )
        self._in_flight = 0
        size = window_size(job.limits.concurrency, job.output.rows_per_part)
        self._window = Window(rundir.journal, size, guard, figures)

        self._idle: list[asyncio.Future[Pending]] = []
        self._slots = 0
        self._dispatched = 0
        self._lookahead = 0
        self._all_read = False
        self._stopping: BatcherError | None = None
        self._disk_full = False
        self._last_trouble = ""
        self._succeeded_at_s = 0.0
        self._writing = False
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
            while self._rows.ready:
                self._release(self._rows.ready.popleft())
            self._pump()

    def stop_now(self) -> None:
        """End without waiting for what is in flight; what was received is committed all the same."""
        self._over.set()

    def look(self) -> None:
        """Bring the figures up to date, and stop if the limiter sees no hope. Call a few times a second."""
        now = self._clock()
        reason = self._limiter.hopeless(now)
        if reason is not None:
            self.stop(EndpointError(f"{reason} ({self._last_trouble}); run the same command again later"))
        figures = self.figures
        figures.in_flight, figures.waiting = self._in_flight, self._rows.waiting
        figures.limit, figures.why_waiting = self._limiter.limit, self._limiter.why(now)

    # -- the pump: decides what happens next; the only place that leases and hands out rows

    def _pump(self) -> None:
        if self._over.is_set():
            return
        now = self._clock()
        if self._stopping is None and not self._disk_full:
            self._lease_more(now)
            while self._may_send(now) and self._hand_out(now):
                pass
            self._arm_timer(now)
            if self._wants_rows():
                self._wants.set()
        if self._window.ready:
            self._finishes.set()
        if self._is_over():
            self._over.set()

    def _lease_more(self, now: float) -> None:
        free = self._limiter.allowance(self._in_flight, now)
        if self._window.unsaved_bytes > _UNSAVED_BYTES or (free == 0 and self._in_flight < self._limiter.limit):
            return  # the disk or the endpoint is behind: what is leased now would only wait
        ahead = min(self._lookahead, self._limiter.limit // 8)
        chosen = self._rows.choose(free + ahead - len(self._rows.ready) - self._rows.leasing, now)
        if chosen:
            self._journal.lease(chosen)

    def _may_send(self, now: float) -> bool:
        held_back = self._stopping is not None or self._disk_full or not self._rows.ready
        return not held_back and self._limiter.allowance(self._in_flight, now) > 0

    def _hand_out(self, now: float) -> bool:
        """Give a ready row to a resting slot or a new one; False if all slots are busy."""
        if self._idle:
            self._idle.pop().set_result(self._dispatch(now))
        elif self._slots < self._slots_allowed:
            self._slots += 1
            self._tasks.start_soon(self._slot, self._dispatch(now))
        else:
            return False
        return True

    def _dispatch(self, now: float) -> Pending:
        pending = self._rows.ready.popleft()
        pending.sent_at_s, pending.requested_at = now, self._wall_clock()
        self._in_flight += 1
        self._dispatched += 1
        self._limiter.sent(now, len(pending.prompt.body) // 4)
        return pending

    def _arm_timer(self, now: float) -> None:
        """Come back when time alone lets the next row go: a retry falls due, or the limiter opens."""
        opens = None if self._rows.empty else self._limiter.wake_at(now)
        if opens is None and self._in_flight >= self._limiter.limit:
            return  # only an answer makes room
        due = self._rows.next_due_s if opens is None else opens  # a row that falls due earlier could not be sent
        if due is None or (self._timer is not None and self._timer_due <= due):
            return  # nothing to wait for, or the timer rings early and sets itself again
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = asyncio.get_running_loop().call_later(max(0.001, due - now), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._pump()

    def _is_over(self) -> bool:
        if self._in_flight or self._rows.leasing or self._writing or self._window.uncommitted:
            return False
        if self._stopping is not None:
            return not self._window.ready or self._leaves_parts()
        if self._rows.empty and (self._all_read or self._window.full) and not self._window.believe():
            self.stop(self._guard.as_error())
            return False  # stop() asked again
        return self._all_read and self._rows.empty and self._window.at_rest

    # -- a slot: send, settle, take the next

    async def _slot(self, pending: Pending | None) -> None:
        while True:
            if pending is None:
                rest: asyncio.Future[Pending] = asyncio.get_running_loop().create_future()
                self._idle.append(rest)
                pending = await rest
            result = await self._client.send(pending.prompt.body)
            pending = self._settle(pending, result)

    def _settle(self, pending: Pending, result: Reply | Fault) -> Pending | None:
        """Act on the result of an attempt, and take the next ready row if one may be sent at once."""
        now = self._clock()
        self._last_trouble = result.message if isinstance(result, Fault) else f"HTTP {result.status}"
        verdict = safely_judged(result, json_mode=pending.prompt.json_mode, now_s=self._wall_clock())
        tokens = verdict.completion.usage.total_tokens if verdict.completion else None
        self._limiter.answered(
            pending.sent_at_s,
            now,
            verdict.signal,
            wait_s=verdict.wait_s,
            tokens=tokens,
            in_flight=self._in_flight,
            headers=result.headers if isinstance(result, Reply) else None,
        )
        self._in_flight -= 1
        pending.attempts += 1
        pending.ambiguous += verdict.ambiguous
        self.figures.ambiguous += verdict.ambiguous
        if verdict.completion is not None:
            usage = verdict.completion.usage
            cost_usd = self._prices.cost_usd(usage, pending.requested_at) if self._prices else None
            pending.used(usage, cost_usd)
            self.figures.paid(cost_usd)
        self._act(pending, verdict, result, now)
        next_one = self._dispatch(now) if self._may_send(now) else None
        self._pump()
        return next_one

    def _act(self, pending: Pending, verdict: Verdict, result: Reply | Fault, now: float) -> None:
        match verdict.action:
            case Action.COMPLETE:
                self._succeeded_at_s = now
                self._rows.settled(pending)
                self._window.record(pending.outcome(result.body, now), pending.shard)
                if self._stopping is None:
                    self._window.succeeded()
            case Action.RETRY | Action.RETRY_FREE:
                since, most = self._succeeded_at_s, self._max_attempts
                if pending.exhausted(verdict, succeeded_at_s=since, max_attempts=most):
                    self._fail(pending, pending.outcome(result.body, now, verdict.error))
                else:
                    self._wait(pending, verdict, now)
            case Action.FAIL:
                self._fail(pending, pending.outcome(result.body, now, verdict.error))
            case Action.STOP:
                self._release(pending)
                self.stop(verdict.as_error())

    def _wait(self, pending: Pending, verdict: Verdict, now: float) -> None:
        self.figures.retries += 1
        self._release(pending)
        self._rows.wait(pending, now + pending.pause_s(verdict, self._random))

    def _release(self, pending: Pending) -> None:
        """Note that a row is not on its way any more, and has no outcome."""
        self._journal.release(
            pending.row_index, attempts=pending.attempts, ambiguous=pending.ambiguous, spent=pending.spent
        )

    def _fail(self, pending: Pending, outcome: Outcome) -> None:
        """Record a failure, or hold it back until a success shows that it is the row's own."""
        self._rows.settled(pending)
        if outcome.error is not None and is_row_specific(outcome.error):
            self._window.record(outcome, pending.shard)
            return
        self._release(pending)
        if self._window.hold(outcome, pending.shard):
            self.stop(self._guard.as_error())

    def committed(self, batch: Batch) -> None:
        """The journal has made a batch durable: leased rows may be sent, outcomes count."""
        self._lookahead, self._dispatched = 2 * self._dispatched, 0
        for row_index in batch.leases:
            pending = self._rows.leased(row_index)
            if self._stopping is None:
                self._rows.ready.append(pending)
            else:
                self._release(pending)
        self._window.committed(batch.outcomes)
        self._pump()

    def disk_full(self, error: StorageError) -> None:
        """Send nothing, read nothing and write no part until `has_room`; answers are still taken."""
        self._disk_full = True

    def has_room(self) -> None:
        """Go on: the disk has room again."""
        self._disk_full = False
        self._pump()

    def broke(self, error: StorageError, *, saving: bool) -> None:
        """The journal takes nothing any more: finish what is in flight if that is saved elsewhere, else end at once."""
        self.stop(error)
        self._stopping = error
        if not saving:
            self._over.set()

    def _wants_rows(self) -> bool:
        if self._stopping is not None or self._disk_full or self._all_read:
            return False
        if self._rows.fresh >= _FRESH_ROWS + self._limiter.limit or self._rows.fresh_bytes >= _FRESH_BYTES:
            return False
        return not (self._feed.opens_shard and self._window.full)

    async def _read(self) -> None:
        while not self._all_read:
            while not self._wants_rows():
                self._wants = anyio.Event()
                await self._wants.wait()
            try:
                feeding = await anyio.to_thread.run_sync(self._feed.next)
            except BatcherError as error:
                self.stop(error)
                return
            if feeding is None:
                self._all_read = True
            else:
                self._rows.add(feeding.pending)
                for outcome in feeding.failed:
                    self._window.record(outcome, feeding.shard)
                self._window.opened(feeding.shard, all_read=feeding.is_last)
            self._pump()

    def _leaves_parts(self) -> bool:
        """Whether finished shards are left to the next run: there is no room for them, or it would take too long."""
        too_many = self._stopping is not None and len(self._window.ready) > _PARTS_AT_THE_END
        return too_many or self._disk_full or isinstance(self._stopping, StorageError)

    async def _finish_shards(self) -> None:
        """Write parts, one at a time: a second writer would double the memory and not the speed."""
        while True:
            while not self._window.ready or self._leaves_parts():
                self._finishes = anyio.Event()
                await self._finishes.wait()
            shard = self._window.ready[0]
            self._writing = True
            try:
                await anyio.to_thread.run_sync(shard.finish)
            except BatcherError as error:
                self.stop(error)
            self._writing = False
            self._window.closed(shard)
            self._pump()
