"""How a report says things: numbers, times, foreign text, the pace of a run, and a configuration without secrets."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.job import Job
from batcher.plan import Plan, make_plan
from batcher.report import words
from batcher.report.configuration import HIDDEN, prompts, settings
from batcher.report.pace import Pace
from batcher.report.visible import lines, one_line
from batcher.source import find_files
from batcher.timeline import Stretch
from tests.fakes import make_job, write_numbers

NARROW = "\u202f"


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (words.count, (12345,), "12,345"),
        (words.count, (None,), "unknown"),
        (words.counted, (1, "row"), "1 row"),
        (words.counted, (0, "row"), "0 rows"),
        (words.short, (940,), "940"),
        (words.short, (2.5,), "2.50"),
        (words.short, (9990,), "9,990"),
        (words.short, (12345,), "12.3 k"),
        (words.short, (999_960,), "1.00 M"),
        (words.short, (2_340_000_000,), "2.34 G"),
        (words.short, (5e15,), "5,000 T"),
        (words.share, (1, 3), "33.3 %"),
        (words.share, (3, 3), "100 %"),
        (words.share, (0, 3), "0 %"),
        (words.share, (0, 0), words.NOTHING),
        (words.share, (1, 10_000_000), "< 0.1 %"),
        (words.share, (9_999_999, 10_000_000), "> 99.9 %"),
        (words.duration, (0.0,), "0.00 ms"),
        (words.duration, (0.182,), "182 ms"),
        (words.duration, (0.9996,), "1.00 s"),
        (words.duration, (2.345,), "2.35 s"),
        (words.duration, (59.97,), "1 min"),
        (words.duration, (200,), "3 min 20 s"),
        (words.duration, (3599.9,), "1 h"),
        (words.duration, (18720,), "5 h 12 min"),
        (words.duration, (86399.0,), "1 d"),
        (words.duration, (180_000,), "2 d 2 h"),
        (words.duration, (None,), "unknown"),
        (words.rate, (119.9, "rows"), "120 rows/s"),
        (words.rate, (0.5, "rows"), "30 rows/min"),
        (words.rate, (0.001, "rows"), "3.60 rows/h"),
        (words.rate, (None, "rows"), "unknown"),
        (words.dollars, (None,), "unknown"),
        (words.dollars, (0.0,), "$0.00"),
        (words.dollars, (1234.5,), "$1,234.50"),
        (words.dollars, (0.0123,), "$0.0123"),
        (words.dollars, (0.00042,), "$0.00042"),
        (words.dollars, (0.0000031,), "$0.0000031"),
        (words.moment, (None,), "unknown"),
        (words.moment, (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),), "2026-01-02 03:04:05 UTC"),
    ],
)
def test_numbers_in_words(function: Any, arguments: tuple[Any, ...], expected: str) -> None:
    """Three digits that count, units that fit, and never a 0 for what is not known or not quite nothing."""
    assert function(*arguments).replace(NARROW, " ") == expected


@given(st.floats(0, 1e8))
def test_every_duration_is_said_with_its_unit(seconds: float) -> None:
    """No length of time is left without words, and none says sixty of a unit."""
    said = words.duration(seconds).replace(NARROW, " ")
    assert said.split()[-1] in ("ms", "s", "min", "h", "d")
    assert not said.startswith(("60 s", "60.0 s", "60 min", "24 h", "1,000 ms"))
    assert " 60 " not in said


# -- foreign text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain <b>text</b>", "plain <b>text</b>"),
        ("two\nlines\ttab\r", "two⏎lines tab⏎"),
        ("evil\u202egnp.exe", "evil[U+202E]gnp.exe"),
        ("\x00\x1b[31m\x7f", "[U+0000][U+001B][31m[U+007F]"),
        ("zero\u200bwidth\ufeff", "zero[U+200B]width[U+FEFF]"),
        ("👩\u200d👧 \u06a9\u200c\u06a9", "👩\u200d👧 \u06a9\u200c\u06a9"),
        ("a\u2028b\ue000", "a[U+2028]b[U+E000]"),
        ("e" + "\u0301" * 200, "e" + "\u0301" * 3),
        ("x" * 400, "x" * 300 + "…"),
        ("", ""),
    ],
)
def test_foreign_text_in_a_line(text: str, expected: str) -> None:
    """What turns, hides or piles up text is shown by number or left out; long text is cut."""
    assert one_line(text) == expected


@given(st.text())
def test_no_text_does_anything_but_stand_there(text: str) -> None:
    """Whatever a row holds, what is shown has no control, no direction mark and no line break in it."""
    kinds = {unicodedata.category(character) for character in one_line(text) if character not in "\u200c\u200d"}
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def test_foreign_text_in_lines() -> None:
    """A template keeps its lines and tabs; the rest of what one_line shows by number is shown so here too."""
    assert lines("a\n\tb\u202e\r") == "a\n\tb[U+202E]⏎"
    assert lines("y" * 30_000).endswith("y\n… (30,000 characters)")
    assert len(lines("y" * 3_000_000)) < 21_000


# -- pace


def stretch(since: float, active_s: float, **changes: Any) -> Stretch:
    """A stretch with ten rows a second."""
    plain = Stretch(since, since + active_s, active_s, round(10 * active_s), 0, 0, 50, 1, 4.0, 8.0, 0.0, None)
    return replace(plain, **changes)


def test_slices_of_equal_time_hold_what_the_stretches_hold() -> None:
    """Rows are spread over the slices by time, so that rate times width adds up to the rows; means stay means."""
    pace = Pace([stretch(0, 1.0), stretch(1, 0.5, completed=40), stretch(1.5, 3.0, in_flight=1.0)])
    for most in (1, 2, 3, 100):
        slices = pace.slices(most)
        assert len(slices) == min(most, 3)
        width = pace.active_s / len(slices)
        assert sum(part.completed for part in slices) * width == pytest.approx(10 + 40 + 30)
        assert sum(part.in_flight for part in slices) * width == pytest.approx(1.5 * 4 + 3.0)
        assert all(part.limit == pytest.approx(8.0) for part in slices)
        assert slices[-1].end_s == pytest.approx(4.5)
    assert (pace.rows, pace.retries, pace.active_s) == (80, 3, 4.5)


def test_rests_are_left_out_and_marked() -> None:
    """A run resumed after an hour goes on where it stopped, at the seconds of work before."""
    pace = Pace([stretch(0, 2.0), stretch(2, 3.0), stretch(3605, 1.0), stretch(9000, 1.0)])
    assert pace.restarts() == [5.0, 6.0]
    assert pace.slices(10)[-1].end_s == 7.0


def test_reasons_for_waiting_are_added_up() -> None:
    """Reasons that differ in how long or how many are one reason."""
    pace = Pace(
        [
            stretch(0, 1.0, waiting_s=1.0, why="rate limited by the server, next request in 12 s"),
            stretch(1, 1.0, waiting_s=0.5, why="rate limited by the server, next request in 1 min 2 s"),
            stretch(2, 1.0, waiting_s=1.0, why="held to 30 requests at once by the server's rate limit (429)"),
            stretch(3, 1.0, waiting_s=1.0, why="held to 9 requests at once by the server's rate limit (429)"),
            stretch(4, 1.0, waiting_s=0.7, why="HTTP 503 since 20 s, next probe in 3 s"),
            stretch(5, 1.0, waiting_s=0.0, why="nothing"),
            stretch(6, 1.0),
        ]
    )
    assert pace.waits() == [
        ("held to fewer requests at once by the server's rate limit (429)", 2.0),
        ("rate limited by the server", 1.5),
        ("HTTP 503", 0.7),
    ]


def test_no_record() -> None:
    """A run without a record, or with one of no length, has no slices."""
    assert Pace([]).slices(10) == []
    assert Pace([stretch(0, 0.0)]).slices(10) == []
    assert Pace([]).restarts() == []


# -- configuration


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The plan of an input of three rows."""
    write_numbers(tmp_path, 3)
    return make_plan(make_job(tmp_path), find_files([tmp_path / "rows.jsonl"]))


