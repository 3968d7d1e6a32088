"""Hostile job files: bombs, tags that build objects, templates that look for a way out, URLs that lead elsewhere.

What one line of YAML may hold is tested in tests/unit/test_jobfile.py and test_job.py; here whole files are refused
as a user meets them: in words, without a traceback, without the memory they ask for.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import orjson
import pytest

from batcher.errors import JobError
from batcher.job import load_job
from batcher.prompt import PromptError
from tests.fakes import builder_of, make_job
from tests.harness import BARE, batcher, write_job, write_rows
from tests.recording_server import completion, recording
from tests.security.limited import limited

ROOT = Path(__file__).parents[2]
PRODUCT = sorted((ROOT / "batcher").rglob("*.py"))
GOOD = (
    "version: 1\nmodel: m\nendpoint: {base_url: simulator}\ninput: {path: rows.jsonl}\nprompt: x\noutput: {path: out}\n"
)

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
#: (name of the hostile file, what is added to a good one, a word of the refusal)
FILES = [
    ("alias bomb", BOMB, "anchors and aliases"),
    ("self reference", "extra: &a [*a]\n", "anchors and aliases"),
    ("anchor without alias", "name: &a x\n", "anchors and aliases"),
    ("merge key", "limits: {<<: {concurrency: 5}}\n", "merge keys"),
    ("20,000 brackets", "name: " + "[" * 20_000 + "\n", "32 levels"),
    ("20,000 braces", "name: " + "{a: " * 20_000 + "\n", "32 levels"),
    ("20,000 dashes", "name:\n  " + "- " * 20_000 + "x\n", "32 levels"),
    ("too large", "# " + "x" * (1 << 20) + "\n", "1 MiB"),
    ("a call", "name: !!python/object/apply:os.system ['touch hacked']\n", "!!python/object/apply:os.system"),
    ("an object", "name: !!python/object/new:subprocess.Popen [['touch', 'hacked']]\n", "!!python/object/new"),
    ("a module", "name: !!python/module:os\n", "!!python/module:os"),
    ("a tag of nobody", "name: !include /etc/passwd\n", "!include"),
    ("a key twice", "model: n\n", "duplicate key"),
    ("a nested key twice", "limits: {concurrency: 5, concurrency: 6}\n", "duplicate key"),
    ("norway", "name: no\n", "read as false"),
    ("octal", "limits: {concurrency: 0123}\n", "leading zeros"),
    ("base sixty", "limits: {concurrency: 12:30:45}\n", "colons"),
    ("trailing zero", "name: 1.10\n", "quote it"),
]


@pytest.mark.parametrize("text, word", [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_row_1_to_4_hostile_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, word: str) -> None:
    """Bombs, depth, size, tags, duplicates and YAML's guesses are problems with a place, and nothing is executed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(GOOD + text)
    with pytest.raises(JobError) as refused:
        load_job("job.yaml")
    assert any(word in problem for problem in refused.value.problems), refused.value.problems
    assert {path.name for path in tmp_path.iterdir()} == {"job.yaml"}


def test_row_2_a_file_that_is_all_brackets_ends_with_a_message(tmp_path: Path) -> None:
    """Hostile nesting is exit 78 in one line, within a gigabyte, not a traceback and not a dead process."""
    (tmp_path / "job.yaml").write_text("[" * 500_000 + "{" * 500_000)
    end = batcher("run", str(tmp_path / "job.yaml"), preexec_fn=limited(1 << 30))
    assert end.returncode == 78, end.stderr
    assert len(end.stderr.splitlines()) == 1
    assert "32 levels" in end.stderr


def test_row_3_nothing_but_the_safe_loader_is_used() -> None:
    """No file of the product calls a loader that builds objects, and the linter's rule against it is on."""
    attributes = {
        f"{node.value.id}.{node.attr}"
        for path in PRODUCT
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "yaml"
    }
    assert "yaml.SafeLoader" in attributes
    assert not {name for name in attributes if "oad" in name and "safe" not in name.lower()}
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in rules["select"]
    assert "S506" not in rules["ignore"]


