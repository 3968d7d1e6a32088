"""A worker process: does for its own shards what a run of one process does for all, and obeys its parent.

It asks the parent for shards, keeps to its shares of the limits, says a few times a second how it stands, and leaves
signals to the parent. When the parent is gone it sends nothing more and leaves, after a few seconds for the answers
under way; until then it keeps hold of the run folder, so that no other run begins beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import anyio
import anyio.to_thread

from batcher.branch import Branch
from batcher.budget import Budget
from batcher.engines.crew import Crew
from batcher.engines.messages import (
    Ask,
    Begin,
    Channel,
    Ended,
    Give,
    Grant,
    Hello,
    Problem,
    Proven,
    Refused,
    Said,
    Shares,
    State,
    Stop,
    StopNow,
    Use,
)
from batcher.engines.sharing import AT_ONCE, REQUESTS, TOKENS, TOKENS_LEFT, USD_LEFT
from batcher.errors import BatcherError
from batcher.limits.shared import SharedLimiter
from batcher.loop import STOPPING, run_loop
from batcher.pricing import prices_of
from batcher.records import Shard
from batcher.rundir import figures_of
from batcher.tied import TiedWorker
from batcher.tuning import spare_pandas, tuned_process

#: seconds between two States
_STATE_S = 0.1
#: how long answers are waited for when the parent is gone, which died rather than stopped
_ORPHANED_S = 5.0
#: a rate of which so much is used wants to be higher; one of which less is used wants so many times what is used
_USED_SHARE, _HEADROOM = 0.7, 2.0
#: seconds over which the use of a rate is measured
_MEASURED_S = 1.0


def main(descriptor: int) -> None:
    """Be a worker process at the other end of a socket that was inherited."""
    for signum in STOPPING:  # a terminal's Ctrl-C reaches all processes, and the parent says what it means
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    end = socket.socket(fileno=descriptor)
    spare_pandas()
    with tuned_process():
        run_loop(_main, end)


async def _main(end: socket.socket) -> None:
    channel = await Channel.open(end)
    begin: Begin | None = await channel.receive()
    if begin is not None:
        loop = asyncio.get_running_loop()
        _log_to(lambda said: loop.call_soon_threadsafe(channel.send, said), begin.log_level)
        channel.send(await _ended(begin, channel))
    await channel.close()


async def _ended(begin: Begin, channel: Channel) -> Ended:
    try:
        return await _work(begin, channel)
    except BatcherError as error:
        return Ended(Problem.of(error), "")
    except Exception as error:
        logging.getLogger(__name__).exception("internal error in a worker process", exc_info=error)
        return Ended(Problem.of(BatcherError()), "")


async def _work(begin: Begin, channel: Channel) -> Ended:
    job = begin.job
    branch = await anyio.to_thread.run_sync(
        lambda: Branch.join(job.output.path, begin.lock, begin.number, begin.form, job.limits.max_full_disk_s)
    )
    try:
        shards = Shards(await anyio.to_thread.run_sync(branch.take_over, begin.take_over), channel)
        figures = figures_of(begin.plan, await anyio.to_thread.run_sync(branch.totals))
        channel.send(Hello(figures, branch.orphaned))
        crew = await Crew.muster(
            TiedWorker,
            job,
            begin.plan,
            shards,
            branch,
            begin.base_url,
            figures=figures,
            prices=await anyio.to_thread.run_sync(prices_of, job) if begin.is_priced else None,
            spent=begin.spent,
            proven=begin.proven,
            start=begin.start,
        )
        member = Member(crew, shards, channel)
        member.grant(Grant(begin.grant, begin.shares))
        reason = await crew.run(member.obey, member.tell)
        member.look()
        channel.send(member.state())
        return Ended(None if reason is None else Problem.of(reason), crew.found())
    finally:
        await anyio.to_thread.run_sync(branch.close)


class Shards:
    """The shards that the parent hands out, one when one is wanted. Iterate on a thread; all else on the loop."""

    def __init__(self, first: list[Shard], channel: Channel) -> None:
        """`first` are there already."""
        self._first, self._channel = first, channel
        self._given: queue.SimpleQueue[Shard | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()

    def give(self, shard: Shard | None) -> None:
        """Take in what the parent gave; None for no more."""
        self._given.put(shard)

    def __iter__(self) -> Iterator[Shard]:
        yield from self._first
        while True:
            self._loop.call_soon_threadsafe(self._channel.send, Ask())
            shard = self._given.get()
            if shard is None:
                return
            yield shard


class Member:
    """This process as its parent sees it."""

    def __init__(self, crew: Crew[TiedWorker], shards: Shards, channel: Channel) -> None:
        self._crew, self._shards, self._channel = crew, shards, channel
        self._grant = Grant(0, {})
        self._rates = {REQUESTS: Meter(), TOKENS: Meter()}

    async def obey(self) -> None:
        """Do what the parent says, until it is gone."""
        worker = self._crew.worker
        try:
            while (message := await self._channel.receive()) is not None:
                self._heed(message)
        finally:
            self._shards.give(None)  # or whoever waits for one would wait for ever
        worker.stop(BatcherError("the process that led the run is gone"))
        asyncio.get_running_loop().call_later(min(_ORPHANED_S, self._crew.job.limits.grace_s), worker.stop_now)

    def _heed(self, message: Any) -> None:
        worker = self._crew.worker
        match message:
            case Give():
                self._shards.give(message.shard)
            case Grant():
                self.grant(message)
            case Refused():
                self._crew.limiter.refused_elsewhere(time.monotonic())
            case Proven():
                self._crew.guard.prove()
            case Stop():
                worker.stop(message.reason.as_error())
            case StopNow():
                worker.stop_now()

    async def tell(self) -> None:
        """Say again and again how it stands."""
        while True:
            self.look()
            self._channel.send(self.state())
            await anyio.sleep(_STATE_S)

    def look(self) -> None:
        """Bring the figures up to date."""
        self._crew.look()

    def grant(self, grant: Grant) -> None:
        """Keep to other shares from now on."""
        self._grant, shares = grant, grant.shares
        self._crew.limiter.share(int(shares[AT_ONCE]), shares.get(REQUESTS), shares.get(TOKENS))
        if TOKENS_LEFT in shares or USD_LEFT in shares:
            self._crew.budget.lease(shares.get(TOKENS_LEFT), shares.get(USD_LEFT))
        self._crew.worker.go_on()

    def state(self) -> State:
        """How it stands."""
        crew, worker = self._crew, self._crew.worker
        return State(
            figures=crew.figures,
            grant=self._grant.number,
            uses=self._uses(worker, crew.limiter, crew.budget),
            asked=_asked(crew.budget) if worker.rows_left else None,
            alone=crew.limiter.alone,
            cuts=crew.limiter.cuts,
            lost=worker.lost,
            stopping=None if worker.stopping is None else Problem.of(worker.stopping),
        )

    def _uses(self, worker: TiedWorker, limiter: SharedLimiter, budget: Budget) -> dict[str, Use]:
        shares, figures, more = self._grant.shares, self._crew.figures, worker.rows_left
        at_once = _at_once(shares[AT_ONCE], figures.in_flight, limiter.limit, more=more)
        uses = {AT_ONCE: Use(max(shares[AT_ONCE], figures.in_flight), figures.in_flight, at_once)}
        used = {REQUESTS: limiter.requests_sent, TOKENS: figures.prompt_tokens + figures.completion_tokens}
        for name in used.keys() & shares.keys():
            uses[name] = Use(shares[name], 0.0, self._rates[name].wants(used[name], shares[name]) if more else 0.0)
        taken = {TOKENS_LEFT: budget.tokens_taken, USD_LEFT: budget.usd_taken}
        for name in taken.keys() & shares.keys():
            uses[name] = Use(max(shares[name], taken[name]), taken[name], inf if more else taken[name])
        return uses


class Meter:
    """How much of a rate is used, measured over a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since_s, self._count, self._wants = clock(), 0, inf

    def wants(self, count: int, share: float) -> float:
        """Return what is wanted of a rate per minute, given a count that grows with its use."""
        passed_s = self._clock() - self._since_s
        if passed_s >= _MEASURED_S:
            used = (count - self._count) / passed_s * 60
            self._wants = inf if used >= _USED_SHARE * share else max(_HEADROOM * used, share / 2)
            self._since_s, self._count = self._clock(), count
        return self._wants


def _at_once(share: float, in_flight: int, limit: int, *, more: bool) -> float:
    """How many requests at once are wanted: more than the share where that is what holds the limit down."""
    if not more:
        return in_flight
    return inf if limit >= share else max(limit, in_flight) * 1.25 + 1


def _asked(budget: Budget) -> Shares | None:
    return None if budget.asked is None else {TOKENS_LEFT: budget.asked.tokens, USD_LEFT: budget.asked.usd}


class _ToParent(logging.Handler):
    """Sends what is logged to the parent, whose log it is. Of an exception only type and places: it may quote a row."""

    def __init__(self, send: Callable[[Said], Any], level: int) -> None:
        super().__init__(level)
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        error = record.exc_info[1] if record.exc_info else None
        lines = [record.getMessage()]
        if error is not None:
            places = "".join(traceback.format_tb(error.__traceback__)).splitlines()
            lines = [*places, f"internal error ({type(error).__name__}); please report the lines above"]
        with contextlib.suppress(RuntimeError):  # the loop has ended, and so has the channel
            for line in lines:
                self._send(Said(record.name, record.levelno, line))


def _log_to(send: Callable[[Said], Any], level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_ToParent(send, level)]
    root.setLevel(level)
