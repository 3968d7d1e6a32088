"""The Tab key: a real bash completes commands, options and file names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.harness import BATCHER

#: what Tab does: look up what completes the command, call it, and show what it found
PRESS_TAB = """
words=("$@"); COMP_WORDS=("${words[@]}"); COMP_CWORD=$((${#words[@]} - 1)); COMP_LINE="${words[*]}"
spec=$(complete -p batcher); function=${spec##*-F }; function=${function%% *}
"$function" batcher "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
[[ ${#COMPREPLY[@]} -gt 0 && -n "${COMPREPLY[0]}" ]] || echo "options: $spec"
"""


def bash(home: Path, script: str, *words: str) -> str:
    """Run a script in bash and return what it prints; bash stays there for it, and does not become its last command."""
    env = {"PATH": f"{Path(BATCHER).parent}:/usr/bin:/bin", "HOME": str(home)}
    end = subprocess.run(
        ["bash", "-ec", f"{script}\n:", "bash", *words], env=env, cwd=home, capture_output=True, text=True, timeout=60
    )
    assert end.returncode == 0, end.stderr
    return end.stdout


def tab(home: Path, *words: str) -> list[str]:
    """What bash offers after these words, in a shell that has read its .bashrc."""
    return bash(home, f'source "$HOME/.bashrc"\n{PRESS_TAB}', *words).splitlines()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home of a user who has switched completion on, as the README says."""
    bash(tmp_path, "batcher --install-completion")
    assert (tmp_path / ".bashrc").exists()
    return tmp_path


def test_it_completes_in_a_real_bash(home: Path) -> None:
    """Commands and options are offered; where a file is wanted, bash is left to offer files."""
    assert tab(home, "batcher", "ch") == ["check"]
    assert set(tab(home, "batcher", "")) >= {"run", "check", "init", "schema", "status", "models", "simulator"}
    assert tab(home, "batcher", "check", "job.yaml", "--off") == ["--offline"]
    assert set(tab(home, "batcher", "run", "--")) >= {"--set", "--quiet", "--json"}
    offered = tab(home, "batcher", "run", "jo")
    assert "-o default" in offered[-1], "nothing of our own, so that bash completes file names"


def test_the_script_can_be_shown() -> None:
    """Who keeps completions elsewhere gets the script on standard output."""
    shown = bash(Path("/"), "batcher --show-completion")
    assert "complete -o default -F" in shown
