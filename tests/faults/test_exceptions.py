"""An exception that nobody foresaw, at every place where the worker waits: one row feels it, or the run can go on."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher import pending as pending_module
from batcher.feed import Feed
from batcher.records import Fault, Reply
from batcher.shard import OpenShard
from tests.fakes import Begun, ScriptedClient, Work, begun, good, make_job, write_numbers
from tests.harness import table

ROWS, CONCURRENCY = 60, 4
#: what a client may raise that is not its job to raise
EXCEPTIONS: list[Callable[[], Exception]] = [
    lambda: RuntimeError("canary"),
    lambda: OSError(5, "canary"),
    lambda: ValueError("canary"),
    lambda: TimeoutError("canary"),
    lambda: asyncio.InvalidStateError("canary"),
    lambda: MemoryError("canary"),
]
#: where in an attempt
PLACES = ("before", "under way", "after")


class Raising(ScriptedClient):
    """Answers well, but raises in some of its attempts, counted from 0: where and what is said for each."""

    def __init__(self, raising: dict[int, tuple[str, Exception]]) -> None:
        super().__init__(lambda number, attempt: good(f"answer {number}"))
        self._raising = raising
        self._sends = 0
        #: most in flight since the last exception
        self.most_since = 0

    async def send(self, body: bytes) -> Reply | Fault:
        """Answer, or raise before, while or after doing so."""
        place, error = self._raising.get(self._sends, ("", None))
        self._sends += 1
        self._at(place, "before", error)
        answer = await super().send(body)
        self._at(place, "under way", error)
        await asyncio.sleep(0)
        self._at(place, "after", error)
        return answer

    async def under_way(self, number: int) -> None:
        """Wait, and see how many do."""
        await super().under_way(number)
        self.most_since = max(self.most_since, self.in_flight)

    def _at(self, place: str, here: str, error: Exception | None) -> None:
        if place == here and error is not None:
            self.most_since = 0
            raise error


@pytest.fixture(autouse=True, scope="module")
def no_backoff() -> Iterator[None]:
    """Retries are due at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pending_module, "backoff_s", lambda failures, random, wait_s: 0.0)
        yield


def make(folder: Path) -> Any:
    """A run folder over numbered rows, as a context."""
    write_numbers(folder, ROWS)
    job = make_job(
        folder, limits={"concurrency": CONCURRENCY, "max_attempts": 50}, output={"path": "out", "rows_per_part": 10}
    )
    return begun(job)


def check_all_answered(run: Begun) -> None:
    """Assert that every row has the answer to its own prompt."""
    rows = table(run.job.output.path).to_pylist()
    assert [row["completion"] for row in rows] == [f"answer {number}" for number in range(ROWS)]


ATTEMPTS = st.dictionaries(
    st.integers(4, ROWS // 2), st.tuples(st.sampled_from(PLACES), st.sampled_from(EXCEPTIONS)), max_size=3 * CONCURRENCY
)


@settings(max_examples=15, deadline=None)
@given(attempts=ATTEMPTS)
def test_a_client_that_raises(attempts: dict[int, tuple[str, Callable[[], Exception]]]) -> None:
    """An attempt that raises is an attempt that failed: its row is asked again, and no slot of the pool is lost."""
    client = Raising({number: (place, make_error()) for number, (place, make_error) in attempts.items()})
    with tempfile.TemporaryDirectory() as folder, make(Path(folder)) as run:
        work = Work(run, client)
        assert work() is None
        check_all_answered(run)
        assert work.figures.ambiguous >= sum(place != "before" for place, _ in attempts.values())
        assert sum(client.asked.values()) <= ROWS + len(attempts)
    assert client.most_since == CONCURRENCY, "a slot was lost"


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("victim", [(Feed, "next"), (OpenShard, "finish")], ids=["reading", "writing"])
def test_a_thread_that_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: tuple[type, str], number: int
) -> None:
    """When reading or writing raises what it should not, the run ends; what was answered is kept."""
    owner, name = victim
    method = getattr(owner, name)
    calls = []

    def raising(self: Any) -> Any:
        calls.append(1)
        if len(calls) == number + 1:
            raise RuntimeError("canary")
        return method(self)

    with make(tmp_path) as run:
        monkeypatch.setattr(owner, name, raising)
        first = Raising({})
        with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
            Work(run, first)()
        kept = run.rundir.totals().completed
        second = Raising({})
        assert Work(run, second)() is None
        check_all_answered(run)
        assert sum(second.asked.values()) == ROWS - kept
    assert sum(first.asked.values()) - kept <= CONCURRENCY, "an answer was lost that was not in flight"
