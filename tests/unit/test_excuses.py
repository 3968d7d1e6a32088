"""Rows that are asked again because it was not their fault, and rows that only seem to be such."""

from __future__ import annotations

from pathlib import Path

import anyio

from batcher.records import Reply
from tests.fakes import ScriptedClient, Work, begun, good, make_job, write_numbers

ROWS, EVERY = 800, 50


class SlowUnlessBroken(ScriptedClient):
    """Good answers take ten seconds, broken ones come at once."""

    async def under_way(self, number: int) -> None:
        """Wait as long as this row's answer takes."""
        await anyio.sleep(0.2 if number % EVERY == 7 else 10)


def test_a_broken_row_among_slow_good_ones(tmp_path: Path) -> None:
    """Two rows in a hundred that get nonsense, each time perhaps for money, are given up after few attempts."""
    write_numbers(tmp_path, ROWS)
    job = make_job(tmp_path, limits={"concurrency": 64}, output={"path": "out", "rows_per_part": 100})
    with begun(job) as run:
        client = SlowUnlessBroken(lambda number, _: Reply(200, {}, b"<html>") if number % EVERY == 7 else good())
        assert Work(run, client, most_readings=10_000_000)() is None
        assert run.rundir.totals().failed == ROWS // EVERY
    asked = {row: client.asked[row] for row in range(7, ROWS, EVERY)}
    assert max(count for row, count in asked.items() if row < ROWS - 200) <= 2 * 3
    assert max(asked.values()) <= 2 * 3 + 4, "the last ones have nobody beside them to show whose fault it is"
