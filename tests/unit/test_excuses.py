"""Rows that are asked again because it was not their fault, and rows that only seem to be such."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from batcher.records import Reply
from tests.fakes import ScriptedClient, Work, begun, good, make_job, write_numbers

ROWS, EVERY = 800, 50


class SlowUnlessBroken(ScriptedClient):
    """Good answers take ten seconds, broken ones come at once."""

    async def under_way(self, number: int) -> None:
        """Wait as long as this row's answer takes."""
        await anyio.sleep(0.2 if number % EVERY == 7 else 10)


@pytest.mark.xfail(strict=True, reason="a row whose attempts are quicker than good answers is excused again and again")
def test_a_broken_row_among_slow_good_ones(tmp_path: Path) -> None:
    """Two rows in a hundred that get nonsense, each time perhaps for money, are given up after few attempts."""
    write_numbers(tmp_path, ROWS)
    job = make_job(tmp_path, limits={"concurrency": 64}, output={"path": "out", "rows_per_part": 100})
    with begun(job) as run:
        client = SlowUnlessBroken(lambda number, _: Reply(200, {}, b"<html>") if number % EVERY == 7 else good())
        assert Work(run, client, most_readings=10_000_000)() is None
        assert run.rundir.totals().failed == ROWS // EVERY
    assert max(client.asked.values()) <= 2 * 3, sorted(client.asked.values())[-20:]
