"""The record of a run over time: it adds up, stays small, survives crashes and never harms a run."""

from __future__ import annotations

import itertools
import logging
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.progress import Figures
from batcher.timeline import MOST, NAME, Stretch, Timeline, joined, read_timeline

START = 1_700_000_000.0
#: a stretch is the sum of its parts in these
SUMS = ("active_s", "completed", "failed", "prompt_tokens", "completion_tokens", "retries", "waiting_s")


class Clock:
    """A clock that is turned by hand; the same for both kinds of time."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def timeline(folder: Path, clock: Clock) -> Timeline:
    """The timeline of a run folder, by this clock."""
    return Timeline(folder, clock=clock, wall_clock=clock)


def work(folder: Path, clock: Clock, looks: int, step_s: float, each: Callable[[Figures, int], None]) -> Figures:
    """One run: look every `step_s`, save every fifteenth time; `each` changes the figures before a look."""
    figures, record = Figures(), timeline(folder, clock)
    record.look(figures)
    for number in range(looks):
        clock.now += step_s
        each(figures, number)
        record.look(figures)
        if number % 15 == 0:
            record.save()
    record.end(figures)
    return figures


def a_row(figures: Figures, _: int) -> None:
    """Two rows and some tokens a look."""
    figures.completed += 2
    figures.prompt_tokens += 30
    figures.in_flight, figures.limit = 5, 8


def stretch(since: float, active_s: float = 1.0, **changes: float | str | None) -> Stretch:
    """A stretch in which one row was completed."""
    plain = Stretch(since, since + active_s, active_s, 1, 0, 10, 5, 0, 4.0, 8.0, 0.0, None)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_what_happened_between_looks(tmp_path: Path) -> None:
    """A stretch holds the differences of the counts, the means of the others, and how long the run was held back."""
    clock, figures = Clock(), Figures(completed=100, prompt_tokens=7)
    record = timeline(tmp_path, clock)
    record.look(figures)
    clock.now += 0.2
    figures.completed, figures.failed, figures.prompt_tokens, figures.retries = 103, 1, 47, 2
    figures.in_flight, figures.limit, figures.why_waiting = 6, 8, "rate limited"
    record.end(figures)
    (told,) = read_timeline(tmp_path)
    assert told.active_s == pytest.approx(0.2)
    assert (told.completed, told.failed, told.prompt_tokens, told.retries) == (3, 1, 40, 2)
    assert (told.since, told.until, told.in_flight, told.limit) == (START, START + 0.2, 6, 8)
    assert (told.waiting_s, told.why) == (pytest.approx(0.2), "rate limited")


def test_the_rows_of_earlier_runs_are_not_counted_again(tmp_path: Path) -> None:
    """Each run begins at what it finds, so that the sum over all runs is the number of rows."""
    clock = Clock()
    for completed in (10, 30):
        record, figures = timeline(tmp_path, clock), Figures(completed=completed - 10)
        record.look(figures)
        clock.now += 1
        figures.completed = completed
        record.end(figures)
        clock.now += 3600
    first, second = read_timeline(tmp_path)
    assert (first.completed, second.completed) == (10, 10)
    assert not second.continues(first)


def test_a_time_of_day_that_is_corrected(tmp_path: Path) -> None:
    """A time of day set back while a run works makes no gap in it, and no time that ran backwards."""
    clock, wall = Clock(), Clock()
    record, figures = Timeline(tmp_path, clock=clock, wall_clock=wall), Figures()
    record.look(figures)
    for number in range(10):
        clock.now += 1
        wall.now += 1 if number != 5 else -3600
        a_row(figures, number)
        record.look(figures)
    record.save()
    told = read_timeline(tmp_path)
    assert [one.active_s for one in told] == pytest.approx([1.0] * 10)
    assert all(after.continues(before) for before, after in itertools.pairwise(told))


def test_a_long_run_leaves_a_small_file(tmp_path: Path) -> None:
    """Ten days of looks leave at most `MOST` lines, in which nothing that can be added up is lost."""
    figures = work(tmp_path, clock := Clock(), 172_800, 5.0, a_row)
    told = read_timeline(tmp_path)
    assert MOST // 8 < len(told) <= MOST + 15
    assert (tmp_path / NAME).stat().st_size < 600_000
    assert sum(one.completed for one in told) == figures.completed == 345_600
    assert sum(one.prompt_tokens for one in told) == figures.prompt_tokens
    assert sum(one.active_s for one in told) == pytest.approx(864_000)
    assert told[-1].until == pytest.approx(clock.now)
    assert all(one.in_flight == 5 and one.limit == 8 for one in told)
    assert all(after.continues(before) for before, after in itertools.pairwise(told))


def test_many_short_runs_leave_a_small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job resumed again and again is told in at most `MOST` lines too, at the cost of the rests between them."""
    monkeypatch.setattr("batcher.timeline.MOST", 100)
    clock, completed = Clock(), 0
    for _ in range(500):
        completed += work(tmp_path, clock, 1, 1.0, a_row).completed
        clock.now += 3600
    told = read_timeline(tmp_path)
    assert 25 < len(told) <= 101
    assert sum(one.completed for one in told) == completed


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_line_torn_by_a_crash(tmp_path: Path, cut: int) -> None:
    """Only the torn line is lost, and the next run adds to the file as if nothing had happened."""
    clock = Clock()
    work(tmp_path, clock, 20, 1.0, a_row)
    file = tmp_path / NAME
    content = file.read_bytes()
    file.write_bytes(content[:-cut])
    assert len(read_timeline(tmp_path)) == 20 if cut == 1 else 19
    clock.now += 60
    work(tmp_path, clock, 5, 1.0, a_row)
    assert len(read_timeline(tmp_path)) == (25 if cut == 1 else 24)
    assert len(file.read_bytes().splitlines()) == len(read_timeline(tmp_path))


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"17", b"\xff\xfe", b'{"since": 1}', b'{"since": "x"}', b"{" * 3000],
)
def test_lines_that_are_something_else(tmp_path: Path, line: bytes) -> None:
    """What is no stretch is passed over, wherever it stands."""
    work(tmp_path, Clock(), 3, 1.0, a_row)
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(line + b"\n" + whole + line + b"\n" + line)
    assert len(read_timeline(tmp_path)) == 3


