"""The README: short, and nothing in it that is not there or has another value.

What it leaves out is in `batcher help`, which `test_help` holds to be complete.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from batcher.cli.help.reference import keys
from batcher.errors import EXIT_CODES
from batcher.job import load_job
from batcher.part import RESULT
from tests.mentions import code_of, wrong_mentions

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
#: a page that a busy person skims; the rest belongs into batcher/cli/help/*.md
MOST_LINES = 275


def section(name: str) -> str:
    """The text under a heading."""
    return README.split(f"\n## {name}\n")[1].split("\n## ")[0]


def rows_of(text: str) -> list[list[str]]:
    """The cells of a section's tables, without heads."""
    rows = [line.strip().strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows if not set("".join(row)) <= set("- |")]


def test_it_can_be_skimmed() -> None:
    """What has grown too long moves into a topic of `batcher help`."""
    assert len(README.splitlines()) <= MOST_LINES


def test_it_names_only_what_exists() -> None:
    """Every command, flag, topic and key in its code is a real one."""
    assert not wrong_mentions(README)


def test_its_job_loads(tmp_path: Path) -> None:
    """The job file that it shows is accepted as it stands."""
    (text,) = re.findall(r"^```yaml\n(version: 1\n.*?)^```", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "job.yaml").write_text(text)
    job = load_job(tmp_path / "job.yaml", environ={"DEEPSEEK_API_KEY": "x"})
    assert job.limits.concurrency == 500


def test_it_names_every_job_of_the_repository() -> None:
    """Each file in `jobs/` is in the README, and no other."""
    named = {code for code in code_of(section("A job")) if re.fullmatch(r"[a-z_]+\.yaml", code)}
    assert named - {"job.yaml"} == {path.name for path in (ROOT / "jobs").glob("*.yaml")}


def test_its_exit_codes_are_those_of_the_program() -> None:
    """A row of its table says what `batcher help exit-codes` says."""
    for code, meaning, *then in rows_of(section("When it stops"))[1:]:
        exit = EXIT_CODES[int(code)]
        assert (meaning, "".join(then)) == (exit.meaning, exit.then), (
            f"README.md and batcher/errors.py differ on {code}"
        )


def test_its_defaults_are_those_of_the_job() -> None:
    """A row of its table of limits has the default of the job file."""
    facts: dict[str, Any] = {entry.name: entry.facts for entry in keys()}  # type: ignore[union-attr]
    for names, default, _ in rows_of(section("Limits"))[1:]:
        for name in code_of(names):
            found = re.search(r"default (\S+)", facts[name])
            assert default == (found[1] if found else "none"), f"README.md has another default of {name}"


def test_its_columns_are_those_of_a_part() -> None:
    """The columns that it promises are written."""
    promised = re.findall(r"`([a-z_]+)`", section("The output").split("and\nmore")[0].split("and more")[0])
    assert len(promised) > 5
    assert set(promised) - {"completed", "failed"} <= set(RESULT.names)
