"""Rules of `--set` overrides, environment variables and literal keys in a job file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from batcher.config.document import Document
from batcher.config.yamlfile import read
from batcher.job.values import apply_overrides, interpolate, refuse_literal_keys


def loaded(
    folder: Path, text: str, *, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Document:
    """A document after everything that may change its values."""
    path = folder / "x.yaml"
    path.write_text(text)
    document = read(path, "x.yaml")
    apply_overrides(document, overrides)
    refuse_literal_keys(document)
    interpolate(document, environ or {})
    return document


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("limits.concurrency=500", {"limits": {"concurrency": 500, "max_attempts": 6}}),
        ("limits.max_attempts=null", {"limits": {"concurrency": 1, "max_attempts": None}}),
        ("limits={concurrency: 2}", {"limits": {"concurrency": 2}}),
        ("output.path=a=b", {"limits": {"concurrency": 1, "max_attempts": 6}, "output": {"path": "a=b"}}),
        ("input.path=[a, b]", {"limits": {"concurrency": 1, "max_attempts": 6}, "input": {"path": ["a", "b"]}}),
    ],
)
def test_override_replaces_or_adds_a_key(tmp_path: Path, override: str, values: dict[str, Any]) -> None:
    """The value is YAML, and sections that are not there yet are made."""
    document = loaded(tmp_path, "limits: {concurrency: 1, max_attempts: 6}\n", overrides=[override])
    assert document.values == values
    assert document.problems() == []


def test_section_that_is_empty_in_the_file_can_be_filled_by_an_override(tmp_path: Path) -> None:
    """`limits:` without keys below is a section, not a value."""
    assert loaded(tmp_path, "limits:\n", overrides=["limits.a=1"]).values == {"limits": {"a": 1}}


def test_later_override_wins(tmp_path: Path) -> None:
    """Overrides are applied in their order."""
    assert loaded(tmp_path, "a: 1\n", overrides=["a=2", "a=3"]).values == {"a": 3}


def test_problem_of_an_override_names_the_override(tmp_path: Path) -> None:
    """The place of a value that came by `--set` is the override, without lines; its own key is not said twice."""
    document = loaded(tmp_path, "limits: {concurrency: 1}\n", overrides=["limits.concurrency=x", "engine={kind: y}"])
    document.report(("limits", "concurrency"), "wrong")
    document.report(("engine", "kind"), "wrong")
    assert document.problems() == [
        "--set limits.concurrency=x: wrong",
        "--set engine=***: engine.kind: wrong",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("limits.concurrency", "--set limits.concurrency: write KEY=VALUE, such as limits.concurrency=500"),
        ("=5", "--set : write KEY=VALUE, such as limits.concurrency=500"),
        ("limits..a=5", "--set limits..a: write KEY=VALUE, such as limits.concurrency=500"),
        ("name.first=5", "--set name.first=5: name is text, so it has no keys"),
        ("a=[1", "--set a=[1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a=&x 1", "--set a=&x 1: not valid YAML: anchors and aliases are not allowed"),
        ("a={b: 1, b: 2}", "--set a=***: a.b: duplicate key"),
        ("prompt=x: y: z", "--set prompt=***: not valid YAML: mapping values are not allowed here"),
    ],
)
def test_override_that_cannot_be_applied_is_refused(tmp_path: Path, override: str, problem: str) -> None:
    """A malformed override is a problem of its own and changes nothing else."""
    document = loaded(tmp_path, "name: x\n", overrides=[override])
    assert document.problems() == [problem]
    assert document.values["name"] == "x"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a${X}b", "a1b"),
        ("${X}${Y}", "12"),
        ("${MISSING:-d e}", "d e"),
        ("${MISSING:-}", ""),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY}", ""),
        ("$$", "$"),
        ("$${X}", "${X}"),
        ("$$$${X}", "$${X}"),
        ("costs 5$", "costs 5$"),
        ("$X stays", "$X stays"),
        ("${BRACES}", "a: {b}"),
    ],
)
def test_variables_are_replaced_in_text(tmp_path: Path, text: str, value: str) -> None:
    """`${X}`, `${X:-default}` and `$$` follow Compose; what a variable holds is never read as YAML."""
    environ = {"X": "1", "Y": "2", "EMPTY": "", "BRACES": "a: {b}"}
    document = loaded(tmp_path, f"a: ['{text}']\n", environ=environ)
    assert document.values == {"a": [value]}
    assert document.problems() == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${MISSING}", "the environment variable MISSING is not set"),
        ("${X", "write ${NAME} or ${NAME:-default}, and $$ for a dollar sign before a brace"),
        ("${X:?needed}", "write ${NAME} or ${NAME:-default}, and $$ for a dollar sign before a brace"),
        ("${A:-${X}}", "write ${NAME} or ${NAME:-default}, and $$ for a dollar sign before a brace"),
        ("${1}", "write ${NAME} or ${NAME:-default}, and $$ for a dollar sign before a brace"),
        ("${LINES}", "the environment variable LINES holds a line break or another character that is not text"),
        ("${BYTES}", "the environment variable BYTES holds a line break or another character that is not text"),
    ],
)
def test_variable_that_cannot_be_replaced_is_a_problem_at_its_place(tmp_path: Path, text: str, problem: str) -> None:
    """A variable that is not set is never taken for an empty one, and no message shows what a variable holds."""
    environ = {"X": "secret", "LINES": "secret\nsecret", "BYTES": "secret\udcff"}
    document = loaded(tmp_path, f"a:\n  b: '{text}'\n", environ=environ)
    assert document.problems() == [f"x.yaml:2:3: a.b: {problem}"]


def test_prompts_are_left_as_they_are_written(tmp_path: Path) -> None:
    """Dollar signs in the text for the model are the user's own."""
    text = "prompt: costs $5, $$ and ${NOTHING}\nsystem_prompt: ${NOTHING}\n"
    document = loaded(tmp_path, text)
    assert document.values == {"prompt": "costs $5, $$ and ${NOTHING}", "system_prompt": "${NOTHING}"}
    assert document.problems() == []