def secretive(folder: Path) -> Job:
    """A job full of what should not be seen."""
    endpoint = {
        "base_url": "https://api.example.com/v1",
        "api_key_env": "SOME_KEY",
        "headers": {"X-Team": "wombat-1", "X-Api-Key": "wombat-2"},
        "proxy": "http://wombat-3:wombat-4@proxy.example:3128",
    }
    extra = {
        "api_key": "wombat-5",
        "nested": {"client_secret": "wombat-6", "list": [{"password": "wombat-7"}], "open": "seen"},
        "free": "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789",
    }
    return make_job(folder, endpoint=endpoint, parameters={"temperature": 0.5, "extra": extra})


@pytest.mark.parametrize("with_job", [True, False])
def test_no_secret_is_in_a_configuration(tmp_path: Path, plan: Plan, with_job: bool) -> None:
    """Header values, a proxy's user, values named like secrets or that look like keys, and folders are hidden."""
    job = secretive(tmp_path)
    shown = dict(settings(job.identity(), plan, job if with_job else None))
    everything = repr(shown)
    assert "wombat" not in everything
    assert "sk-proj-abc" not in everything
    assert str(tmp_path) not in everything
    assert shown["parameters.temperature"] == "0.5"
    assert shown["parameters.extra.nested.open"] == "seen"
    assert shown["input.path"] == "rows.jsonl"
    if with_job:
        assert shown["endpoint.headers.X-Team"] == HIDDEN
        assert shown["endpoint.proxy"] == "http://proxy.example:3128"
        assert shown["endpoint.api_key_env"] == "SOME_KEY"
        assert shown["limits.concurrency"] == "256"


def test_what_the_run_was_made_with_wins(tmp_path: Path, plan: Plan) -> None:
    """A job file that was changed since does not change what the report says about the run."""
    before = make_job(tmp_path, parameters={"temperature": 0.1}).identity()
    shown = dict(settings(before, plan, make_job(tmp_path, model="other", parameters={"top_p": 1.0})))
    assert (shown["model"], shown["parameters.temperature"]) == ("some-model", "0.1")
    assert "parameters.top_p" not in shown


def test_the_prompts_of_a_configuration(tmp_path: Path) -> None:
    """Templates are shown apart, those that are there."""
    assert prompts(make_job(tmp_path).identity()) == [("prompt", "{{ text }}")]
    both = make_job(tmp_path, system_prompt="Be kind.").identity()
    assert [key for key, _ in prompts(both)] == ["system_prompt", "prompt"]
