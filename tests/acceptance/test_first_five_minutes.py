"""The first five minutes of somebody who reads nothing but what is printed: a shell and an empty folder."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import duckdb
import pytest

from tests.harness import BATCHER, parts, table
from tests.recording_server import completion, recording


class Shell:
    """A user's shell: the program is on the PATH, and what was exported stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._env = {"PATH": f"{Path(BATCHER).parent}:/usr/bin:/bin", "HOME": str(folder)}

    def __call__(self, line: str, code: int = 0) -> str:
        """Type a line; return what appears, standard error after standard output."""
        end = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self._env, capture_output=True, text=True, timeout=90
        )
        assert end.returncode == code, f"$ {line}\n{end.stdout}{end.stderr}"
        assert "Traceback" not in end.stderr
        return end.stdout + end.stderr

    def export(self, name: str, value: str) -> None:
        """Set a variable for the following lines."""
        self._env[name] = value


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell in a fresh folder whose name has a space and a quote."""
    folder = tmp_path / "it's my folder"
    folder.mkdir()
    return Shell(folder)


def next_lines(printed: str) -> list[str]:
    """The commands after `next:`, to be typed as they stand."""
    _, _, after = printed.partition("next: ")
    return [line.strip() for line in after.splitlines() if line.strip()]


def test_from_help_to_answers(shell: Shell) -> None:
    """Only following what is printed, five commands lead from `--help` to a query of the answers."""
    assert re.search(r"\binit\b.*job file", shell("batcher --help"))
    check, run = next_lines(shell("batcher init"))
    assert (check, run) == ("batcher check job.yaml", "batcher run job.yaml")

    checked = shell(check)
    assert {line.split()[0] for line in checked.splitlines()} <= {"ok", "warn", "next:"}
    assert "The parcel came two days early" in checked, "a request is shown before anything is sent"
    assert next_lines(checked) == [run]

    assert "5 rows: 5 completed, 0 failed" in shell(run)
    rows = table(shell.folder / "out" / "job").to_pylist()
    assert all(isinstance(json.loads(row["completion"]), dict) for row in rows)
    assert len(parts(shell.folder / "out" / "job")) == 1

    again = shell(run)
    query = next(line for line in again.splitlines() if line.startswith("query:"))
    sql = shlex.split(query)[3].replace("'out/", f"'{str(shell.folder).replace(chr(39), chr(39) * 2)}/out/")
    assert len(duckdb.sql(sql).fetchall()) == 5
    assert "finished" in shell("batcher status job.yaml")


def test_a_mistake_in_the_file(shell: Shell) -> None:
    """A wrong key is shown with file, line, column and what was meant; put right, the job runs."""
    shell("batcher init")
    shell("sed -i 's/concurrency: 64/concurency: 64/; s/temperature: 0.2/temperature: hot/' job.yaml")
    text = (shell.folder / "job.yaml").read_text().splitlines()
    line = next(number for number, words in enumerate(text, 1) if "concurency" in words)
    for command in ("check", "run"):
        said = shell(f"batcher {command} job.yaml", code=78)
        assert f"job.yaml:{line}:3: limits.concurency: unknown key; did you mean 'concurrency'?" in said
        assert re.search(r"job\.yaml:\d+:3: parameters\.temperature: expected a number", said)
    shell("sed -i 's/concurency/concurrency/; s/temperature: hot/temperature: 0.2/' job.yaml")
    shell("batcher run job.yaml")

    shell("sed -i 's/{{ text }}/{{ txet }}/' job.yaml")
    assert "did you mean 'text'?" in shell("batcher check job.yaml", code=78)


def test_from_the_simulator_to_an_api(shell: Shell) -> None:
    """The lines that the job file names are all that has to change; the key is asked for by name and never shown."""
    shell("batcher init")
    shell("batcher run job.yaml -q")
    job = shell.folder / "job.yaml"
    with recording(lambda request: completion('{"label": "praise"}')) as recorder:
        text = (
            job.read_text()
            .replace("  base_url: simulator\n", "")
            .replace("https://api.deepseek.com", recorder.base_url)
        )
        job.write_text(text.replace("  #   base_url", "  base_url").replace("  #   api_key_env", "  api_key_env"))
        said = shell("batcher check job.yaml", code=78)
        assert "FAIL  key" in said
        assert "export DEEPSEEK_API_KEY=" in said
        shell.export("DEEPSEEK_API_KEY", "sk-canary-key-5b1f0c")
        said = shell("batcher check job.yaml", code=78)
        assert "use a new output.path" in said
        job.write_text(job.read_text().replace("path: out/job", "path: out/real"))
        said = shell("batcher check job.yaml")
        assert "canary" not in said + shell(*next_lines(said))
    answers = table(shell.folder / "out" / "real")["completion"].to_pylist()
    assert answers == ['{"label": "praise"}'] * 5


def test_with_data_of_ones_own(shell: Shell) -> None:
    """A file of the user's own, in another folder, is turned into a job; a second init destroys nothing."""
    (shell.folder / "data").mkdir()
    rows = [{"question": "why?", "nr": 1}, {"question": "how?", "nr": 2}]
    (shell.folder / "data" / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = shell("batcher init data/q.jsonl")
    assert "2 rows" in said
    assert "{{ question }}" in (shell.folder / "job.yaml").read_text()
    for line in next_lines(said):
        shell(line)
    before = (shell.folder / "job.yaml").read_bytes()
    offered = shell("batcher init data/q.jsonl", code=2).split("go on with: ")[1]
    assert (shell.folder / "job.yaml").read_bytes() == before
    shell(offered)
    answered = table(shell.folder / "out" / "job").select(["question", "nr", "status"]).to_pylist()
    assert answered == [{**row, "status": "completed"} for row in rows]
