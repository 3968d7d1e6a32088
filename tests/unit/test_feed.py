"""The feed: rows without an outcome become requests, shard after shard, each row once."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow as pa
import pytest

from batcher.completion import parse
from batcher.errors import InputError, StorageError
from batcher.feed import Feed, Feeding, Pending
from batcher.records import ApiError, Completion, Prompt
from batcher.retry import Action, Verdict
from batcher.shard import OpenShard
from tests.fakes import Begun, begun, body_of, builder_of, make_job, outcome, write_numbers


def feed_of(run: Begun) -> Feed:
    return Feed(run.plan, run.rundir.unfinished(run.plan), run.rundir, builder_of(run.job))


def feedings(run: Begun) -> Iterator[Feeding]:
    """Everything that the feed gives."""
    feed = feed_of(run)
    while (feeding := feed.next()) is not None:
        yield feeding
    assert feed.next() is None


def test_all_rows(tmp_path: Path) -> None:
    """Each comes once, in order, with its shard; the last chunk of a shard says so."""
    write_numbers(tmp_path, 700)
    with begun(make_job(tmp_path, output={"path": "out", "rows_per_part": 400})) as run:
        given = list(feedings(run))
        assert [row.row_index for feeding in given for row in feeding.pending] == list(range(700))
        assert [(feeding.shard.shard.number, feeding.is_last) for feeding in given] == [
            (0, False),
            (0, True),
            (1, False),
            (1, True),
        ]
        assert given[0].shard is given[1].shard
        assert b"699 " in given[-1].pending[-1].prompt.body


def test_whether_the_next_chunk_opens_a_shard(tmp_path: Path) -> None:
    """It does at the start and when the last shard is read to its end."""
    write_numbers(tmp_path, 300)
    with begun(make_job(tmp_path, output={"path": "out", "rows_per_part": 290})) as run:
        feed = feed_of(run)
        opens = []
        for _ in range(3):
            opens.append(feed.opens_shard)
            feed.next()
        assert opens == [True, False, True]


@pytest.mark.parametrize("given_up", [False, True])
def test_given_up_on_the_way_to_a_shard(tmp_path: Path, given_up: bool) -> None:
    """Whoever gives up need not wait until a compressed file is read up to the first row that is wanted."""
    lines = (orjson.dumps({"text": f"{number} {'x' * 1000}"}) + b"\n" for number in range(3000))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b"".join(lines), 1))
    job = make_job(tmp_path, input={"path": "rows.jsonl.gz"}, output={"path": "out", "rows_per_part": 1000})
    with begun(job) as run:
        feed = Feed(run.plan, run.plan.shards[2:], run.rundir, builder_of(job))
        if given_up:
            feed.give_up()
        feeding = feed.next()
        assert (feeding is None) == given_up
        if feeding is not None:
            assert feeding.pending[0].row_index == 2000
            feeding.shard.abandon()


def test_rows_that_have_an_outcome(tmp_path: Path) -> None:
    """They are left out, but their columns are kept for the part; a shard may have nothing left to ask."""
    write_numbers(tmp_path, 8)
    with begun(make_job(tmp_path, output={"path": "out", "rows_per_part": 4})) as run:
        for row in (0, 1, 2, 3, 6):
            run.rundir.journal.record(outcome(row))
        first, second = feedings(run)
        assert first.pending == []
        assert first.shard.missing == 0
        assert [row.row_index for row in second.pending] == [4, 5, 7]
        assert second.shard.missing == 3
        spool = run.rundir.tmp / "shard-00001.columns.arrow"
        assert pa.ipc.open_stream(spool.read_bytes()).read_all()["text"].to_pylist() == ["4 ", "5 ", "6 ", "7 "]


def test_rows_that_were_sent_before(tmp_path: Path) -> None:
    """Their attempts, those that may have been paid for among them, are counted on; the bound begins anew."""
    write_numbers(tmp_path, 3)
    with begun(make_job(tmp_path)) as run:
        run.rundir.journal.lease([1])
        run.rundir.journal.attempts()
        run.rundir.journal.release(1, attempts=5, ambiguous=2)
        (feeding,) = feedings(run)
        assert [(row.attempts, row.ambiguous, row.failures) for row in feeding.pending] == [
            (0, 0, 0),
            (5, 2, 0),
            (0, 0, 0),
        ]


def test_rows_that_cannot_be_asked(tmp_path: Path) -> None:
    """They come out as failed, without attempts, with what is wrong; their place in the part is kept."""
    (tmp_path / "rows.jsonl").write_bytes(b'{"text":"0"}\n{"text":\n[]\n{"other":1}\n')
    with begun(make_job(tmp_path)) as run:
        (feeding,) = feedings(run)
        assert [row.row_index for row in feeding.pending] == [0]
        assert [(one.row_index, one.attempts) for one in feeding.failed] == [(1, 0), (2, 0), (3, 0)]
        errors = [one.error for one in feeding.failed if one.error is not None]
        assert [error.code for error in errors] == ["invalid_row", "invalid_row", "row_cannot_be_asked"]
        assert errors[0].message.startswith("rows.jsonl:2: ")
        assert feeding.shard.fully_read


def test_the_input_is_shorter_than_planned(tmp_path: Path) -> None:
    """It is an InputError."""
    write_numbers(tmp_path, 8)
    with begun(make_job(tmp_path)) as run:
        write_numbers(tmp_path, 3)
        with pytest.raises(InputError):
            list(feedings(run))


def test_the_spool_cannot_be_written(tmp_path: Path) -> None:
    """It is a StorageError that names the file."""
    write_numbers(tmp_path, 8)
    with begun(make_job(tmp_path)) as run:
        run.rundir.tmp.rmdir()
        with pytest.raises(StorageError, match=r"shard-00000\.columns\.arrow cannot be written"):
            list(feedings(run))


def test_only_the_carried_columns_are_spooled(tmp_path: Path) -> None:
    """What the part will not hold is not kept."""
    write_numbers(tmp_path, 2)
    with begun(make_job(tmp_path, output={"path": "out", "columns": []})) as run:
        (feeding,) = feedings(run)
        assert [batch.num_rows for batch in feeding.shard._carried()] == [2]
        assert len(feeding.pending) == 2


def test_the_outcome_of_a_row(tmp_path: Path) -> None:
    """It holds the attempts, the time since sending and what all answers to the row used."""
    write_numbers(tmp_path, 1)
    with begun(make_job(tmp_path)) as run:
        shard = OpenShard(run.plan.shards[0], run.rundir)
        pending = Pending(0, shard, Prompt(b"{}"), attempts=3, ambiguous=1, sent_at_s=10.0, requested_at=99.0)
        completion = parse(body_of())
        assert isinstance(completion, Completion)
        error = ApiError("no")
        failed = pending.outcome(b"b", 11.0, error)
        assert (failed.status, failed.body, failed.error, failed.prompt_tokens) == ("failed", b"b", error, None)
        pending.used(completion.usage, 0.25)
        once = {"attempts": 3, "ambiguous": 1, "latency_s": 2.5, "requested_at": 99.0, "cost_usd": 0.25}
        assert pending.outcome(body_of(), 12.5) == outcome(0, **once)
        pending.used(completion.usage, None)
        assert pending.outcome(body_of(), 12.5) == outcome(0, prompt_tokens=6, completion_tokens=10, **once)
        shard.abandon()


def test_failures_are_counted_by_code() -> None:
    """The count of one code is its own, the sum is the row's."""
    shard: OpenShard = object.__new__(OpenShard)
    pending = Pending(0, shard, Prompt(b""))
    verdicts = [Verdict(Action.RETRY, ApiError("", code=code), max_retries=1) for code in ("a", "b", "a")]
    assert [pending.exhausted(verdict, 5.0, succeeded_at_s=0, max_attempts=9) for verdict in verdicts] == [
        False,
        False,
        True,
    ]
    assert pending.failures == 3


def test_a_row_of_values_that_nothing_else_could_bear(tmp_path: Path) -> None:
    """Whatever a row's values do on their way to a request, it is that row's problem and no other's."""
    deep = "[" * 600 + "]" * 600
    lines = ['{"text":"0"}', f'{{"text":[{2**70}]}}', f'{{"text":{deep}}}', '{"text":"3"}']
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    with begun(make_job(tmp_path)) as run:
        (feeding,) = feedings(run)
        asked = {row.row_index for row in feeding.pending}
        assert {0, 1, 3} <= asked
        assert asked | {one.row_index for one in feeding.failed} == {0, 1, 2, 3}
