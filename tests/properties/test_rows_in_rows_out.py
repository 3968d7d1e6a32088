"""Whatever the rows, the limits and the endpoint are like: one output row per input row, in order, rightly judged."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher import pending as pending_module
from batcher.guard import FIRST
from batcher.records import Fault, FaultKind, Reply
from tests.fakes import ScriptedClient, Work, begun, disconnected, good, make_job, refusal
from tests.harness import table

MAX_ATTEMPTS = 3
RESULTS: dict[str, Reply | Fault] = {
    "good": good(),
    "broken off": disconnected(),
    "no connection": Fault(FaultKind.STALE, "closed"),
    "error 500": refusal(500, "boom"),
    "too long": refusal(400, "context_length_exceeded"),
    "refused": refusal(422, "odd"),
}
#: results that use up an attempt
COUNTED = {"broken off", "no connection", "error 500"}
#: results after which a row has failed
FINAL = {"too long", "refused"}

#: of each row: a prompt, and what the endpoint says the first times before it answers; too few to stop the run
ROWS = st.lists(
    st.tuples(st.text(max_size=20), st.lists(st.sampled_from(sorted(RESULTS)), max_size=4)),
    min_size=1,
    max_size=FIRST - 2,
)


def expected(results: list[str]) -> set[str]:
    """What may become of a row that meets these results, and good ones afterwards.

    One that is out of attempts while no other succeeds is asked on for a while, and may find a good one.
    """
    failures = 0
    for result in results:
        failures += result in COUNTED
        if result == "good":
            return {"completed"}
        if result in FINAL:
            return {"failed"}
        if failures == MAX_ATTEMPTS:
            return {"completed", "failed"}
    return {"completed"}


@pytest.fixture(autouse=True, scope="module")
def no_backoff() -> Iterator[None]:
    """Retries are due at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pending_module, "backoff_s", lambda failures, random, wait_s: 0.0)
        yield


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, rows_per_part=st.integers(1, 8), concurrency=st.integers(1, 12), seed=st.integers(0, 99))
def test_any_rows_and_any_results(
    rows: list[tuple[str, list[str]]], rows_per_part: int, concurrency: int, seed: int
) -> None:
    """Every row comes out once, at its place, with the status that its results lead to."""
    rows = [("", []), *rows]  # where nothing succeeds at all, failures are not believed
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [orjson.dumps({"text": f"{number} {text}"}) + b"\n" for number, (text, _) in enumerate(rows)]
        (folder / "rows.jsonl").write_bytes(b"".join(lines))
        job = make_job(
            folder,
            limits={"concurrency": concurrency, "max_attempts": MAX_ATTEMPTS},
            output={"path": "out", "rows_per_part": rows_per_part},
        )
        scripts = [results for _, results in rows]

        def script(number: int, attempt: int) -> Reply | Fault:
            results = scripts[number]
            return RESULTS[results[attempt]] if attempt < len(results) else good(f"answer {number}")

        with begun(job) as run:
            client = ScriptedClient(script)
            assert Work(run, client, random=Random(seed))() is None
            assert client.most_in_flight <= concurrency
            report = run.rundir.report(run.plan)
        out = table(folder / "out").to_pylist()
    assert [row["row_index"] for row in out] == list(range(len(rows)))
    assert [row["text"] for row in out] == [f"{number} {text}" for number, (text, _) in enumerate(rows)]
    assert all(row["status"] in expected(results) for row, results in zip(out, scripts, strict=True))
    for number, row in enumerate(out):
        if row["status"] == "completed":
            assert row["completion"] == ("fine" if "good" in scripts[number] else f"answer {number}")
        assert row["attempts"] >= 1
    assert report.complete
    assert report.totals.failed == sum(row["status"] == "failed" for row in out)