@pytest.mark.parametrize(
    "values",
    [{"completed": -1}, {"active_s": "1"}, {"limit": None}, {"why": 5}, {"failed": True}, {"since": [1]}],
)
def test_values_that_no_stretch_has(tmp_path: Path, values: dict[str, object]) -> None:
    """A line with a count below zero, or with a value of another kind, is passed over."""
    work(tmp_path, Clock(), 1, 1.0, a_row)
    good = orjson.loads((tmp_path / NAME).read_bytes())
    (tmp_path / NAME).write_bytes(orjson.dumps({**good, **values}) + b"\n" + orjson.dumps(good) + b"\n")
    assert len(read_timeline(tmp_path)) == 1


def test_a_file_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The run goes on, and hears of it once."""
    (tmp_path / NAME).mkdir()
    with caplog.at_level(logging.WARNING):
        work(tmp_path, Clock(), 100, 1.0, a_row)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert NAME in caplog.text
    assert read_timeline(tmp_path) == []


def test_a_disk_that_was_full_for_a_while(tmp_path: Path) -> None:
    """What could not be written is written later, without a gap."""
    clock, figures = Clock(), Figures()
    record = timeline(tmp_path, clock)
    record.look(figures)
    (tmp_path / NAME).mkdir()
    for number in range(10):
        clock.now += 1
        a_row(figures, number)
        record.look(figures)
        record.save()
    (tmp_path / NAME).rmdir()
    record.save()
    assert sum(one.completed for one in read_timeline(tmp_path)) == 20


def test_a_server_that_claims_any_number_of_tokens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Counts that no file format takes are cut down, and the run hears nothing of it."""
    clock, figures = Clock(), Figures()
    record = timeline(tmp_path, clock)
    record.look(figures)
    clock.now += 1
    figures.prompt_tokens, figures.completed = 1 << 70, 1
    record.end(figures)
    assert [(one.completed, one.prompt_tokens) for one in read_timeline(tmp_path)] == [(1, 1 << 53)]
    assert not caplog.records


def test_a_line_that_was_written_half(tmp_path: Path) -> None:
    """A disk that fills up within a line costs nothing once it has room again."""
    clock, figures = Clock(), Figures()
    record = timeline(tmp_path, clock)
    record.look(figures)
    for number in range(6):
        clock.now += 1
        a_row(figures, number)
        record.look(figures)
        record.save()
        if number == 2:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / NAME).stat().st_size + 50, before[1]))
        elif number == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [one.completed for one in read_timeline(tmp_path)] == [2] * 6
    assert len((tmp_path / NAME).read_bytes().splitlines()) == 6


def test_rests_stay_where_there_are_few() -> None:
    """Stretches are joined up to a rest, and from there on anew."""
    before_rest = [stretch(number) for number in range(21)]
    few = joined([*before_rest, *(stretch(1000 + number) for number in range(21))], 40)
    assert sum(not after.continues(before) for before, after in itertools.pairwise(few)) == 1
    assert [one.since for one in few] == [0, 4, 8, 12, 16, 20, 1000, 1004, 1008, 1012, 1016, 1020]


def test_a_run_without_a_record(tmp_path: Path) -> None:
    """A folder without the file has no stretches."""
    assert read_timeline(tmp_path) == []


def test_the_reason_that_held_it_back_for_longest_stays() -> None:
    """Where two stretches are joined, the longer reason is kept, and the time of both."""
    first, second = stretch(0, waiting_s=0.2, why="a 429"), stretch(1, waiting_s=0.9, why="an outage")
    first.add(second)
    assert (first.why, first.waiting_s) == ("an outage", pytest.approx(1.1))
    first.add(stretch(2))
    first.add(stretch(3, waiting_s=0.1, why="a blink"))
    assert (first.why, first.waiting_s) == ("an outage", pytest.approx(1.2))


def test_means_count_by_time() -> None:
    """A long stretch weighs more in a mean than a short one."""
    first = stretch(0, active_s=1.0, in_flight=10.0, limit=10.0)
    first.add(stretch(1, active_s=3.0, in_flight=2.0, limit=20.0))
    assert (first.in_flight, first.limit) == (4.0, 17.5)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=120),
    st.integers(8, 40),
)
def test_joining_loses_nothing_but_detail(pieces: list[tuple[float, bool]], most: int) -> None:
    """However stretches and rests follow each other, few remain, in order, with the same sums."""
    stretches, at = [], 0.0
    for active_s, rests in pieces:
        stretches.append(stretch(at, active_s, waiting_s=active_s / 2, why="x", until=at + active_s))
        at += active_s + (1000 if rests else 0)
    few = joined(stretches, most)
    assert len(few) <= most
    for name in SUMS:
        assert sum(getattr(one, name) for one in few) == pytest.approx(sum(getattr(one, name) for one in stretches))
    assert [one.since for one in few] == sorted(one.since for one in few)
    if stretches:
        assert (few[0].since, few[-1].until) == (stretches[0].since, stretches[-1].until)
