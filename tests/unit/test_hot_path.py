"""How much Python runs for a row, counted in lines and not in seconds: the same on every machine and at every load.

The bounds are about an eighth above what it took when they were set. Who needs more has to say so here, and should
measure it with `python -m tests.benchmarks`; who needs less lowers them.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import orjson

import batcher
from batcher.client import Destination
from batcher.client.connection import Answer, Connection
from batcher.journal.tables import SCHEMA, Batch, insert, outcomes_between
from batcher.part import result_columns
from batcher.plan import make_plan
from batcher.records import Outcome, Reply, Totals
from batcher.source import find_files
from tests.benchmarks.engine_only import ask_all
from tests.fakes import body_of, builder_of, good, make_job, write_numbers

_OURS = str(Path(batcher.__file__).parent)


def lines_of(work: Callable[[], object]) -> int:
    """How many lines of the package this thread runs for `work`."""
    lines = 0

    def on_line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return on_line

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        return on_line if frame.f_code.co_filename.startswith(_OURS) else None

    before = sys.gettrace()  # a debugger's, or that of who measures coverage
    sys.settrace(on_call)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


class _AtOnce:
    """A client that answers at the event loop's next turn."""

    async def send(self, body: bytes) -> Reply:
        await asyncio.sleep(0)
        return good()

    async def close(self) -> None:
        """See `Client`."""


def _lines_of_a_run(folder: Path, rows: int, in_flight: int) -> int:
    folder.mkdir()
    write_numbers(folder, rows)
    output = {"path": "out", "rows_per_part": 100_000}
    job = make_job(folder, limits={"concurrency": in_flight}, output=output)
    plan = make_plan(job, find_files(job.input.path))
    return lines_of(lambda: anyio.run(ask_all, job, plan, _AtOnce))


def _lines_of_a_row(folder: Path, in_flight: int) -> float:
    """What a row more adds to a run."""
    folder.mkdir()
    few, many = 4 * in_flight, 4 * in_flight + 200
    more = _lines_of_a_run(folder / "many", many, in_flight) - _lines_of_a_run(folder / "few", few, in_flight)
    return more / (many - few)


def test_the_event_loop_runs_few_lines_for_a_row(tmp_path: Path) -> None:
    """Leasing, sending, judging, settling and recording a row that succeeds takes no more Python than it did."""
    lines = _lines_of_a_row(tmp_path / "16", 16)
    assert lines < 355, lines


def test_a_row_costs_the_same_among_many(tmp_path: Path) -> None:
    """Nothing that is done for a row grows with the rows in flight."""
    few, many = _lines_of_a_row(tmp_path / "16", 16), _lines_of_a_row(tmp_path / "256", 256)
    assert many < 1.1 * few, (few, many)


class _Transport(asyncio.Transport):
    """Takes everything that is written, and forgets it."""

    def write(self, data: object) -> None: ...

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


def test_the_client_runs_few_lines_for_a_request() -> None:
    """A request and its response on a connection that is open take no more Python than they did."""
    buffer = memoryview(bytearray(65536))
    connection = Connection(Destination(url="http://localhost"), buffer, lambda _: None)
    connection.connection_made(_Transport())
    body = body_of()
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    buffer[: len(response)] = response
    loop = asyncio.new_event_loop()
    answers: list[Answer] = [loop.create_future() for _ in range(20)]

    def ask() -> None:
        for answer in answers:
            connection.start(answer, b"head", b"body", first_byte_at=9.0, total_at=9.0)
            connection.buffer_updated(len(response))

    lines = lines_of(ask) / len(answers)
    loop.close()
    assert all(answer.result() == Reply(200, answer.result().headers, body) for answer in answers)
    assert lines < 106, lines


def test_a_request_is_built_in_few_lines(tmp_path: Path) -> None:
    """Rendering a prompt and writing the request's JSON takes no more Python than it did."""
    write_numbers(tmp_path, 1)
    builder = builder_of(make_job(tmp_path))
    builder.build({"text": "0"})
    lines = lines_of(lambda: builder.build({"text": "1"}))
    assert lines < 30, lines


def _outcomes(count: int) -> list[Outcome]:
    return [Outcome(row, "completed", body_of(), 1, 0, 0.5, 1.7e9, None, 3, None, 5) for row in range(count)]


def test_the_journal_runs_few_lines_for_a_row() -> None:
    """Writing a lease and an outcome, and reading the outcome back, takes no more Python than it did."""
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA)
    outcomes = _outcomes(64)

    def keep() -> None:
        insert(db, Batch(leases=[one.row_index for one in outcomes]))
        insert(db, Batch(outcomes=outcomes))
        assert outcomes_between(db, 0, 64, 1 << 30) == outcomes

    lines = lines_of(keep) / 64
    db.close()
    assert lines < 49, lines


def test_a_part_is_written_in_few_lines_for_a_row() -> None:
    """Reading an answer again and spreading it over the columns takes no more Python than it did."""
    outcomes = _outcomes(64)
    lines = lines_of(lambda: result_columns(outcomes, Totals())) / 64
    assert orjson.loads(outcomes[0].body)["id"] == "id-1"
    assert lines < 142, lines
