"""Where a run writes, who may read it, and what cannot be smuggled in: links, decoys among the modules, metadata."""

from __future__ import annotations

import os
import platform
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.durable import create, replace_file
from batcher.errors import LockedError, StorageError
from batcher.rundir import RunDir
from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.fakes import begun, good, make_job, work, write_numbers
from tests.harness import BARE, BATCHER, batcher, check_output, parts, start, write_job, write_rows
from tests.simulator_client import counts, wait_until

#: a file of somebody's that must stay as it is
MINE = b"mine"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file that a link leads to, checked to be untouched."""
    path = tmp_path / "elsewhere" / "victim"
    path.parent.mkdir()
    path.write_bytes(MINE)
    yield path
    assert path.read_bytes() == MINE
    assert [found.name for found in path.parent.iterdir()] == ["victim"]


def test_row_6_no_link_is_followed_for_a_new_file(tmp_path: Path, victim: Path) -> None:
    """A link that lies where a file is to be made is replaced; what it points to stays as it was."""
    link = tmp_path / "link"
    for _ in range(2):  # in place of a link, then of a file
        with create(link) as file:
            file.write(b"ours")
        assert link.read_bytes() == b"ours"
        assert not link.is_symlink()
    (tmp_path / ".state.new").symlink_to(victim)
    replace_file(tmp_path / "state", b"ours")
    assert (tmp_path / "state").read_bytes() == b"ours"


def test_row_6_a_link_in_place_of_the_folder_for_temporaries_is_refused(tmp_path: Path, victim: Path) -> None:
    """What lies behind `.batcher/tmp` is emptied at each start, so it has to be a folder of ours."""
    write_numbers(tmp_path, 3)
    job = make_job(tmp_path)
    (tmp_path / "out" / ".batcher").mkdir(parents=True)
    (tmp_path / "out" / ".batcher" / "tmp").symlink_to(victim.parent)
    with pytest.raises(StorageError), begun(job):
        pass


@pytest.mark.parametrize("exists", [True, False])
def test_row_6_a_link_in_place_of_a_part_is_never_written_through(tmp_path: Path, victim: Path, exists: bool) -> None:
    """A finished part takes no name that is taken, be it by a link that leads nowhere; the answers are kept."""
    write_numbers(tmp_path, 8)
    with begun(make_job(tmp_path)) as run:
        target = victim if exists else victim.with_name("new")
        (tmp_path / "out" / "part-00001.parquet").symlink_to(target)
        assert isinstance(work(run, lambda row, attempt: good()), StorageError)
        assert len(run.rundir.journal.outcomes(5, 8)) == 3


def test_row_6_one_folder_has_one_lock_whatever_it_is_called(tmp_path: Path) -> None:
    """An output folder of one's own may be a link; a run that names it otherwise meets the same lock."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with RunDir.open(tmp_path / "out"), pytest.raises(LockedError):
        RunDir.open(tmp_path / "disk")


def test_row_6_a_link_in_place_of_the_lock_is_refused(tmp_path: Path) -> None:
    """A lock that is a link, laid in a folder that others can write in, must not empty the file behind it."""
    (tmp_path / "victim").write_bytes(MINE)
    (tmp_path / "out" / ".batcher").mkdir(parents=True)
    (tmp_path / "out" / ".batcher" / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError):
        RunDir.open(tmp_path / "out").close()
    assert (tmp_path / "victim").read_bytes() == MINE


