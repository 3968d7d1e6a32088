"""Who gets which shards, how many processes are worth while, and errors that cross from one process to another."""

from __future__ import annotations

import pickle
import signal
from pathlib import Path

import pytest

from batcher.engines.hands import Hands, processes_for
from batcher.engines.messages import Problem
from batcher.errors import AccountError, BatcherError, BudgetError, Interrupted, JobError
from batcher.records import Shard
from tests.fakes import make_job

SHARDS = [Shard(number, 10 * number, 10, ()) for number in range(8)]


@pytest.mark.parametrize(
    ("asked", "concurrency", "shards", "count"),
    [
        (1, 256, 100, 1),
        (4, 256, 100, 4),
        (4, 256, 3, 3),
        (4, 2, 100, 2),
        ("auto", 256, 100, 4),
        ("auto", 4000, 100, 8),
        ("auto", 16, 100, 1),
        (2, 16, 0, 1),
    ],
)
def test_no_more_processes_than_have_work(
    tmp_path: Path, asked: int | str, concurrency: int, shards: int, count: int
) -> None:
    """Each has a shard and a request in flight at least; `auto` gives each of the CPUs 64 requests at once."""
    job = make_job(tmp_path, engine={"processes": asked}, limits={"concurrency": concurrency})
    assert processes_for(job, shards, cpus=8) == count


def test_every_shard_is_given_once_and_in_ascending_order() -> None:
    """A process gets the shards in its journal and others, in ascending order since input is read forwards."""
    hands = Hands(SHARDS, [[SHARDS[1], SHARDS[6]], [SHARDS[3]]])
    turns = [0, 1, 0, 0, 1, 1, 0, 1, 0, 1, 0]
    given = [(turn, shard.number) for turn in turns if (shard := hands.give(turn)) is not None]
    assert sorted(number for _, number in given) == list(range(8))
    for process in (0, 1):
        own = [number for turn, number in given if turn == process]
        assert own == sorted(own) == [shard.number for shard in hands.given(process)]
    assert {number: process for process, number in given}.items() >= {1: 0, 6: 0, 3: 1}.items()


@pytest.mark.parametrize(
    "error",
    [
        AccountError("no"),
        BudgetError("limits.x: used"),
        Interrupted(signal.SIGTERM),
        JobError(["a", "b"]),
        BatcherError(),
    ],
)
def test_an_error_is_the_same_on_the_other_side(error: BatcherError) -> None:
    """Class, words and exit code of an error survive the way from a worker process to its parent."""
    there = pickle.loads(pickle.dumps(Problem.of(error))).as_error()
    assert type(there) is type(error)
    assert (str(there), there.problems, there.exit_code) == (str(error), error.problems, error.exit_code)
