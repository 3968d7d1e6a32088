"""A run that nobody watches: the crontab line of the README, in cron's environment and in stranger ones.

The line is read from the README, its paths are replaced by those of the test, and `/bin/sh` runs it as cron would.
"""

from __future__ import annotations

import platform
import re
import shlex
import shutil
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.harness import BATCHER, check_output, digest, table, write_job, write_rows, write_script
from tests.recording_server import Answer, Request, completion, recording
from tests.simulator_client import wait_until

README = (Path(__file__).parents[2] / "README.md").read_text()
#: the command part of the README's crontab line
(LINE,) = re.findall(r"^\d+ \d+ \* \* \*  (.*batcher run .*)$", README, re.MULTILINE)
PROGRAM, JOB = "/srv/batcher/.venv/bin/batcher", "/srv/batcher/jobs/tickets.yaml"
#: what cron gives a command on Debian; the home folder is one that nobody can write in
CRON = {"SHELL": "/bin/sh", "PATH": "/usr/bin:/bin", "LOGNAME": "nobody", "HOME": "/proc"}


def command(job: Path | str, more: str = "") -> str:
    """The crontab line for this installation and job; `more` is put behind it."""
    assert LINE.count(PROGRAM) == LINE.count(JOB) == 1
    return f"{LINE.replace(PROGRAM, shlex.quote(BATCHER)).replace(JOB, shlex.quote(str(job)))} {more}"


def cron(command: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command as cron does: with a shell, from /, no terminal, nothing to read."""
    options = {"cwd": "/", "stdin": subprocess.DEVNULL, "capture_output": True, "text": True, **options}
    env = CRON if env is None else env
    return subprocess.run(
        ["/bin/sh", "-c", command], env=env, start_new_session=True, timeout=60, check=False, **options
    )


def texts_of(folder: Path, count: int = 60) -> list[str]:
    """The rows of a job in `folder`."""
    return write_rows(folder / "rows.jsonl", (f"row {n}" for n in range(count)))


def check_silent(end: subprocess.CompletedProcess[str]) -> None:
    """Assert that a run succeeded and gave cron nothing to mail."""
    assert (end.returncode, end.stdout, end.stderr) == (0, "", "")


def test_the_line_needs_nothing_that_a_crontab_lacks() -> None:
    """It holds no percent sign, which cron turns into a line break, and only paths in full."""
    assert "%" not in LINE
    assert all(word.startswith(("/", "-")) or word == "run" for word in shlex.split(LINE))


@pytest.mark.parametrize("env", [CRON, {}], ids=["cron", "nothing"])
def test_the_line_works_as_printed(tmp_path: Path, env: dict[str, str]) -> None:
    """In cron's environment, and in none at all, the line does its work and prints nothing; again, it does nothing."""
    texts = texts_of(tmp_path)
    job = write_job(tmp_path, "simulator")
    check_silent(cron(command(job), env))
    check_output(tmp_path / "out", texts)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}
    check_silent(cron(command(job), env))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")} == made


def test_every_stream_closed_or_a_file(tmp_path: Path) -> None:
    """Without standard streams a run does its work; with a log file, that stays empty where all is well."""
    texts = texts_of(tmp_path)
    job = write_job(tmp_path, "simulator")
    check_silent(cron(command(job, "<&- >&- 2>&-"), {}))
    check_output(tmp_path / "out", texts)
    log = tmp_path / "log"
    check_silent(cron(command(job, f"--set output.path=again >>{shlex.quote(str(log))} 2>&1 <&-")))
    check_output(tmp_path / "again", texts)
    assert log.read_bytes() == b""


def test_a_working_directory_that_was_deleted(tmp_path: Path) -> None:
    """A run does not need the folder it was started in, for its work or for its report."""
    texts = texts_of(tmp_path)
    job = write_job(tmp_path, "simulator")
    gone = tmp_path / "gone"
    gone.mkdir()
    talkative = command(job).replace(" -q", "")
    end = cron(f"rmdir {shlex.quote(str(gone))} && exec {talkative}", {}, cwd=gone)
    assert end.returncode == 0, end.stderr
    assert str(tmp_path / "out") in end.stdout
    assert "internal error" not in end.stderr
    check_output(tmp_path / "out", texts)


def test_trouble_is_told_in_a_line(tmp_path: Path) -> None:
    """With -q a run speaks when something is wrong: which rows failed, what is missing, what to do."""
    texts_of(tmp_path)
    script = write_script(
        tmp_path / "script.yaml", {"row": 7, "answers": [{"status": 400, "code": "odd"}], "forever": True}
    )
    job = write_job(tmp_path, "simulator")
    end = cron(command(job, f"--set 'endpoint.simulator={{script: {script}}}'"))
    assert (end.returncode, end.stdout) == (3, "")
    (line,) = end.stderr.splitlines()
    assert line.startswith(f"batcher: 1 of 60 rows failed; see {tmp_path}/out, or ask them again: ")
    assert f"run {job} --retry-failed" in line
    end = cron(command(tmp_path / "no.yaml"))
    assert (end.returncode, end.stdout) == (78, "")
    assert len(end.stderr.splitlines()) == 1


