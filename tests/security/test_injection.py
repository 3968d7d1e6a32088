"""Names and words from outside, in everything that is shown: no escape sequence, no turned text, no forged line.

`ACTIVE` would clear the screen, set the terminal's title, turn the rest of the line around and begin a line that looks
like batcher's. Every test puts it where a server, a row, a file name or a column name reaches a message.
"""

from __future__ import annotations

import fcntl
import io
import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.cli.bar import Bar, Lines
from batcher.cli.talk import log_to_stderr, problems, say, visible, visible_json, visible_lines
from batcher.errors import InputError, JobError
from batcher.progress import Figures
from tests.harness import batcher, write_job, write_rows
from tests.recording_server import Answer, Request, as_json, completion, recording

FORGED = "batcher: all is well"
ACTIVE = f"\x1b[2J\x1b]0;title\x07\x9b31m\u202eevil\u2066\r\n{FORGED}\u2028{FORGED}\x0b{FORGED}\x85{FORGED}"


def check_shown(*talk: str) -> None:
    """Assert that nothing of `ACTIVE` acts: no control but our line breaks, no direction mark, no line of its own."""
    for text in talk:
        for line in text.split("\n"):
            assert line.isprintable(), ascii(line)
            assert not line.startswith(FORGED)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Grüße, 日本, 👩‍🚀, שלום", "plain, Grüße, 日本, 👩‍🚀, שלום"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\tc\rd\0", "a\\x0ab\\x09c\\x0dd\\x00"),
        ("\x7f\x80\x9b\x9f", "\\x7f\\x80\\x9b\\x9f"),
        ("a\u202eb\u2066c\u200fd\u061c", "a\\u202eb\\u2066c\\u200fd\\u061c"),
        ("a\u2028b\u2029c\u200bd\ufeff", "a\\u2028b\\u2029c\\u200bd\\ufeff"),
        ("\ud800", "\\ud800"),
    ],
)
def test_row_12_what_acts_is_shown_by_its_number(text: str, shown: str) -> None:
    """Controls, direction marks, separators and half characters are spelled out; letters of every script are not."""
    assert visible(text) == shown
    assert visible_lines(f"{text}\n{text}".replace("a\nb", "a b")) == f"{shown}\n{shown}".replace("a\\x0ab", "a b")


def test_row_12_json_for_scripts_stays_the_same_value() -> None:
    """What acts on a terminal is escaped as JSON escapes it, so that a script reads what was there."""
    value = {"path": ACTIVE, ACTIVE: [ACTIVE, 1]}
    text = visible_json(orjson.dumps(value).decode())
    check_shown(text)
    assert orjson.loads(text) == value


def test_row_12_a_message_cannot_begin_a_line() -> None:
    """One problem is one line, whatever it quotes; only a job file's problems are several."""
    assert len(problems(InputError(ACTIVE))) == 1
    assert len(problems(JobError([ACTIVE, "another"]))) == 2
    check_shown(*problems(JobError([ACTIVE])))


def test_row_12_every_way_of_saying_something_is_safe() -> None:
    """The bar, its lines, its notes and what is printed show no control of what they are given."""
    for make in (Bar, Lines):
        stream = io.StringIO()
        watcher = make(stream)
        figures = Figures(total=10, why_waiting=ACTIVE)
        watcher.started(figures)
        watcher.note(ACTIVE)
        watcher.updated(figures)
        watcher.finished(figures)
        talk = stream.getvalue().replace("\r", "\n").replace("\x1b[A", "")  # how tqdm itself moves
        assert "evil" in talk
        for sign in ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\u2028"):
            assert sign not in talk
    stream = io.StringIO()
    say(f"{ACTIVE}".replace("\n", " "), stream)
    check_shown(stream.getvalue())


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is logged by the command's own set-up, which is undone afterwards."""
    stream = io.StringIO()
    root = logging.getLogger()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("sys.unraisablehook", None)
    monkeypatch.setattr("threading.excepthook", None)
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    log_to_stderr(logging.INFO)
    return stream


def test_row_12_a_log_line_is_one_line(log: io.StringIO) -> None:
    """A record is shown in one line, and of an exception in it only the type and our own places."""
    logging.getLogger("batcher.x").info("adopted %s", ACTIVE)
    try:
        sqlite3.connect(":memory:").execute("SELECT 'canary-text")
    except sqlite3.OperationalError:
        logging.getLogger("asyncio").exception("error in %s", "canary-argument")
    check_shown(log.getvalue())
    first, *rest = log.getvalue().splitlines()
    assert "adopted \\x1b" in first
    assert rest[-1].endswith("internal error (OperationalError); please report the lines above")
    assert "canary-argument" not in log.getvalue()


def columns(folder: Path) -> dict[str, Any]:
    """JSON rows with a hostile key, of which the template names another one."""
    (folder / "rows.jsonl").write_bytes(orjson.dumps({"text": "a", ACTIVE: 1}) + b"\n")
    return {"prompt": "{{ txet }}"}


