"""`batcher init` and `batcher schema`: what is written, what is printed, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import yaml
from jsonschema import Draft202012Validator

from batcher.cli.jobschema import job_schema
from tests.harness import BARE, BATCHER, batcher, parts, table

SAMPLES = Path(__file__).parents[2] / "sample_data"


def init(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `batcher init` in a folder and return how it ended."""
    end = batcher("init", *arguments, cwd=folder)
    assert end.returncode == code, end.stdout + end.stderr
    assert "Traceback" not in end.stderr
    return end


def follow(printed: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Paste a printed command line into a shell."""
    return subprocess.run(printed, shell=True, cwd=folder, env=BARE, capture_output=True, text=True, timeout=90)


def hints(end: subprocess.CompletedProcess[str]) -> list[str]:
    """The command lines under `next:`."""
    lines = end.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("next:"))
    return [line.removeprefix("next:").strip() for line in lines[start:]]


def files_of(folder: Path) -> set[str]:
    """The names of what is in a folder."""
    return {path.name for path in folder.iterdir()}


def test_without_data(tmp_path: Path) -> None:
    """A job, rows to start with and the schema for editors are written; the printed commands work as they stand."""
    end = init(tmp_path)
    assert files_of(tmp_path) == {"job.yaml", "prompts.jsonl", "job.schema.json"}
    assert end.stdout.splitlines()[0] == "created job.yaml, prompts.jsonl, job.schema.json"
    first, second = hints(end)
    comment = re.findall(r"^#     batcher (.*?)  ", (tmp_path / "job.yaml").read_text(), re.MULTILINE)
    assert comment == ["check job.yaml", "run job.yaml --dry-run", "run job.yaml"]
    for hint in (first, f"{first} --offline", f"{shlex.quote(BATCHER)} {comment[1]}", second):
        assert follow(hint, tmp_path).returncode == 0, hint
    rows = table(tmp_path / "out" / "job").to_pylist()
    assert len(rows) == 5
    for row in rows:
        assert row["status"] == "completed"
        assert isinstance(json.loads(row["completion"]), dict)


@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.iterdir()))
def test_with_every_sample_of_the_repository(tmp_path: Path, sample: str) -> None:
    """Whatever shape the rows have, the job checks and runs as it was written, and every row is completed."""
    end = init(tmp_path, str(SAMPLES / sample))
    count = re.search(r"^input: +.*: (\d+) rows$", end.stdout, re.MULTILINE)
    assert count is not None
    for hint in hints(end):
        assert follow(hint, tmp_path).returncode == 0, hint
    statuses = table(tmp_path / "out" / "job")["status"].to_pylist()
    assert statuses == ["completed"] * int(count[1])


def test_the_job_fits_its_schema(tmp_path: Path) -> None:
    """The schema beside a job is the one that `batcher schema` prints, and has nothing against the job."""
    init(tmp_path)
    schema = json.loads((tmp_path / "job.schema.json").read_bytes())
    assert schema == json.loads(batcher("schema").stdout) == job_schema()
    text = (tmp_path / "job.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=./job.schema.json\n")
    assert not list(Draft202012Validator(schema).iter_errors(yaml.safe_load(text)))


def test_from_another_folder_with_spaces_and_quotes(tmp_path: Path) -> None:
    """Data and job may lie elsewhere, in folders of any name: the printed commands and the paths in the job hold."""
    data, jobs, here = (tmp_path / name for name in ("my data's", "a b/my jobs $HOME", "here"))
    for folder in (data, jobs, here):
        folder.mkdir(parents=True)
    shutil.copy(SAMPLES / "tickets.parquet", data / "tickets (1).parquet")
    end = init(here, "../my data's/tickets (1).parquet", "--job", str(jobs / "my job.yaml"))
    for hint in hints(end):
        assert follow(hint, here).returncode == 0, hint
    assert len(parts(jobs / "out" / "my job")) == 1
    assert files_of(here) == set()
    assert yaml.safe_load((jobs / "my job.yaml").read_text())["input"]["path"].startswith("../../my data's/")
    assert batcher("run", "my job.yaml", cwd=jobs).returncode == 0


def test_a_whole_folder_of_data(tmp_path: Path) -> None:
    """A folder is asked file by file; its answers land beside it, where they are not read as rows the next time."""
    data = tmp_path / "data"
    data.mkdir()
    for number in (1, 2):
        shutil.copy(SAMPLES / "tickets.parquet", data / f"{number}.parquet")
    end = init(data, ".")
    assert "352 rows in 2 files" in end.stdout
    for _ in range(2):
        assert follow(hints(end)[1], data).returncode == 0
    assert len(table(tmp_path / "data-out" / "job")) == 352


def test_several_files(tmp_path: Path) -> None:
    """What the shell makes of a glob is taken as it comes."""
    for number in (1, 2):
        (tmp_path / f"{number}.jsonl").write_text('{"text": "a"}\n')
    end = init(tmp_path, "1.jsonl", "2.jsonl")
    assert yaml.safe_load((tmp_path / "job.yaml").read_text())["input"]["path"] == ["1.jsonl", "2.jsonl"]
    assert follow(hints(end)[1], tmp_path).returncode == 0


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A file that is there stays as it is, exit 2, and the command that is offered instead works."""
    init(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments in ((), ("--job", "other.yaml"), ("prompts.jsonl",)):
        end = init(tmp_path, *arguments, code=2)
        (line,) = end.stderr.splitlines()
        assert "stays as it is" in line
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        offered = follow(line.split("go on with: ")[1], tmp_path)
        assert offered.returncode == 0, offered.stderr
        (created,) = files_of(tmp_path) - before.keys()
        (tmp_path / created).unlink()


def test_a_link_that_leads_nowhere_is_not_followed(tmp_path: Path) -> None:
    """A job file is not written through a link, also not through a broken one."""
    (tmp_path / "job.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    init(tmp_path, code=2)
    assert files_of(tmp_path) == {"job.yaml"}


def test_a_second_job_has_another_output(tmp_path: Path) -> None:
    """Two jobs of one folder do not meet in one output folder."""
    init(tmp_path)
    end = init(tmp_path, "prompts.jsonl", "--job", "second.yaml")
    assert end.stdout.splitlines()[0] == "created second.yaml"
    outputs = {yaml.safe_load((tmp_path / name).read_text())["output"]["path"] for name in ("job.yaml", "second.yaml")}
    assert outputs == {"out/job", "out/second"}


def test_a_schema_of_another_version_is_kept_and_named(tmp_path: Path) -> None:
    """The schema beside the job may be older; it is said how to renew it, and that works."""
    (tmp_path / "job.schema.json").write_text("{}")
    end = init(tmp_path)
    assert (tmp_path / "job.schema.json").read_text() == "{}"
    (note,) = [line for line in end.stdout.splitlines() if line.startswith("note:")]
    assert follow(note.split("to renew it: ")[1], tmp_path).returncode == 0
    assert json.loads((tmp_path / "job.schema.json").read_bytes()) == job_schema()


def refused(folder: Path, code: int, *needles: str, arguments: tuple[str, ...]) -> list[str]:
    """Assert that nothing is written, and return the lines that say why."""
    before = files_of(folder)
    end = init(folder, *arguments, code=code)
    assert end.stdout == ""
    assert files_of(folder) == before
    for needle in needles:
        assert needle in end.stderr, end.stderr
    return end.stderr.splitlines()


def test_no_such_file(tmp_path: Path) -> None:
    """A file that is not there is named, with one that may have been meant, exit 65."""
    (tmp_path / "tickets.jsonl").write_text('{"text": "a"}\n')
    refused(tmp_path, 65, "ticket.jsonl cannot be read", "did you mean 'tickets.jsonl'?", arguments=("ticket.jsonl",))
    assert len(refused(tmp_path, 65, "zzz", arguments=("zzz",))) == 1
    assert len(refused(tmp_path, 65, "no/such.jsonl", arguments=("no/such.jsonl",))) == 1


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file(tmp_path: Path, content: str) -> None:
    """There is no job for no rows."""
    (tmp_path / "rows.jsonl").write_text(content)
    assert len(refused(tmp_path, 65, "rows.jsonl is empty", arguments=("rows.jsonl",))) == 1


def test_a_file_without_json(tmp_path: Path) -> None:
    """Lines that are no JSON are shown by place, not by content."""
    (tmp_path / "rows.jsonl").write_text("dear diary\nsecond line\n")
    lines = refused(tmp_path, 65, "rows.jsonl:1: not valid JSON", arguments=("rows.jsonl",))
    assert "diary" not in lines[0]


def test_an_unknown_kind_of_file(tmp_path: Path) -> None:
    """The kinds that are known are named."""
    (tmp_path / "rows.xlsx").write_text("x")
    assert len(refused(tmp_path, 65, "unknown suffix", ".jsonl", ".parquet", arguments=("rows.xlsx",))) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("my rows.csv", "id,text\n1,hello\n2,\"a, b\"\n"),
        ("my rows.tsv", "id\ttext\n1\thello\n2\ta, b\n"),
        ("my rows.json", '[{"id": 1, "text": "hello"}, {"id": 2, "text": "a, b"}]'),
    ],
)  # fmt: skip
def test_a_file_that_can_be_converted(tmp_path: Path, name: str, content: str) -> None:
    """Of tables as text and JSON lists there is a command that makes a file of them that is read; it works."""
    (tmp_path / name).write_text(content)
    line = refused(tmp_path, 65, "unknown suffix", arguments=(name,))[1]
    end = follow(line.split("file of it: ")[1], tmp_path)
    assert end.returncode == 0, end.stderr
    assert follow(hints(end)[1], tmp_path).returncode == 0
    assert table(tmp_path / "out" / "job").select(["id", "text"]).to_pylist() == [
        {"id": 1, "text": "hello"},
        {"id": 2, "text": "a, b"},
    ]


def test_a_job_name_in_the_place_of_data(tmp_path: Path) -> None:
    """Who names the job where data belong is told how it is done."""
    (tmp_path / "old.yaml").write_text("x: 1\n")
    lines = refused(tmp_path, 65, "--job", arguments=("old.yaml",))
    assert shlex.split(lines[1].split("named so: ")[1])[1:] == ["init", "--job", "old.yaml"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """The job's folder has to exist; the command that makes it works."""
    (line,) = refused(tmp_path, 74, arguments=("--job", "my jobs/job.yaml"))
    assert follow(line.split("first: ")[1], tmp_path).returncode == 0
    init(tmp_path, "--job", "my jobs/job.yaml")
    (line,) = refused(tmp_path, 74, "is a folder", arguments=("--job", "my jobs"))


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    """A folder that takes no files, not even root's, is named, exit 74."""
    assert len(refused(tmp_path, 74, "cannot be written", arguments=("--job", "/sys/job.yaml"))) == 1


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """When the disk does not take a file, those written before it are taken back, exit 74."""
    script = f"ulimit -f 1; trap '' XFSZ; exec {shlex.quote(BATCHER)} init"
    end = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=BARE, capture_output=True, text=True, timeout=60)
    assert end.returncode == 74, end.stderr
    assert "job.schema.json cannot be written: File too large; nothing was written" in end.stderr
    assert files_of(tmp_path) == set()


def test_a_name_that_looks_like_a_key(tmp_path: Path) -> None:
    """A job file refuses what looks like a key, so that a file of such a name needs another one."""
    (tmp_path / "sk-0123456789abcdef.jsonl").write_text('{"text": "a"}\n')
    refused(tmp_path, 65, "looks like an API key", arguments=("sk-0123456789abcdef.jsonl",))


def test_rows_that_differ_are_warned_of(tmp_path: Path) -> None:
    """Rows that cannot be read or have another shape than most are counted before they cost anything."""
    lines = ['{"prompt": "a"}'] * 3 + ['{"text": "b"}', "{"]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    said = init(tmp_path, "rows.jsonl").stdout
    assert "of the first 5 rows, 1 are of another shape" in said
    assert "of the first 5 rows, 1 cannot be read, such as rows.jsonl:5: not valid JSON" in said


def test_answers_of_an_earlier_run_are_noticed(tmp_path: Path) -> None:
    """Who names a run folder as data probably did not mean to."""
    init(tmp_path)
    assert batcher("run", "job.yaml", "-q", cwd=tmp_path).returncode == 0
    said = init(tmp_path, "out", "--job", "again.yaml").stdout
    assert "1 of the files are the answers of an earlier run" in said
    assert follow(f"{hints(init(tmp_path, 'out', '--job', 'third.yaml'))[1]}", tmp_path).returncode == 0


def test_parquet_is_looked_at_too(tmp_path: Path) -> None:
    """The columns of a Parquet file are shown with what is in them."""
    (tmp_path / "rows.csv").write_text("id,text\n1,hello\n")
    pq.write_table(pa_csv.read_csv(tmp_path / "rows.csv"), tmp_path / "rows.parquet")
    assert "columns: id (whole number), text (text)\n" in init(tmp_path, "rows.parquet").stdout
