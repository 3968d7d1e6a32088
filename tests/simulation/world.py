"""One schedule: a job of a few rows lived through by one process after the other, until it is done.

Each life of the process has its own habits of endpoint and disk, and ends by itself, by a signal or by a crash. The
last one is calm. What must hold is checked as it happens, and after each life.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import anyio

from batcher.budget import Budget
from batcher.errors import (
    AccountError,
    BatcherError,
    BudgetError,
    DiskFullError,
    EndpointError,
    EndpointRefusedError,
    InputError,
    Interrupted,
    StorageError,
)
from batcher.feed import Feeding
from batcher.guard import FIRST, Guard
from batcher.limits import Limiter
from batcher.pending import Pending
from batcher.progress import Figures
from batcher.records import ApiError, Outcome, Prompt, Shard, Totals
from batcher.settling import END_PATIENCE_S, FEW_SUSPECTS, Rules
from batcher.worker import Worker
from tests.fakes import make_job
from tests.simulation.disk import Attempts, DiskHabits, Durable, MemoryJournal
from tests.simulation.endpoint import AMBIGUOUS, REFUSALS, TROUBLES, Endpoint, Habits
from tests.simulation.virtual_loop import StuckError, VirtualLoop

#: lives with dice in them; the calm ones after that, at most
_WILD_LIVES = 6
#: seconds that one life may take
_LONGEST_LIFE_S = 40_000.0
_MAX_OUTAGE_S = (60.0, 600.0, 3600.0)


class WrongError(AssertionError):
    """Something happened that must never happen."""


class MemoryShard:
    """What the worker needs of `OpenShard`; its `finish` goes through the same states as a part's publication."""

    partial = False
    place, job_version = 1.0, 1

    def __init__(self, world: World, shard: Shard) -> None:
        self._world, self.shard = world, shard
        self.done = {row for row in range(shard.first_row, shard.end_row) if row in world.disk.outcomes}
        self.missing = shard.rows - len(self.done)
        self.unread = shard.rows
        self.all_read = False

    @property
    def ready(self) -> bool:
        """See `OpenShard`."""
        return self.all_read and self.missing == 0

    def keeps(self, row_index: int) -> bool:
        """See `OpenShard`."""
        return False

    async def finish(self) -> None:
        """See `OpenShard`; a crash may come between any two steps."""
        world, shard = self._world, self.shard
        await world.nap()
        world.maybe_break_part()
        outcomes = [world.disk.outcomes.get(row) for row in range(shard.first_row, shard.end_row)]
        if shard.number in world.disk.parts or None in outcomes:
            world.wrong(f"part {shard.number} is written twice or with rows missing")
        await world.nap()
        world.disk.parts[shard.number] = [one for one in outcomes if one is not None]
        await world.nap()
        world.note_part(shard)

    def abandon(self) -> None:
        """See `OpenShard`."""


class MemoryFeed:
    """What the worker needs of `Feed`: chunks of rows of the shards without a part."""

    answers = None

    def __init__(self, world: World, shards: Iterable[Shard], breaks: float) -> None:
        self._world, self._shards, self._breaks = world, list(shards), breaks
        self._shard: MemoryShard | None = None

    @property
    def opens_shard(self) -> bool:
        """See `Feed`."""
        return self._shard is None or self._shard.unread == 0

    def give_up(self) -> None:
        """See `Feed`; a chunk is read in no time here."""

    def next(self) -> Feeding | None:
        """See `Feed`."""
        world = self._world
        if world.random.random() < self._breaks:
            world.input_broke = True
            raise InputError("the input is gone")
        if self.opens_shard:
            if not self._shards:
                return None
            self._shard = MemoryShard(world, self._shards.pop(0))
        shard = self._shard
        assert shard is not None
        first = shard.shard.end_row - shard.unread
        count = world.random.randint(1, shard.unread)
        shard.unread -= count
        feeding = Feeding(shard, [], [], is_last=shard.unread == 0)  # type: ignore[arg-type]
        for row in range(first, first + count):
            if row not in shard.done:
                self._hand_out(row, shard, feeding)
        return feeding

    def _hand_out(self, row: int, shard: Any, feeding: Feeding) -> None:
        if row in self._world.unreadable:
            error = ApiError("no", type="batcher", code="invalid_row")
            feeding.failed.append(Outcome(row, "failed", b"", 0, 0, None, None, error))
            return
        known = self._world.disk.attempts.get(row, Attempts())
        prompt = Prompt(b"%d " % row + b"x" * self._world.padding)
        feeding.pending.append(Pending(row, shard, prompt, known.attempts, known.ambiguous, known.spent))


