"""The run folder: whose it is, what it refuses, and what it makes of a crash."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from batcher import rundir as rundir_module
from batcher.durable import crc32_of
from batcher.errors import InputError, JobError, LockedError, ResumeError, StorageError
from batcher.job import Job
from batcher.journal import Batch, Part
from batcher.journal.rescue import Rescue
from batcher.manifest import planned
from batcher.plan import make_plan
from batcher.records import Totals
from batcher.rundir import RunDir
from batcher.source import find_files
from tests.fakes import ScriptedClient, begun, good, make_job, outcome, work, write_numbers


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job over twelve rows in three shards."""
    write_numbers(tmp_path, 12)
    return make_job(tmp_path)


def finish(job: Job) -> None:
    """Run the job to its end."""
    with begun(job) as run:
        assert work(run, lambda number, attempt: good()) is None


def part(tmp_path: Path, number: int) -> Path:
    return tmp_path / f"out/part-{number:05d}.parquet"


def test_a_new_folder(tmp_path: Path, job: Job) -> None:
    """It is made with its parents; everything but the parts is in one private folder without a Parquet name."""
    job = make_job(tmp_path, output={"path": "some/new/out", "rows_per_part": 5})
    finish(job)
    out = tmp_path / "some/new/out"
    assert sorted(path.name for path in out.iterdir()) == [".batcher", *(f"part-0000{n}.parquet" for n in range(3))]
    assert stat.S_IMODE((out / ".batcher").stat().st_mode) == 0o700
    assert not list((out / ".batcher").rglob("*.parquet"))
    assert list((out / ".batcher/tmp").iterdir()) == []


LOCKING = """
import sys
from pathlib import Path
from batcher.rundir import RunDir
with RunDir.open(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_another_process_works_on_it(tmp_path: Path) -> None:
    """The error names that process; when it has died, however it did, the folder is free."""
    other = subprocess.Popen(
        [sys.executable, "-c", LOCKING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(LockedError, match=rf"\(pid {other.pid} on .* since 20.*\); nothing was sent"):
            RunDir.open(tmp_path)
        other.kill()
    with RunDir.open(tmp_path):
        assert (tmp_path / ".batcher/lock").read_text().startswith(f"pid {os.getpid()} ")


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_does_not_begin(tmp_path: Path, there: bool) -> None:
    """It leaves nothing behind: no folder that it made, and nothing in one that was there."""
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
    with RunDir.open(folder):
        assert (folder / ".batcher" / "lock").exists()
    assert folder.exists() is there
    assert not (folder / ".batcher").exists()


def test_a_lock_that_is_withdrawn_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opened the file of a run that withdrew it locks the one that is in place then."""
    real, withdrawn = fcntl.flock, []

    def flock(descriptor: int, how: int) -> None:
        if not withdrawn:
            withdrawn.append(True)
            (tmp_path / ".batcher" / "lock").unlink()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with RunDir.open(tmp_path), pytest.raises(LockedError):
        RunDir.open(tmp_path)


def test_the_same_job_again(job: Job) -> None:
    """What determines no result may change: limits, timeouts, the run just goes on."""
    finish(job)
    folder = job.path.parent
    again = make_job(folder, limits={"concurrency": 3}, endpoint={**BASE, "timeouts": {"total_s": 5.0}})
    with begun(again) as run:
        assert run.rundir.unfinished(run.plan) == []
        report = run.rundir.report(run.plan)
    assert (report.complete, report.parts, report.totals.completed, report.rows) == (True, 3, 12, 12)


BASE: dict[str, Any] = {"base_url": "http://localhost:9"}


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"parameters": {"temperature": 0.7}}, ["parameters.temperature was 0.2, is 0.7"]),
        ({"parameters": {}}, ["parameters.temperature was 0.2, is null"]),
        ({"model": "other-model"}, ['model was "some-model", is "other-model"']),
        ({"endpoint": {**BASE, "request_format": "form"}}, ['endpoint.request_format was "messages", is "form"']),
        ({"output": {"path": "out", "rows_per_part": 5, "columns": []}}, ['output.columns was "all", is []']),
        ({"output": {"path": "out", "rows_per_part": 6}}, ["output.rows_per_part was 5, is 6", "the input changed"]),
        (
            {"model": "m", "parameters": {"temperature": 1}},
            ['model was "some-model", is "m"', "parameters.temperature was 0.2, is 1"],
        ),
    ],
)
def test_a_changed_job(tmp_path: Path, changes: dict[str, Any], expected: list[str]) -> None:
    """It is refused with every key that changed, and both values."""
    write_numbers(tmp_path, 12)
    with begun(make_job(tmp_path, parameters={"temperature": 0.2})):
        pass
    changed = make_job(tmp_path, **{"parameters": {"temperature": 0.2}} | changes)
    with pytest.raises(ResumeError) as refused, begun(changed):
        pass
    assert f": {'; '.join(expected)}. Undo the change" in str(refused.value)


