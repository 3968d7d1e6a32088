"""Stand-ins for tests of everything behind the HTTP client: jobs, answers, outcomes, a client that plays a script."""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import anyio
import orjson

from batcher.catalogue import load_catalogue
from batcher.errors import BatcherError, StorageError
from batcher.feed import Feed
from batcher.guard import Guard
from batcher.job import Job
from batcher.journal import Batch
from batcher.limits import Limiter
from batcher.plan import Plan, make_plan
from batcher.progress import Figures
from batcher.prompt import Builder
from batcher.records import ApiError, Fault, FaultKind, Outcome, Reply
from batcher.rundir import RunDir
from batcher.settling import Rules
from batcher.source import find_files
from batcher.worker import Worker

#: what the client is to answer, by the row's number and how often that row was asked before
Script = Callable[[int, int], Reply | Fault]


def make_job(folder: Path, **changes: Any) -> Job:
    """A job over `rows.jsonl` into `out`; `changes` replace top-level keys."""
    values: dict[str, Any] = {
        "version": 1,
        "model": "some-model",
        "endpoint": {"base_url": "http://localhost:9"},
        "input": {"path": "rows.jsonl"},
        "prompt": "{{ text }}",
        "output": {"path": "out", "rows_per_part": 5},
        **changes,
    }
    return Job.model_validate(values, context={"folder": folder, "path": folder / "job.yaml"})


def builder_of(job: Job) -> Builder:
    """The builder of a job's requests."""
    return Builder(job, load_catalogue(job.catalogue).schema_of(job.model))


def write_numbers(folder: Path, count: int, padding: str = "") -> None:
    """Write `rows.jsonl`, each row's text beginning with its number."""
    lines = (orjson.dumps({"text": f"{number} {padding}"}) + b"\n" for number in range(count))
    (folder / "rows.jsonl").write_bytes(b"".join(lines))


def body_of(content: str = "fine", **changes: Any) -> bytes:
    """The body of a good answer."""
    answer = {
        "id": "id-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
    }
    return orjson.dumps({**answer, **changes})


def good(content: str = "fine") -> Reply:
    """A good answer."""
    return Reply(200, {}, body_of(content))


def refusal(status: int, code: str | None = None, headers: Mapping[str, str] | None = None) -> Reply:
    """An error object with a status."""
    return Reply(status, dict(headers or {}), orjson.dumps({"error": {"message": "no", "code": code}}))


def disconnected() -> Fault:
    """A connection that broke after the request was sent."""
    return Fault(FaultKind.DISCONNECTED, "the connection broke")


class Heard:
    """A listener of a journal that calls what it is given, on the journal's thread, and notes the rest."""

    def __init__(self, committed: Callable[[Batch], object] = lambda batch: None) -> None:
        self._committed = committed
        #: "full", "room", "broke, saving", "broke", "committed", in the order in which they came
        self.events: list[str] = []
        self.errors: list[StorageError] = []
        #: rows of the outcomes and leases that were reported
        self.saved: list[int] = []
        self.leased: list[int] = []
        self.full, self.broken = threading.Event(), threading.Event()

    def committed(self, batch: Batch) -> None:
        """See `Listener`."""
        self.saved += [one.row_index for one in batch.outcomes]
        self.leased += batch.leases
        self.events.append("committed")
        self._committed(batch)

    def disk_full(self, error: StorageError) -> None:
        """See `Listener`."""
        self.events.append("full")
        self.errors.append(error)
        self.full.set()

    def has_room(self) -> None:
        """See `Listener`."""
        self.events.append("room")

    def broke(self, error: StorageError, *, saving: bool) -> None:
        """See `Listener`."""
        self.events.append("broke, saving" if saving else "broke")
        self.errors.append(error)
        self.broken.set()


def outcome(row_index: int, *, failed: str | None = None, **changes: Any) -> Outcome:
    """An outcome: completed, or failed with an error code."""
    values: dict[str, Any] = {"attempts": 1, "ambiguous": 0, "latency_s": 0.5, "requested_at": 1.75}
    if failed is None:
        values |= {"status": "completed", "body": body_of(), "prompt_tokens": 3, "completion_tokens": 5}
    else:
        values |= {"status": "failed", "body": b"", "error": ApiError("no", code=failed, http_status=400)}
    return Outcome(row_index=row_index, **(values | changes))


@dataclass
class Begun:
    """A run folder that this process has open."""

    job: Job
    plan: Plan
    rundir: RunDir