def test_the_second_run_while_the_first_works(tmp_path: Path) -> None:
    """It ends at once with 75, says whose the folder is since when and where, and sends nothing."""
    texts = texts_of(tmp_path, 20)
    release = threading.Event()

    def hold(request: Request) -> Answer:
        release.wait(60)
        return completion(id=f"chatcmpl-{digest(request.prompt)}")

    with recording(hold) as server:
        job = write_job(tmp_path, server.base_url, limits={"concurrency": 4})
        begun = datetime.now(UTC)
        first = subprocess.Popen(["/bin/sh", "-c", f"exec {command(job)}"], env=CRON, cwd="/")
        wait_until(lambda: server.requests)
        second = cron(command(job))
        still_works = first.poll() is None
        release.set()
        assert first.wait(60) == 0
    assert still_works
    assert (second.returncode, second.stdout) == (75, "")
    told = re.search(r"pid (\d+) on (\S+) since (\S+?)\)", second.stderr)
    assert told, second.stderr
    assert (int(told[1]), told[2]) == (first.pid, platform.node())
    assert abs(datetime.fromisoformat(told[3]) - begun) < timedelta(minutes=5)
    assert sorted(request.prompt for request in server.requests) == sorted(texts)
    check_output(tmp_path / "out", texts)


def test_a_locale_without_letters(tmp_path: Path) -> None:
    """With LC_ALL=POSIX, or an encoding that is none, names and prompts of all scripts come through."""
    folder = tmp_path / "Aufträge 日本"
    folder.mkdir()
    texts = write_rows(folder / "zeilen-ä.jsonl", ["Grüße", "日本語", "👩‍🚀", "שלום"])
    job = write_job(
        folder, "simulator", input={"path": "zeilen-ä.jsonl"}, system_prompt="Übersetze", output={"path": "aus-ß"}
    )
    for env in ({"LC_ALL": "POSIX"}, {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"}):
        end = cron(command(job).replace(" -q", ""), env)
        assert end.returncode == 0, end.stderr
        assert "4 completed" in end.stdout
        check_output(folder / "aus-ß", texts)
    assert "aus-\\xdf" in end.stdout


def test_nothing_is_written_in_the_home_folder(tmp_path: Path) -> None:
    """A run leaves nothing at home and nothing where it was started; an odd time zone changes no time."""
    texts = texts_of(tmp_path, 5)
    job = write_job(tmp_path, "simulator")
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    before = datetime.now(UTC)
    env = {**CRON, "HOME": str(tmp_path / "home"), "TZ": "Mars/Phobos-25:99"}
    check_silent(cron(command(job), env, cwd=tmp_path / "here"))
    assert not [*(tmp_path / "home").rglob("*"), *(tmp_path / "here").rglob("*")]
    assert {path.name for path in tmp_path.iterdir()} == {"home", "here", "out", "job.yaml", "rows.jsonl"}
    rows = check_output(tmp_path / "out", texts)
    assert all(before <= moment <= datetime.now(UTC) for moment in rows["requested_at"].to_pylist())
    summary = orjson.loads((tmp_path / "out" / ".batcher" / "summary.json").read_bytes())
    assert datetime.fromisoformat(summary["updated_at"]) >= before


def test_a_job_named_in_any_way_is_one_job(tmp_path: Path) -> None:
    """By its full path, from its own folder and from above, a job has the same input and the same output folder."""
    (tmp_path / "jobs").mkdir()
    texts = texts_of(tmp_path / "jobs", 5)
    job = write_job(tmp_path / "jobs", "simulator", output={"path": "../out"})
    check_silent(cron(command("job.yaml"), cwd=tmp_path / "jobs"))
    made = (tmp_path / "out" / "part-00000.parquet").stat().st_ino
    for name, folder in ((job, "/"), ("./jobs/../jobs/job.yaml", tmp_path)):
        check_silent(cron(command(name), cwd=folder))
        assert (tmp_path / "out" / "part-00000.parquet").stat().st_ino == made
    check_output(tmp_path / "out", texts)
    assert table(tmp_path / "out").num_rows == 5


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_units_are_what_systemd_understands(tmp_path: Path) -> None:
    """The service and the timer of the README pass systemd's own check, with the paths of this installation."""
    (block,) = re.findall(r"^```ini\n(# /etc/systemd.*?)^```", README, re.MULTILINE | re.DOTALL)
    units = re.split(r"^# /etc/systemd/system/(\S+)\n", block, flags=re.MULTILINE)[1:]
    paths = []
    for name, text in zip(units[::2], units[1::2], strict=True):
        paths.append(tmp_path / name)
        user = text.replace("User=batcher", "User=root")
        paths[-1].write_text(user.replace(PROGRAM, BATCHER).replace(JOB, str(tmp_path / "job.yaml")))
    assert [path.suffix for path in paths] == [".service", ".timer"]
    end = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, paths)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    own = [line for line in end.stderr.splitlines() if "tickets." in line]
    assert (end.returncode, own) == (0, []), end.stderr