def test_a_changed_prompt(tmp_path: Path, job: Job) -> None:
    """Of a long value only the key is named: a prompt belongs in no log."""
    with begun(job):
        pass
    with pytest.raises(ResumeError) as refused, begun(make_job(tmp_path, prompt="{{ text }}" + "secret" * 20)):
        pass
    assert "prompt changed" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_changed_input(tmp_path: Path, job: Job) -> None:
    """Other rows are another run."""
    with begun(job):
        pass
    write_numbers(tmp_path, 12, "changed")
    with pytest.raises(ResumeError, match="the input changed"), begun(job):
        pass


def test_columns_that_cannot_be_written(tmp_path: Path) -> None:
    """Missing and colliding columns are refused before the folder holds a run."""
    (tmp_path / "rows.jsonl").write_bytes(b'{"text":"0","status":"x"}\n')
    with pytest.raises(JobError, match="'status'"), begun(make_job(tmp_path)):
        pass
    with (
        pytest.raises(InputError, match="no column 'nope'; it has text, status"),
        begun(make_job(tmp_path, output={"path": "out", "columns": ["nope"]})),
    ):
        pass
    assert planned(tmp_path / "out") is None
    finish(make_job(tmp_path, output={"path": "out", "columns": ["text"]}))
    assert pq.read_schema(part(tmp_path, 0)).names[:3] == ["text", "row_index", "status"]


def unnoted(job: Job, number: int) -> None:
    """Leave a part that is in place and not noted, with its rows still in the journal."""
    finish(job)
    db = sqlite3.connect(job.output.path / ".batcher/journal-0.sqlite")
    with db:
        db.execute("DELETE FROM parts WHERE shard = ?", (number,))
    db.close()


def test_a_part_in_place_that_was_not_noted(tmp_path: Path, job: Job, caplog: pytest.LogCaptureFixture) -> None:
    """It is adopted with its totals, and not asked again."""
    unnoted(job, 1)
    caplog.set_level(logging.INFO, "batcher")
    with begun(job) as run:
        assert run.rundir.unfinished(run.plan) == []
        assert run.rundir.totals().completed == 12
    assert "adopted part-00001.parquet" in caplog.text


@pytest.mark.parametrize("source", ["part-00000.parquet", None], ids=["another shard's", "torn"])
def test_a_wrong_file_in_place_of_a_part(tmp_path: Path, job: Job, source: str | None) -> None:
    """What is not this shard's part is refused, and left as it is."""
    unnoted(job, 1)
    wrong = (tmp_path / "out" / source).read_bytes() if source else part(tmp_path, 1).read_bytes()[:-9]
    part(tmp_path, 1).write_bytes(wrong)
    with pytest.raises(StorageError, match=r"part-00001\.parquet"), begun(job):
        pass
    assert part(tmp_path, 1).read_bytes() == wrong


def test_a_finished_part_is_gone(tmp_path: Path, job: Job) -> None:
    """The run stops instead of paying again; with the part back in place it goes on."""
    finish(job)
    content = part(tmp_path, 2).read_bytes()
    part(tmp_path, 2).unlink()
    with pytest.raises(StorageError, match=r"part-00002\.parquet is missing.*Put it back"), begun(job):
        pass
    part(tmp_path, 2).write_bytes(content[:-1])
    with pytest.raises(StorageError, match=r"part-00002\.parquet is changed"), begun(job):
        pass
    part(tmp_path, 2).write_bytes(content)
    finish(job)