@contextmanager
def begun(job: Job) -> Iterator[Begun]:
    """Open the run folder of a job whose input is written."""
    plan = make_plan(job, find_files(job.input.path))
    with RunDir.open(job.output.path) as rundir:
        rundir.begin(job, plan)
        yield Begun(job, plan, rundir)


class ScriptedClient:
    """Answers by a script, and notes what it was asked."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.asked: dict[int, int] = {}
        #: numbers of the rows in the order in which they were sent
        self.sent: list[int] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def send(self, body: bytes) -> Reply | Fault:
        """Answer as the script says, not before `under_way` ended."""
        number = int(orjson.loads(body)["messages"][-1]["content"].split()[0])
        attempt = self.asked.get(number, 0)
        self.asked[number] = attempt + 1
        self.sent.append(number)
        async with self._counted():
            await self.under_way(number)
            return self._script(number, attempt)

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1

    async def under_way(self, number: int) -> None:
        """What happens between request and answer."""
        await anyio.sleep(0.01)

    async def close(self) -> None:
        """Nothing to close."""


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still but for jumping to the next timer when nothing else can happen.

    `busy` says that a thread has something to do for the loop: that takes no time, however long it takes.
    """

    def __init__(self, busy: Callable[[], bool] = lambda: False) -> None:
        loop = self
        self.now_s = 1_000.0

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> Any:
                if timeout is None or timeout <= 0:
                    return super().select(timeout)
                while not (events := super().select(0.001)) and busy():
                    pass
                if not events:
                    loop.now_s += timeout
                return events

        super().__init__(Selector())

    def time(self) -> float:
        return self.now_s


class Impatient(Random):
    """Random numbers that keep nobody waiting."""

    def uniform(self, a: float, b: float) -> float:
        return a


@dataclass
class Work:
    """One worker's run over what is unfinished in a run folder."""

    run: Begun
    client: ScriptedClient
    #: called with the worker when it is about to start
    prepare: Callable[[Worker], None] = lambda worker: None
    random: Random = field(default_factory=lambda: Random(7))
    figures: Figures = field(default_factory=Figures)
    #: how often the worker may look at the clock before it is stopped, so that a busy loop ends
    most_readings: int = 50_000
    readings: int = 0
    _worker: Worker | None = None

    def __call__(self) -> BatcherError | None:
        """Work on a loop that skips all waiting; return why it stopped."""
        return anyio.run(self._work, backend_options={"loop_factory": lambda: SkippingLoop(self._threads_work)})

    def _threads_work(self) -> bool:
        """Whether the journal commits, a part is written or rows are read."""
        worker = self._worker
        if worker is None or worker._disk_full or worker._stopping:
            return False
        return bool(worker._rows.leasing or worker._window.uncommitted or worker._writing or worker._wants_rows())

    async def _work(self) -> BatcherError | None:
        job, plan, rundir = self.run.job, self.run.plan, self.run.rundir
        feed, totals = await anyio.to_thread.run_sync(self._open)
        self.figures.total, self.figures.ambiguous = plan.rows, totals.ambiguous
        self.figures.completed, self.figures.failed = totals.completed, totals.failed
        proven = totals.completed > 0
        worker = Worker(
            job,
            rundir,
            feed,
            self.client,
            rules=Rules(
                limiter=Limiter(job.limits.concurrency, random=self.random, proven=proven),
                guard=Guard(proven=proven),
                random=self.random,
            ),
            figures=self.figures,
            clock=self._clock,
            wall_clock=lambda: 1_700_000_000.0,
        )
        self._worker = worker
        self.prepare(worker)
        return await worker.run()

    def _clock(self) -> float:
        self.readings += 1
        if self.readings >= self.most_readings and self._worker is not None:
            self._worker.stop_now()
        return asyncio.get_running_loop().time()

    def _open(self) -> tuple[Feed, Any]:
        rundir, plan = self.run.rundir, self.run.plan
        return Feed(plan, rundir.unfinished(plan), rundir, builder_of(self.run.job)), rundir.totals()


def work(run: Begun, script: Script | ScriptedClient, **options: Any) -> BatcherError | None:
    """Let a worker ask every unfinished row of a run; return why it stopped."""
    return Work(run, script if isinstance(script, ScriptedClient) else ScriptedClient(script), **options)()


def statuses(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The statuses of output rows."""
    return [row["status"] for row in rows]