def unsupported(folder: Path) -> dict[str, Any]:
    """A Parquet column with a hostile name and a type that cannot be carried."""
    tensor = pa.fixed_shape_tensor(pa.int32(), [1])
    column = pa.ExtensionArray.from_storage(tensor, pa.array([[1]], tensor.storage_type))
    pq.write_table(pa.table({ACTIVE: column}), folder / "rows.parquet")
    return {"input": {"path": "rows.parquet"}}


def two_types(folder: Path) -> dict[str, Any]:
    """A hostile column that is a number in one file and text in the other."""
    for name, value in (("a", 1), ("b", "x")):
        pq.write_table(pa.table({ACTIVE: [value]}), folder / f"{name}.parquet")
    return {"input": {"path": ["a.parquet", "b.parquet"]}}


def file_name(folder: Path) -> dict[str, Any]:
    """A file in the input folder with a hostile name."""
    (folder / "in").mkdir()
    (folder / "in" / f"{ACTIVE}.jsonl").write_text('{"text": "a"}\n')
    return {"input": {"path": "in"}}


def values_of_the_job(folder: Path) -> dict[str, Any]:
    """Names in the job file itself, which somebody else may have written."""
    write_rows(folder / "rows.jsonl", ["a"])
    return {"name": ACTIVE, "model": ACTIVE, ACTIVE: 1, "output": {"path": ACTIVE, "columns": [ACTIVE]}}


def folders(folder: Path) -> dict[str, Any]:
    """An output folder with a hostile name that holds no run of ours."""
    write_rows(folder / "rows.jsonl", ["a"])
    (folder / ACTIVE / ".batcher").mkdir(parents=True)
    (folder / ACTIVE / ".batcher" / "manifest.json").write_bytes(orjson.dumps({"format": 1, "job": {ACTIVE: ACTIVE}}))
    return {"output": {"path": ACTIVE}}


@pytest.mark.parametrize("prepare", [columns, unsupported, two_types, file_name, values_of_the_job, folders])
def test_row_12_hostile_names_in_errors(tmp_path: Path, prepare: Any) -> None:
    """Whatever is called so, `run` and `check` say what is wrong in whole, visible lines."""
    job = write_job(tmp_path, "simulator", **prepare(tmp_path))
    job.write_text(json.dumps(orjson.loads(job.read_bytes())))  # YAML takes controls as escapes only
    for command in (("run",), ("check", "--offline")):
        end = batcher(command[0], str(job), *command[1:])
        assert end.returncode in (65, 74, 78) or command[0] == "check", end.stderr
        check_shown(end.stdout, end.stderr)
        assert "evil" in end.stdout + end.stderr


def test_row_12_a_hostile_server(tmp_path: Path) -> None:
    """Model names, error codes and messages of a server act neither in `check` nor in a run that stops for them."""
    write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(30)))

    def answer(request: Request) -> Answer:
        if request.body.get("max_tokens") == 16:
            return completion(model=ACTIVE, system_fingerprint=ACTIVE)
        return as_json({"error": {"message": ACTIVE, "code": ACTIVE, "type": ACTIVE}}, 400)

    with recording(answer) as server:
        job = write_job(tmp_path, server.base_url)
        checked = batcher("check", str(job))
        stopped = batcher("run", str(job), "-v")
    assert (checked.returncode, stopped.returncode) == (0, 78)
    assert "served as" in checked.stdout
    assert "a code that is no name" in stopped.stderr
    check_shown(checked.stdout, checked.stderr, stopped.stdout, stopped.stderr)


def test_row_12_a_hostile_run_folder(tmp_path: Path) -> None:
    """`status` of a folder that somebody else filled shows it in visible lines, or says that it is none of ours."""
    state = tmp_path / "out" / ".batcher"
    state.mkdir(parents=True)
    numbers = ("completed", "failed", "total", "in_flight", "waiting", "prompt_tokens", "completion_tokens")
    summary = {**dict.fromkeys((*numbers, "ambiguous"), 1), "pid": 1, "state": ACTIVE}
    summary |= {"why_waiting": ACTIVE, "updated_at": ACTIVE}
    (state / "summary.json").write_bytes(orjson.dumps(summary))
    for options in ((), ("--json",)):
        end = batcher("status", str(tmp_path / "out"), *options)
        assert end.returncode == 0, end.stderr
        check_shown(end.stdout)
        assert "evil" in end.stdout
    for wrong in ([], {}, {**summary, "completed": ACTIVE}, {**summary, "prompt_tokens": ACTIVE}):
        (state / "summary.json").write_bytes(orjson.dumps(wrong))
        end = batcher("status", str(tmp_path / "out"))
        assert end.returncode == 74, end.stderr
        check_shown(end.stderr)


def test_row_12_the_name_of_who_holds_the_lock(tmp_path: Path) -> None:
    """What stands in a lock file, which somebody else may have written, is shown in one line."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    job = write_job(tmp_path, "simulator")
    (tmp_path / "out" / ".batcher").mkdir(parents=True, mode=0o700)
    with (tmp_path / "out" / ".batcher" / "lock").open("wb") as lock:
        lock.write(ACTIVE.encode("utf-8", "replace"))
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        end = batcher("run", str(job))
    assert end.returncode == 75
    check_shown(end.stderr)
    assert "evil" in end.stderr