def test_a_bit_of_a_finished_part_flips(tmp_path: Path, job: Job) -> None:
    """Its size is right and its time of change new: it is read again, and refused like a missing one."""
    finish(job)
    content = part(tmp_path, 1).read_bytes()
    for at in (10, len(content) // 2, len(content) - 20):
        part(tmp_path, 1).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(StorageError, match=r"part-00001\.parquet is changed.*not asked again silently"), begun(job):
            pass
    part(tmp_path, 1).write_bytes(content)
    finish(job)


def test_finished_parts_are_not_read_every_time(tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one that something touched is, once: a copy that is as good is remembered as such."""
    finish(job)
    part(tmp_path, 1).touch()
    reads: list[str] = []

    def note(path: Path) -> int:
        reads.append(path.name)
        return crc32_of(path)

    monkeypatch.setattr(rundir_module, "crc32_of", note)
    finish(job)
    finish(job)
    assert reads == ["part-00001.parquet"]


def test_answers_that_an_earlier_run_saved_elsewhere(
    tmp_path: Path, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    """They are taken over before anything is counted, and not asked again; of published shards nothing stays."""
    with begun(job) as run:
        run.rundir.journal.lease([1, 7, 8])
        fingerprint = run.rundir.form.fingerprint
    rescue = Rescue(tmp_path / "out/.batcher", fingerprint)
    rescue.save(Batch(outcomes=[outcome(1), outcome(7)]))
    rescue.close()
    caplog.set_level(logging.INFO, "batcher")
    with begun(job) as run:
        assert f"took over 2 answers that an earlier run saved in {rescue.files[0]}" in caplog.text
        assert run.rundir.orphaned == 1
        assert run.rundir.totals().completed == 2
        assert work(run, client := ScriptedClient(lambda number, attempt: good())) is None
    assert set(client.sent) == set(range(12)) - {1, 7}
    late = Rescue(tmp_path / "out/.batcher", fingerprint)
    late.save(Batch(outcomes=[outcome(1, completion_tokens=99)]))
    late.close()
    with begun(job) as run:
        assert run.rundir.journal.outcomes(0, 12) == []
        assert run.rundir.totals().completed == 12


def test_how_long_to_wait_for_room_is_the_jobs(tmp_path: Path, job: Job) -> None:
    """`limits.max_full_disk_s` reaches the journal."""
    with begun(make_job(tmp_path, limits={"max_full_disk_s": 7.5})) as run:
        assert run.rundir.journal._room._max_full_s == 7.5


def test_rows_of_a_published_shard_are_left_over(tmp_path: Path, job: Job) -> None:
    """What a crash left of them in the journal is forgotten and counted nowhere."""
    finish(job)
    with begun(job) as run:
        for row in range(5):
            run.rundir.journal.record(outcome(row))
        run.rundir.journal.lease([5])
    with begun(job) as run:
        assert run.rundir.journal.outcomes(0, 12) == []
        assert run.rundir.journal.attempts() == {}
        assert run.rundir.totals() == Totals(12, 0, 0, 36, 60, unpriced=12)


def test_leftovers_of_a_crash(tmp_path: Path, job: Job) -> None:
    """Temporary files are removed, rows on their way are counted."""
    with begun(job) as run:
        (run.rundir.tmp / "shard-00000.part").write_bytes(b"half")
        run.rundir.journal.lease([3, 4])
    with begun(job) as run:
        assert list(run.rundir.tmp.iterdir()) == []
        assert run.rundir.orphaned == 2
        assert [shard.number for shard in run.rundir.unfinished(run.plan)] == [0, 1, 2]


def test_publishing(tmp_path: Path, job: Job) -> None:
    """A part that is in place is noted with its size, and only its own rows are forgotten."""
    with begun(job) as run:
        for row in range(12):
            run.rundir.journal.record(outcome(row))
        (run.rundir.tmp / "t").write_bytes(b"part")
        run.rundir.publish(run.plan.shards[1], run.rundir.tmp / "t", Totals(completed=5))
        modified_ns = part(tmp_path, 1).stat().st_mtime_ns
        assert run.rundir.journal.parts() == {1: Part(1, 4, Totals(completed=5), zlib.crc32(b"part"), modified_ns)}
        assert [one.row_index for one in run.rundir.journal.outcomes(0, 12)] == [0, 1, 2, 3, 4, 10, 11]
        assert [shard.number for shard in run.rundir.unfinished(run.plan)] == [0, 2]
        assert run.rundir.totals().completed == 12


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The error names it."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file/out cannot be written: Not a directory"):
        RunDir.open(tmp_path / "file/out")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"format": 4}', b'{"format": 1, "job": {}}'])
def test_a_manifest_that_is_not_ours(tmp_path: Path, job: Job, content: bytes) -> None:
    """It is refused in words, and the folder is free afterwards."""
    with begun(job):
        pass
    (tmp_path / "out/.batcher/manifest.json").write_bytes(content)
    with pytest.raises((StorageError, ResumeError)), begun(job):
        pass
    (tmp_path / "out/.batcher/manifest.json").unlink()
    RunDir.open(tmp_path / "out").close()


def test_the_plan_is_kept(tmp_path: Path, job: Job) -> None:
    """It can be read back without locking, and there is none where there is no run."""
    assert planned(tmp_path / "out") is None
    assert not (tmp_path / "out").exists()
    with begun(job) as run:
        kept = planned(tmp_path / "out")
    assert kept is not None
    assert kept.to_json() == run.plan.to_json() == make_plan(job, find_files(job.input.path)).to_json()


def test_the_summary(tmp_path: Path, job: Job, caplog: pytest.LogCaptureFixture) -> None:
    """It is replaced as a whole; that it cannot be written is logged and stops nothing."""
    path = tmp_path / "out/.batcher/summary.json"
    with begun(job) as run:
        run.rundir.write_summary({"state": "running"})
        run.rundir.write_summary({"state": "finished"})
        summary = orjson.loads(path.read_bytes())
        assert (summary["state"], summary["pid"]) == ("finished", os.getpid())
        path.unlink()
        path.mkdir()
        run.rundir.write_summary({"state": "late"})
    assert "summary.json could not be written" in caplog.text


def test_too_early(tmp_path: Path) -> None:
    """Asking for what `begin` sets up is a mistake of ours and says so."""
    with RunDir.open(tmp_path / "out") as rundir, pytest.raises(RuntimeError, match="has not begun"):
        _ = rundir.journal
