"""The parent of several worker processes: hands out shards and shares of the limits, adds up, and keeps order.

It sends no request and opens no journal while they work. The first process begins alone; the others follow when the
endpoint has answered. A process that dies is replaced by one that takes over its journal and its shards. What one
process finds out about the run (a wrong key, an outage, a full disk) stops all of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from batcher.budget import Budget, answer_limit
from batcher.engines.crew import START
from batcher.engines.hands import Hands
from batcher.engines.messages import (
    Ask,
    Begin,
    Ended,
    Give,
    Grant,
    Hello,
    Noted,
    Problem,
    Proven,
    Refused,
    Said,
    Shares,
    State,
    Stop,
    StopNow,
)
from batcher.engines.sharing import TOKENS_LEFT, USD_LEFT, Sharing
from batcher.engines.spawning import Process
from batcher.errors import BatcherError, BudgetError, Interrupted
from batcher.job import Job
from batcher.limits.quota import UnsureBudget, as_leak
from batcher.part import PartFormat
from batcher.plan import Plan
from batcher.pricing import Prices, dollars
from batcher.progress import Figures, Progress
from batcher.records import Totals

_log = logging.getLogger(__name__)

#: seconds between two divisions of the limits
_DIVIDE_S = 0.1
#: how often one process is replaced
_REPLACED = 3


@dataclass(slots=True)
class _Member:
    """What the parent knows of one number, whichever process has it."""

    process: Process | None = None
    #: it has been told what there is to do
    begun: bool = False
    #: how its journal stood at the start of the run, and stands now; None until it has said so
    before: Figures | None = None
    state: State | None = None
    #: what bounds the limit that it found
    found: str = ""
    replaced: int = 0


class Parent:
    """Leads worker processes as one `Runner`. Use once."""

    def __init__(
        self,
        job: Job,
        plan: Plan,
        *,
        count: int,
        form: PartFormat,
        base_url: str,
        figures: Figures,
        prices: Prices | None,
        spent: Totals,
        progress: Progress,
    ) -> None:
        """`figures` and `spent` are how the run folder stands."""
        self._job, self._plan, self._form = job, plan, form
        self._base_url, self._progress, self._spent = base_url, progress, spent
        self._hands, self._lock = Hands([], [[]] * count), -1
        self.figures = self._start = figures
        self._is_priced = prices is not None
        self._members = [_Member() for _ in range(count)]
        self._budget = Budget(job.limits.max_total_tokens, job.limits.max_cost_usd, prices, spent, answer_limit(job))
        self._sharing = Sharing(job, self._budget.left(), count)
        self._unsure = UnsureBudget(job.limits.max_unsure_share, job.limits.concurrency)
        self._proven = figures.completed > 0
        self._follow = anyio.Event()
        self._reason: BatcherError | None = None
        self._now = False
        self._began_s = time.monotonic()

    def take(self, hands: Hands, lock: int) -> None:
        """Take over the shards, and the file that holds the run folder. Call once, before `run`."""
        self._hands, self._lock = hands, lock

    # -- a Runner

    async def run(self, *helpers: Callable[[], Coroutine[Any, Any, object]]) -> BatcherError | None:
        """See `Runner`."""
        try:
            async with anyio.create_task_group() as tasks:
                for helper in (*helpers, self._divide):
                    tasks.start_soon(helper)
                async with anyio.create_task_group() as tended:
                    for number in range(len(self._members)):
                        tended.start_soon(self._tend, number)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                for member in self._members:
                    if member.process is not None:
                        await member.process.gone()
        return self._reason

    def stop(self, reason: BatcherError) -> None:
        """See `Runner`."""
        if self._reason is None:
            self._reason = reason
            self._tell_all(Stop(Problem.of(reason)))
            self._follow.set()
        elif isinstance(self._reason, Interrupted) and not isinstance(reason, Interrupted):
            self._reason = reason  # who asked it to stop should hear why it would not have gone on

    def stop_now(self) -> None:
        """See `Runner`."""
        self._now = True
        self._tell_all(StopNow())

    def look(self) -> None:
        """See `Runner`."""
        figures = _sum(self._start, [(one.before, one.state) for one in self._members if one.before and one.state])
        figures.limit = min(figures.limit, self._job.limits.concurrency)  # of who has left the others have it now
        self.figures = figures
        completed = figures.completed - self._start.completed
        lost = sum(member.state.lost for member in self._members if member.state)
        if self._unsure.spent(lost, completed):
            self.stop(as_leak(lost, completed))
        longest_s = self._job.limits.max_runtime_s
        if longest_s is not None and time.monotonic() - self._began_s >= longest_s:
            self.stop(BudgetError(f"limits.max_runtime_s: {longest_s:g} s are over"))

    def found(self) -> str:
        """See `Runner`."""
        words = dict.fromkeys(member.found.partition(", ")[2] for member in self._members if member.found)
        return f"{self.figures.limit} requests at once in {len(self._members)} processes, {'; '.join(words)}"

    # -- limits

    async def _divide(self) -> None:
        while True:
            for number in self._sharing.divide():
                self._send(number, Grant(self._sharing.number, self._sharing.shares(number)))
            used = self._sharing.used_up()
            if used is not None:
                self.stop(BudgetError(self._budget_words(used)))
            await anyio.sleep(_DIVIDE_S)

    def _budget_words(self, used: Shares) -> str:
        limits = self._job.limits
        if limits.max_total_tokens is not None and used[TOKENS_LEFT] >= (self._budget.left()[0] or 0.0):
            tokens = limits.max_total_tokens - (self._budget.left()[0] or 0.0) + used[TOKENS_LEFT]
            return f"limits.max_total_tokens: {tokens:,.0f} of {limits.max_total_tokens:,} tokens used"
        usd = (limits.max_cost_usd or 0.0) - (self._budget.left()[1] or 0.0) + used[USD_LEFT]
        return f"limits.max_cost_usd: {dollars(usd)} of {dollars(limits.max_cost_usd or 0.0)} used"

    # -- one process

    async def _tend(self, number: int) -> None:
        """Keep a process at work until its rows are done or the run is to stop; replace it if it dies."""
        member = self._members[number]
        while True:
            try:
                member.process = await Process.start(self._lock)
            except OSError as error:
                self.stop(BatcherError(f"a worker process cannot be started: {error.strerror or error}"))
                break
            ended = await self._lead(number, member.process)
            how = await member.process.gone()
            member.process, member.begun = None, False
            self._sharing.died(number)
            if ended is not None or self._reason is not None:
                break
            member.replaced += 1
            self._progress.note(f"worker process {number} {how}; its rows go on in another one")
            if member.replaced > _REPLACED:
                self.stop(_as_error(number, how))
                break
        used: Shares = {}
        if member.before is not None and member.state is not None:
            figures = member.state.figures
            figures.in_flight = figures.waiting = 0
            used = _used(member.before, figures)
        self._sharing.left(number, used)

    async def _lead(self, number: int, process: Process) -> Ended | None:
        """Let a process begin when it is time and serve it; None if it died."""
        if number and not self._proven:
            await self._follow.wait()
        if self._reason is not None or not self._hands.has_more(number):
            return Ended(None, "")
        self._sharing.begun(number, again=self._members[number].before is not None)
        process.channel.send(self._begin(number))
        self._members[number].begun = True
        while (message := await process.channel.receive()) is not None:
            if isinstance(message, Ended):
                self._ended(number, message)
                return message
            self._heed(number, process, message)
        return None

    def _begin(self, number: int) -> Begin:
        limits, count = self._job.limits, len(self._members)
        own = {"max_inflight_mb": max(1, limits.max_inflight_mb // count), "max_runtime_s": None}
        return Begin(
            number=number,
            job=self._job.model_copy(update={"limits": limits.model_copy(update=own)}),
            plan=self._plan,
            form=self._form,
            base_url=self._base_url,
            lock=self._lock,
            spent=self._spent,
            proven=self._proven,
            is_priced=self._is_priced,
            start=max(1, START // count),
            shares=self._sharing.shares(number),
            grant=self._sharing.number,
            take_over=self._hands.given(number),
            log_level=logging.getLogger().getEffectiveLevel(),
        )

    def _heed(self, number: int, process: Process, message: Any) -> None:
        match message:
            case State():
                self._stands(number, message)
            case Ask():
                process.channel.send(Give(None if self._reason is not None else self._hands.give(number)))
            case Hello():
                self._greeted(number, message)
            case Said():
                logging.getLogger(message.logger).log(message.level, "%s", message.text)
            case Noted():
                self._progress.note(message.text)

    def _greeted(self, number: int, hello: Hello) -> None:
        member = self._members[number]
        if member.before is None:
            member.before = hello.figures
        else:
            self._sharing.replaced(number, _used(member.before, hello.figures))
            self._send(number, Grant(self._sharing.number, self._sharing.shares(number)))
        if hello.orphaned:
            self._progress.note(
                f"{hello.orphaned} requests were on their way when it ended; their rows are asked again"
            )
        if self._proven:
            self._send(number, Proven())
        if self._reason is not None:
            self._send(number, Stop(Problem.of(self._reason)))
        if self._now:
            self._send(number, StopNow())

    def _stands(self, number: int, state: State) -> None:
        member = self._members[number]
        if member.state is not None and state.cuts > member.state.cuts:
            self._tell_all(Refused(), but=number)
        member.state = state
        self._sharing.told(number, state)
        if state.stopping is not None and self._reason is None:
            self.stop(state.stopping.as_error())
        before = member.before or self._start
        if not self._proven and state.figures.completed > before.completed:
            self._proven = True
            self._tell_all(Proven())
        if self._proven or not state.alone:
            self._follow.set()

    def _ended(self, number: int, ended: Ended) -> None:
        self._members[number].found = ended.found
        self._follow.set()
        if ended.reason is not None:
            self.stop(ended.reason.as_error())

    def _send(self, number: int, message: Any) -> None:
        process = self._members[number].process
        if process is not None:
            process.channel.send(message)

    def _tell_all(self, message: Any, *, but: int | None = None) -> None:
        for number, member in enumerate(self._members):
            if member.begun and number != but:
                self._send(number, message)


def _as_error(number: int, how: str) -> BatcherError:
    return BatcherError(
        f"worker process {number} {how}, {_REPLACED + 1} times; perhaps the memory is too small (engine.processes,"
        " limits.max_inflight_mb). What was received is saved, the same command carries on"
    )


def _used(before: Figures, now: Figures) -> Shares:
    """What was used of the budgets between two moments of one journal."""
    tokens = now.prompt_tokens + now.completion_tokens - before.prompt_tokens - before.completion_tokens
    return {TOKENS_LEFT: tokens, USD_LEFT: (now.cost_usd or 0.0) - (before.cost_usd or 0.0)}


#: figures that grow, and are counted from where each journal stood
_GROWING = (
    *("completed", "failed", "invalid", "retries", "ambiguous"),
    *("prompt_tokens", "completion_tokens", "unpriced"),
)
#: figures of the moment
_CURRENT = ("in_flight", "waiting", "limit")


def _sum(start: Figures, members: Sequence[tuple[Figures, State]]) -> Figures:
    """How a run stands that stood at `start`, when each member's journal has got from its figures to its state."""
    figures = Figures(total=start.total, cost_usd=start.cost_usd)
    for name in _GROWING:
        grown = sum(getattr(state.figures, name) - getattr(before, name) for before, state in members)
        setattr(figures, name, getattr(start, name) + grown)
    for name in _CURRENT:
        setattr(figures, name, sum(getattr(state.figures, name) for _, state in members))
    costs = [(before.cost_usd, state.figures.cost_usd) for before, state in members]
    if any(now is not None for _, now in costs):
        figures.cost_usd = (start.cost_usd or 0.0) + sum((now or 0.0) - (then or 0.0) for then, now in costs)
    at_work = [state.figures for _, state in members if state.figures.in_flight or state.figures.why_waiting]
    reasons = [figures.why_waiting for figures in at_work]
    figures.why_waiting = reasons[0] if reasons and all(reasons) else None
    return figures