ESCAPES = [
    "{{ text.__class__ }}",
    "{{ text.__class__.__mro__[1].__subclasses__() }}",
    "{{ text['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ rows.__class__ }}",
    "{{ rows.sort.__self__ }}",
    "{{ values.__init__.__globals__ }}",
    "{{ values.get.__self__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends '/etc/passwd' %}",
    "{{ self }}",
    "{{ lipsum.__globals__ }}",
    "{{ '{0.__class__}'.format(text) }}",
    "{{ '{0.__class__}'|format(text) }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_row_5_no_template_reaches_python_or_a_file(tmp_path: Path, template: str) -> None:
    """What leads out of Jinja's sandbox elsewhere is an error here, or text without a trace of Python."""
    try:
        builder = builder_of(make_job(tmp_path, prompt=template))
        body = builder.build({"text": "a", "rows": [1, 2], "values": {"a": 1}}).body
    except (JobError, PromptError):
        return
    assert not [word for word in (b"class '", b"<built-in", b"root:", b"<module", b"object at") if word in body]


BOMBS = [
    "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
    "{% for a in rows %}{% for b in rows %}{% for c in rows %}x{% endfor %}{% endfor %}{% endfor %}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ text * 10000000000 }}",
    "{{ text|indent(10000000000) }}",
    "{{ '%10000000000s'|format(text) }}",
    "{% set n = namespace(s=text) %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "{% set a = text * 100000 %}{% for i in range(100000) %}{{ a }}{% endfor %}",
    "{{ [1] * 10000000000 }}",
]
#: renders each bomb and prints how it ended
RENDER = """
import sys
from pathlib import Path
from batcher.prompt import PromptError
from tests.fakes import builder_of, make_job
for template in sys.argv[1:]:
    builder = builder_of(make_job(Path("/"), prompt=template))
    try:
        builder.build({"text": "abcdefghij", "rows": list(range(2000))})
        print("rendered")
    except PromptError:
        print("refused")
"""


def test_row_5_a_template_that_runs_away_is_stopped() -> None:
    """Loops, recursion and doubling text end as a row's problem, within two gigabytes of address space."""
    end = subprocess.run(
        [sys.executable, "-c", RENDER, *BOMBS],
        cwd=ROOT, env=BARE, preexec_fn=limited(2 << 30), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert end.stdout.split() == ["refused"] * len(BOMBS), end.stderr[-500:]


def test_row_7_no_row_decides_where_its_request_goes(tmp_path: Path) -> None:
    """URL, headers and key are the job's: what a row says of them, in any shape of rows, changes nothing."""
    aims = {
        "base_url": "http://169.254.169.254", "endpoint": {"base_url": "http://169.254.169.254"}, "method": "GET",
        "headers": {"Authorization": "Bearer row"}, "api_key": "row", "proxy": "http://169.254.169.254",
    }  # fmt: skip
    url = "http://169.254.169.254/v1/chat/completions"
    messages = [{"role": "user", "content": "a"}]
    rows = [{"prompt": "a", **aims}, {"messages": messages, **aims}]
    rows.append({"custom_id": "1", "url": url, "body": {"messages": messages}, **aims})
    (tmp_path / "rows.jsonl").write_bytes(b"".join(map(as_line, rows)))
    with recording(lambda request: completion()) as server:
        job = write_job(tmp_path, "", endpoint={"base_url": server.base_url, "api_key_env": "K"}, prompt=None)
        end = batcher("run", str(job), "-q", env={**BARE, "K": "the-key-of-the-job"})
    assert end.returncode == 0, end.stderr
    assert {request.path for request in server.requests} == {"/v1/chat/completions"}
    assert {request.headers["host"] for request in server.requests} == {server.base_url.split("/")[2]}
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer the-key-of-the-job"}
    assert len(server.requests) == 3


def as_line(row: object) -> bytes:
    """A row as a line of JSON."""
    return orjson.dumps(row) + b"\n"


def test_row_23_no_key_of_a_job_turns_verification_off(tmp_path: Path) -> None:
    """Neither the words of other tools nor `extra` make a connection less secure: the job is refused."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    for word in ("verify", "verify_ssl", "insecure", "ssl", "tls", "skip_tls_verify"):
        (tmp_path / "job.yaml").write_text(GOOD.replace("simulator}", f"simulator, {word}: false}}"))
        with pytest.raises(JobError, match="unknown key"):
            load_job(tmp_path / "job.yaml")