@dataclass
class Life:
    """How one life of the process goes."""

    endpoint: Habits
    disk: DiskHabits
    #: seconds after its start; None: never
    crash_s: float | None = None
    signal_s: float | None = None
    grace_s: float = 60.0
    input_breaks: float = 0.0
    max_total_tokens: int | None = None
    max_runtime_s: float | None = None
    calm: bool = False


class World:
    """Everything outside the core, drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.disk = Durable()
        self.rows = random.randint(5, 40)
        self.padding = random.choice((0, 50, 400_000))
        per_part = random.randint(1, 12)
        self.concurrency = random.randint(1, 8)
        self.max_attempts = random.randint(1, 6)
        starts = range(0, self.rows, per_part)
        self.shards = [Shard(n, first, min(per_part, self.rows - first), ()) for n, first in enumerate(starts)]
        some = random.choice((0.0, 0.0, 0.05, 0.3))
        names = ("400", "422", "too_long", "500", "timeout", "response_too_large", "403", "404")
        self.poison = {row: random.choice(names) for row in range(self.rows) if random.random() < some}
        self.unreadable = {row for row in range(self.rows) if random.random() < random.choice((0.0, 0.05))}
        self.endpoint = Endpoint(random, self.poison, self.wrong)
        self.endpoint.may_send = self._why_not
        self.endpoint.ceiling = self.concurrency
        #: the job's mistake: every request is refused until somebody corrects it
        self.mistake = random.choice((None, None, None, "400", "404", "401"))
        self.now_s = 1000.0
        self.unsure = 0
        self.story: list[str] = []
        self.faults: list[str] = []

    def wrong(self, what: str) -> None:
        """Note something that must never happen, and end."""
        self.faults.append(what)
        self.loop.stop()

    # -- one process after the other

    def play(self) -> list[str]:
        """Live until the job is done; return what happened, one line for each life."""
        for number in range(2 * _WILD_LIVES):
            life = self._draw_life() if number < _WILD_LIVES else self._calm_life()
            if self._live(life):
                return self.story
        if not self.hopeless:
            raise WrongError(f"the job is never done: {self.story[-1]}")
        return self.story  # rows that are refused for ever, and no others to show that it is them

    def _draw_life(self) -> Life:
        random = self.random
        trouble = random.choice((0.0, 0.0, 0.05, 0.2, 0.6))
        few = tuple(random.sample(TROUBLES, 3))
        habits = Habits(
            latency_s=random.choice((0.01, 0.2, 3.0)),
            slow=random.choice((0.0, 0.02)),
            trouble=trouble,
            troubles=random.choice((TROUBLES, few)),
            refusal=random.choice((0.0, 0.0, 0.0, 0.02)),
            spells=[self._draw_spell() for _ in range(random.choice((0, 0, 1, 2)))],
            cap=random.choice((1_000, 1_000, 1, 3)),
            retry_after_s=random.choice(((None,), (None, 0.5, 5.0), (None, 200.0))),
        )
        if self.mistake is not None:
            habits.spells = [(0.0, float("inf"), self.mistake)]
            self.mistake = random.choice((self.mistake, None))
        return Life(
            habits,
            self._draw_disk(),
            crash_s=random.choice((None, None, random.expovariate(1.0), random.expovariate(0.05))),
            signal_s=random.choice((None, None, random.expovariate(0.1))),
            grace_s=random.choice((0.0, 1.0, 60.0)),
            input_breaks=random.choice((0.0,) * 9 + (0.05,)),
            max_total_tokens=random.choice((None, None, None, random.randint(1, 400))),
            max_runtime_s=random.choice((None, None, None, random.expovariate(0.1) + 0.01)),
        )

    def _draw_spell(self) -> tuple[float, float, str]:
        start_s = self.now_s + self.random.expovariate(0.3)
        name = self.random.choice(TROUBLES + REFUSALS)
        return start_s, start_s + self.random.choice((2.0, 30.0, 300.0, float("inf"))), name

    def _draw_disk(self) -> DiskHabits:
        random = self.random
        habits = DiskHabits(slow_s=random.choice((0.0, 0.02, 1.0)))
        if random.random() < 0.3:
            habits.full, habits.full_s, habits.reserve = (
                random.choice((0.1, 0.5)),
                random.choice((1.0, 30.0)),
                random.random() < 0.5,
            )
            habits.part_full = 0.5
        if random.random() < 0.15:
            habits.breaks, habits.rescue_breaks, habits.part_breaks = 0.03, random.choice((0.0, 0.3)), 0.05
        return habits

    def _calm_life(self) -> Life:
        return Life(Habits(latency_s=self.random.choice((0.01, 0.2))), DiskHabits(), calm=True)

    def _live(self, life: Life) -> bool:
        """Let a process live; True once every row is in a part."""
        self._begin(life)
        reason, crashed = self._run(life)
        self.now_s = self.loop.time() + 1.0
        ending = "crash" if crashed else repr(reason)
        self.story.append(f"{self.now_s:.3f} s: {self.endpoint.sent} sent, {len(self.disk.decided)} rows, {ending}")
        self._check_life(life, reason, crashed)
        return len(self.disk.noted) == len(self.shards)

    def _begin(self, life: Life) -> None:
        disk, self.life = self.disk, life
        self.unsure += disk.recover()
        for shard in self.shards:
            if shard.number in disk.parts:
                self.note_part(shard)
        self.endpoint.begin()
        self.endpoint.habits = life.endpoint
        self.input_broke = self.part_trouble = self.dead = self.given_up = False
        self.believed = 0
        self.unfinished = [shard for shard in self.shards if shard.number not in disk.noted]
        self.proven = any(one.status == "completed" for one in disk.decided.values())
        self.hopeless = {row for row in self.poison if row not in disk.decided}

    def _run(self, life: Life) -> tuple[BatcherError | None, bool]:
        self.loop = loop = VirtualLoop(self.now_s, self.now_s + _LONGEST_LIFE_S)
        loop.set_exception_handler(lambda loop, context: self._escaped(context))
        journal = self.journal = MemoryJournal(self.disk, life.disk, self.random, self._check_outcome)
        try:
            task = loop.create_task(self._work(life))
            task.add_done_callback(self._ended)
            if life.crash_s is not None:
                loop.call_later(life.crash_s, loop.stop)
            loop.run_forever()
            task.remove_done_callback(self._ended)
            crashed = not task.done()
            if crashed:
                self.dead = journal.dead = True
                self._bury(loop)
            if self.faults:
                raise WrongError("; ".join(self.faults))
            if not crashed:
                journal.close()
            return (None if crashed else task.result()), crashed
        finally:
            loop.close()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.loop.stop()

    def _bury(self, loop: VirtualLoop) -> None:
        """End the tasks of a process that died, so that nothing of it stays behind."""
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.happened += 1000
        loop.run_until_complete(asyncio.wait(tasks))
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None and not self.faults:
                raise error

    def _escaped(self, context: dict[str, Any]) -> None:
        self.wrong(f"{context.get('message')}: {context.get('exception')!r}")

    async def _work(self, life: Life) -> BatcherError | None:
        limits = {
            "concurrency": self.concurrency,
            "max_attempts": self.max_attempts,
            "max_inflight_mb": 1,
            "max_outage_s": self.random.choice(_MAX_OUTAGE_S),
            "max_full_disk_s": 20.0,
            **({} if life.max_runtime_s is None else {"max_runtime_s": life.max_runtime_s}),
        }
        job: Any = make_job(Path("/"), limits=limits, output={"path": "out", "rows_per_part": self.shards[0].rows})
        random, loop = Random(self.random.random()), self.loop
        totals = self._totals()
        self.figures = Figures(total=self.rows, completed=totals.completed, failed=totals.failed)
        rules = Rules(
            limiter=Limiter(self.concurrency, random=random, max_outage_s=job.limits.max_outage_s, proven=self.proven),
            guard=Guard(proven=self.proven),
            random=random,
            budget=Budget(life.max_total_tokens, None, None, totals, 5),
        )
        worker = Worker(
            job,
            SimpleNamespace(journal=self.journal),  # type: ignore[arg-type]
            MemoryFeed(self, self.unfinished, life.input_breaks),  # type: ignore[arg-type]
            self.endpoint,  # type: ignore[arg-type]
            rules=rules,
            figures=self.figures,
            clock=loop.time,
            wall_clock=loop.time,
        )
        if life.signal_s is not None:
            loop.call_later(life.signal_s, self._signal, worker, life.grace_s)
        self._look(worker)
        reason = await worker.run()
        unsaved = self.endpoint.delivered.keys() - self.disk.decided.keys()
        if unsaved and not (self.dead or self.given_up or self.journal.troubled):
            self.wrong(f"the run ended before the answers to {sorted(unsaved)} were saved")
        return reason

    def _look(self, worker: Worker, pause_s: float = 0.25) -> None:
        self.loop.happened += 1
        worker.look()
        self._check_figures()
        self.loop.call_later(pause_s, self._look, worker, min(10.0, 1.05 * pause_s))

    def _signal(self, worker: Worker, grace_s: float) -> None:
        if not self.dead:
            worker.stop(Interrupted(2))
            self.loop.call_later(grace_s, self._give_up, worker)

    def _give_up(self, worker: Worker) -> None:
        self.given_up = True
        worker.stop_now()

    def _totals(self) -> Totals:
        decided = self.disk.decided.values()
        completed = sum(one.status == "completed" for one in decided)
        return Totals(completed, len(decided) - completed, self.disk.ambiguous, 3 * completed, 5 * completed)

    # -- the threads of the worker

    async def run_sync(self, function: Callable[[], Any]) -> Any:
        """Stand in for `anyio.to_thread.run_sync`: it takes a while, and cannot be cancelled."""
        with anyio.CancelScope(shield=True):
            await self.nap()
            result = function()
            return await result if inspect.isawaitable(result) else result

    async def nap(self) -> None:
        """Let some time pass, perhaps none."""
        self.loop.happened += 1
        longest_s = self.random.choice((0.0, 0.0, 0.1, 0.1, 0.1, 3.0))
        await asyncio.sleep(self.random.uniform(0.0, longest_s))

    def maybe_break_part(self) -> None:
        """Raise what happens when a part is written to this disk."""
        if self.random.random() < self.life.disk.part_full:
            self.part_trouble = True
            raise DiskFullError
        if self.random.random() < self.life.disk.part_breaks:
            self.part_trouble = True
            raise StorageError

    def note_part(self, shard: Shard) -> None:
        """Have the journal know a part, and forget its rows."""
        self.disk.noted.add(shard.number)
        for row in range(shard.first_row, shard.end_row):
            self.disk.outcomes.pop(row, None)

    # -- what must hold

    def _why_not(self, row: int) -> str | None:
        """Say why a row may not be sent."""
        known = self.disk.attempts.get(row)
        if row in self.disk.decided:
            return "its outcome is committed"
        if known is None or not known.leased:
            return "its lease is not committed"
        return "it cannot be read" if row in self.unreadable else None

    def _check_figures(self) -> None:
        if self.figures.done > len(self.disk.decided):
            self.wrong(f"{self.figures.done} rows are counted, {len(self.disk.decided)} are committed")

    def _check_outcome(self, outcome: Outcome) -> None:
        if self.dead:
            return
        if outcome.status == "completed":
            if outcome.row_index not in self.endpoint.delivered:
                self.wrong(f"row {outcome.row_index} is completed without an answer")
        elif reason := self._why_not_failed(outcome):
            self.wrong(f"row {outcome.row_index} fails with {outcome.error}: {reason}")

    def _why_not_failed(self, outcome: Outcome) -> str | None:
        """Say why a failure is not the row's own."""
        row, error = outcome.row_index, outcome.error
        assert error is not None
        received = self.endpoint.received[row]
        last = received[-1][1] if received else ""
        if row in self.unreadable or last in ("400", "422", "too_long", "response_too_large"):
            innocent = row not in self.unreadable and self.poison.get(row) != last
            return "the job was wrong, not the row" if innocent else None
        if last in ("401", "402", "tls_failed", "no_file_descriptors", "429", ""):
            return f"no row fails for {last or 'nothing'}"
        delivered = [at_s for other, at_s in self.endpoint.delivered.items() if other != row]
        if last in ("403", "404"):
            self.believed += not delivered or max(delivered) < received[-1][0]
            return "too many are believed" if self.believed > FEW_SUSPECTS else None
        counted = sum(name not in ("401", "402", "403", "404", "429", "tls_failed") for _, name in received)
        if counted < min(self.max_attempts, 3):
            return f"it had {counted} of {self.max_attempts} attempts"
        if counted >= 2 * min(self.max_attempts, 3):
            return None  # excused once on suspicion of an outage; a second time takes proof, see `batcher.outage`
        return self._why_not_exhausted(row, received[0][0], delivered)

    def _why_not_exhausted(self, row: int, first_s: float, delivered: list[float]) -> str | None:
        last_s = self.endpoint.received[row][-1][0]
        if any(first_s <= at_s <= last_s for at_s in delivered):
            return None  # others succeeded meanwhile
        latest_s = max(delivered, default=-1e9)
        if self.loop.time() - latest_s < END_PATIENCE_S:
            return "nothing else succeeded meanwhile"
        others = set(range(self.rows)) - self.disk.decided.keys() - {row}
        if not (self.proven or delivered) or len(others) >= FIRST:
            return "nothing shows that it is not the endpoint"
        return None

    def _check_life(self, life: Life, reason: BatcherError | None, crashed: bool) -> None:
        disk, endpoint = self.disk, self.endpoint
        self._check_parts()
        for row in range(self.rows):
            known = disk.decided.get(row) or disk.attempts.get(row, Attempts())
            if isinstance(known, Attempts) and known.leased:
                continue  # counted when the next life begins
            vain = endpoint.paid[row] - (row in disk.decided and disk.decided[row].status == "completed")
            if vain > known.ambiguous:
                raise WrongError(f"row {row} was paid {vain} times in vain, counted are {known.ambiguous}")
        if disk.ambiguous > endpoint.ambiguous + self.unsure:
            raise WrongError(f"{disk.ambiguous} attempts are counted as unsure, there were fewer")
        if not crashed:
            self._check_end(life, reason)

    def _check_parts(self) -> None:
        for shard in self.shards:
            part = self.disk.parts.get(shard.number)
            if part is not None and [one.row_index for one in part] != list(range(shard.first_row, shard.end_row)):
                raise WrongError(f"part {shard.number} does not hold its rows")

    def _check_end(self, life: Life, reason: BatcherError | None) -> None:
        disk = self.disk
        if reason is None and not self.given_up and len(disk.noted) < len(self.shards):
            raise WrongError("rows are pending without a reason")
        if reason is not None and not self._may_end_with(life, reason):
            raise WrongError(f"there was no reason for {reason!r}")
        if self.journal.lost:
            return
        if lost := self.endpoint.delivered.keys() - disk.decided.keys():
            raise WrongError(f"the answers to {sorted(lost)} were received and are not saved")
        leased = [row for row, one in disk.attempts.items() if one.leased]
        if leased and not (self.given_up or self.journal.troubled):
            raise WrongError(f"the rows {leased} were not released")

    def _may_end_with(self, life: Life, reason: BatcherError) -> bool:
        seen = self.endpoint.seen
        if life.calm and not self.hopeless:
            return False
        few = len(self.hopeless) < FIRST and not {"403", "404"} & {self.poison[row] for row in self.hopeless}
        if life.calm and self.proven and few and not AMBIGUOUS & seen:
            return False
        justified = {
            Interrupted: life.signal_s is not None,
            StorageError: self.journal.troubled or self.part_trouble,
            DiskFullError: self.part_trouble,
            InputError: self.input_broke,
            BudgetError: life.max_runtime_s is not None or life.max_total_tokens is not None,
            AccountError: bool({"401", "402", "403"} & seen),
            EndpointRefusedError: bool({"400", "422", "404", "408", "tls_failed"} & seen),
            EndpointError: bool(seen - {"good"}),
            BatcherError: "no_file_descriptors" in seen,
        }
        return justified.get(type(reason), False)


def play(seed: int, monkeypatch: Any) -> list[str]:
    """Play the schedule of a seed; return its story. Raises what went wrong, with the seed and the story so far."""
    world = World(seed)
    monkeypatch.setattr(anyio.to_thread, "run_sync", world.run_sync)
    try:
        return world.play()
    except (Exception, StuckError) as error:
        story = "\n  ".join([f"SEED={seed} pytest tests/simulation -k replay", *world.story])
        raise AssertionError(f"seed {seed}: {error!r}\n  {story}") from error