def test_variables_of_an_override_are_replaced_too(tmp_path: Path) -> None:
    """An override in single quotes reads like a line of the file."""
    assert loaded(tmp_path, "a: 1\n", overrides=["a=${X}"], environ={"X": "y"}).values == {"a": "y"}


@pytest.mark.parametrize(
    "line",
    [
        "endpoint: {api_key_env: sk-abcdefghijklmnop}",
        "endpoint: {api_key_env: 0123456789abcdef0123456789abcdef}",
        "endpoint: {headers: {api-key: abcdefgh}}",
        "endpoint: {headers: {X-Other: sk-abcdefghijklmnop}}",
        "endpoint: {proxy: 'http://me:abcdefgh@proxy:3128'}",
        "parameters: {extra: {user: sk-abcdefghijklmnop}}",
        "name: sk-abcdefghijklmnop",
    ],
)
def test_key_or_password_in_the_file_is_refused_without_showing_it(tmp_path: Path, line: str) -> None:
    """Whatever looks like a secret is a problem, in a file and in an override, and no message repeats it."""
    key, _, value = line.partition(": ")
    for document in (loaded(tmp_path, line + "\n"), loaded(tmp_path, "a: 1\n", overrides=[f"{key}={value}"])):
        (problem,) = document.problems()
        assert "key" in problem or "password" in problem
        assert "abcdef" not in problem


def test_secrets_from_variables_are_accepted(tmp_path: Path) -> None:
    """The way to give a header or a proxy its secret is a variable."""
    text = (
        "endpoint: {headers: {api-key: '${K}'}, proxy: 'http://me:${K}@proxy:1', api_key_env: MY_TEAM_2_DEEPSEEK_KEY}"
    )
    assert loaded(tmp_path, text, environ={"K": "sk-abcdefghijklmnop"}).problems() == []


@pytest.mark.parametrize(
    "override",
    [
        "endpoint.base_url=abc",
        "endpoint.headers.x=abc",
        "endpoint={proxy: abc}",
        "token=abc",
        "prompt=abc",
        "a={b: abc}",
    ],
)
def test_private_values_of_overrides_are_not_shown(tmp_path: Path, override: str) -> None:
    """A message about an override shows neither text for the model nor what may be a secret."""
    document = loaded(tmp_path, "a: 1\n", overrides=[override])
    key = override.partition("=")[0]
    document.report(tuple(key.split(".")), "wrong")
    assert document.problems() == [f"--set {key}=***: wrong"]