@pytest.mark.parametrize("planted", ["link", "open to all"])
def test_row_6_a_state_folder_that_others_control_is_refused(tmp_path: Path, planted: str) -> None:
    """The state of a run holds prompts and decides what is done: it is a folder, and its owner alone writes in it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "theirs").mkdir()
    state = tmp_path / "out" / ".batcher"
    if planted == "link":
        state.symlink_to(tmp_path / "theirs")
    else:
        state.mkdir()
        state.chmod(0o777)
    with pytest.raises(StorageError):
        RunDir.open(tmp_path / "out").close()
    assert not list((tmp_path / "theirs").iterdir())


def test_row_19_what_a_run_writes_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask, parts and state cannot be read by anybody else, while the run works and after it."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(120)))
    with start_simulator(SimulatorOptions(latency_s=0.02)) as simulator:
        job = write_job(tmp_path, simulator.base_url, output={"path": "new/out", "rows_per_part": 20})
        process = start("run", str(job), "-q", umask=0)
        wait_until(lambda: counts(simulator)["answered"] >= 60)
        under_way = open_to_others(tmp_path / "new")
        _, trouble = process.communicate(timeout=60)
    assert process.returncode == 0, trouble
    assert under_way == open_to_others(tmp_path / "new") == set()
    check_output(tmp_path / "new" / "out", texts)


def open_to_others(folder: Path) -> set[str]:
    """What below a folder, and it itself, has permissions for anybody but its owner."""
    found = set()
    for path in [folder, *folder.rglob("*")]:
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:  # a temporary file that has just been renamed
            continue
        if stat.S_IMODE(mode) & 0o077:
            found.add(f"{path} {stat.S_IMODE(mode):o}")
    return found


def test_row_19_an_output_folder_that_others_can_write_in_is_reported(tmp_path: Path) -> None:
    """At the start it is said who else could put a part there and how to end that; a private folder is no news."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    job = write_job(tmp_path, "simulator")
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    first = batcher("run", str(job))
    (tmp_path / "out").chmod(0o755)
    second = batcher("run", str(job))
    assert first.returncode == second.returncode == 0
    (warning,) = [line for line in first.stderr.splitlines() if "chmod go-w" in line]
    assert f"{tmp_path}/out (mode 777)" in warning
    assert "chmod" not in second.stderr


DECOYS = (
    "json",
    "ssl",
    "asyncio",
    "sqlite3",
    "pathlib",
    "yaml",
    "orjson",
    "pyarrow",
    "typer",
    "anyio",
    "tqdm",
    "secrets",
)


@pytest.mark.parametrize("command", [[BATCHER], [sys.executable, "-m", "batcher"]], ids=["script", "module"])
def test_row_20_no_module_among_the_rows_is_run(tmp_path: Path, command: list[str]) -> None:
    """Files called like modules, beside the job and in the current folder, are not imported, nor by the simulator."""
    for name in DECOYS:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'hacked')!r}, 'w'); raise SystemExit('hacked')")
    write_rows(tmp_path / "rows.jsonl", ["a"])
    write_job(tmp_path, "simulator")
    end = subprocess.run(
        [*command, "run", "job.yaml", "-q"],
        cwd=tmp_path, env=BARE, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (end.returncode, end.stdout, end.stderr) == (0, "", "")
    assert not (tmp_path / "hacked").exists()


def test_row_22_a_part_tells_nothing_of_where_it_was_made(tmp_path: Path) -> None:
    """No host, user, folder, URL or name of the key is in a part's bytes, nor what a Parquet input had of them."""
    table = pa.table({"text": ["a", "b"]}).replace_schema_metadata({"pandas": "made in /home/canary-user"})
    pq.write_table(table, tmp_path / "canary-input.parquet")
    with start_simulator(SimulatorOptions(latency_s=0)) as simulator:
        endpoint = {"base_url": simulator.base_url, "api_key_env": "CANARY_KEY_NAME"}
        job = write_job(tmp_path, "", endpoint=endpoint, input={"path": "canary-input.parquet"}, name="canary-job")
        end = batcher("run", str(job), "-q", env={**BARE, "CANARY_KEY_NAME": "canary-key"})
    assert end.returncode == 0, end.stderr
    (part,) = parts(tmp_path / "out")
    told = [str(tmp_path), simulator.base_url, "127.0.0.1", platform.node(), "canary", "CANARY"]
    told.append(f"/home/{pwd.getpwuid(os.getuid()).pw_name}")
    data = part.read_bytes()
    assert not [word for word in told if len(word) > 5 and word.encode() in data]  # shorter: by chance
    metadata = pq.read_metadata(part).metadata
    assert {key.decode() for key in metadata if key != b"ARROW:schema"} == {
        "batcher.version", "batcher.fingerprint", "batcher.shard", "batcher.rows", "batcher.totals",
        "batcher.revision",
    }  # fmt: skip
    assert orjson.loads(metadata[b"batcher.totals"])["completed"] == 2
    schema = pq.read_schema(part)
    assert not [field.name for field in schema if field.metadata]
