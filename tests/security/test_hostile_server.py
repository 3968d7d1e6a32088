"""Hostile answers: JSON made to crash a reader, calls made to be executed, words made to be SQL or a log line.

Every answer here goes the whole way: judged, journalled, written to a part and read back. What single fields become is
tested in tests/unit/test_completion.py and test_lenient_json.py; floods and bombs of HTTP in tests/faults/client.
"""

from __future__ import annotations

import ast
import sqlite3
from pathlib import Path

import orjson
import pytest

from batcher.errors import StorageError
from batcher.records import Reply
from tests.fakes import ScriptedClient, begun, body_of, make_job, work, write_numbers
from tests.harness import table

ROOT = Path(__file__).parents[2]
PRODUCT = sorted((ROOT / "batcher").rglob("*.py"))
HALF = "\\udfff"


def answer(content: str = '"ok"', more: str = "") -> bytes:
    """A completion as JSON text, around the JSON text of its content; `more` goes into its top level."""
    message = f'{{"index": 0, "finish_reason": "stop", "message": {{"content": {content}}}}}'
    return f'{{"choices": [{message}]{more}}}'.encode()


#: (name, body, the completion that comes of it, or the error code)
ANSWERS: list[tuple[str, bytes, str | None, str | None]] = [
    ("200,000 brackets", b"[" * 200_000, None, "truncated"),
    ("200,000 braces", b'{"a":' * 200_000, None, "truncated"),
    ("200,000 lists", b"[" * 200_000 + b"]" * 200_000, None, "invalid_response"),
    ("100,000 lists within", answer(more=f', "x": {"[" * 100_000}{"]" * 100_000}'), None, "invalid_response"),
    ("900 lists within", answer(more=f', "x": {"[" * 900}{"]" * 900}'), "ok", None),
    ("5,000 digits", answer(more=f', "usage": {{"total_tokens": {"9" * 5000}}}'), "ok", None),
    ("2^64 tokens", answer(more=f', "usage": {{"total_tokens": {2**64}}}'), "ok", None),
    ("-1 tokens", answer(more=', "usage": {"total_tokens": -1}'), "ok", None),
    ("NaN", answer(more=', "created": NaN'), "ok", None),
    ("infinity", answer(more=', "created": 1e999, "usage": {"x": -Infinity}'), "ok", None),
    ("the year 10^15", answer(more=f', "created": {10**22}'), "ok", None),
    ("keys twice", answer('"first"', ', "choices": [], ' + answer('"last"')[1:-1].decode()), "last", None),
    ("half a pair", answer(r'"a\ud800b"'), "a\ufffdb", None),
    ("a million halves", answer(f'"{HALF * 1_000_000}"'), "\ufffd" * 1_000_000, None),
    ("not UTF-8", answer('"a?b"').replace(b"?", b"\xff"), "a\ufffdb", None),
    ("a NUL", answer(r'"a\u0000b"'), "a\0b", None),
    ("values of other kinds", answer("{}", ', "id": [], "model": {}, "usage": "all"'), "{}", None),
    ("choices of another kind", b'{"choices": {"0": 1}}', None, "invalid_response"),
    ("nothing", b"null", None, "invalid_response"),
]


def test_row_15_hostile_json_is_a_completion_or_a_failed_row(tmp_path: Path) -> None:
    """Depth, digits, NaN, doubled keys and half characters crash nothing: each row is there, and its text is valid."""
    write_numbers(tmp_path, len(ANSWERS))
    client = ScriptedClient(lambda row, attempt: Reply(200, {}, ANSWERS[row][1]))
    with begun(make_job(tmp_path)) as run:
        assert work(run, client) is None
    rows = table(tmp_path / "out")
    rows.validate(full=True)
    codes = [error and error["code"] for error in rows["error"].to_pylist()]
    found = list(zip(rows["completion"].to_pylist(), codes, strict=True))
    assert found == [(content, code) for _, _, content, code in ANSWERS]


def test_row_15_what_cannot_be_read_is_kept_as_it_came(tmp_path: Path) -> None:
    """The bytes of an answer that was perhaps paid for are in the journal, whatever they are."""
    write_numbers(tmp_path, 12)
    bad = b'{"choices": ' + b"[" * 200_000
    client = ScriptedClient(lambda row, attempt: Reply(200, {}, bad if row == 7 else body_of()))
    with begun(make_job(tmp_path)) as run:
        (tmp_path / "out" / "part-00001.parquet").write_bytes(b"so that the rows stay in the journal")
        assert isinstance(work(run, client), StorageError)
        (outcome,) = run.rundir.journal.outcomes(7, 8)
    assert outcome.body == bad


HOSTILE = "'); DROP TABLE outcomes; -- \" \\ \0 %s ? :x $(touch hacked) `touch hacked` !!python/object:os.system"


def test_row_24_words_of_a_server_are_values_and_never_sql(tmp_path: Path) -> None:
    """Text made of quotes and statements comes back letter by letter, from answers and from errors, after a restart."""
    write_numbers(tmp_path, 12)

    def answer(row: int, attempt: int) -> Reply:
        if row % 3:
            return Reply(200, {}, body_of(HOSTILE, id=HOSTILE, model=HOSTILE))
        return Reply(400, {}, orjson.dumps({"error": {"message": HOSTILE, "type": HOSTILE, "code": HOSTILE}}))

    with begun(make_job(tmp_path)) as run:
        assert work(run, ScriptedClient(answer)) is None
    with begun(run.job) as again:
        assert again.rundir.unfinished(again.plan) == []
        assert again.rundir.totals().rows == 12
    rows = table(tmp_path / "out").to_pylist()
    plain = HOSTILE.replace("\0", " ")  # controls do not get into an error's words
    for row in rows:
        if row["row_index"] % 3:
            assert (row["completion"], row["response_id"], row["response_model"]) == (HOSTILE,) * 3
        else:
            assert (row["error"]["message"], row["error"]["type"], row["error"]["code"]) == (plain,) * 3
    with sqlite3.connect(tmp_path / "out" / ".batcher" / "journal-0.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_row_24_statements_are_put_together_of_our_own_words_only() -> None:
    """What is put into a statement is a name that the code beside it spells out: no value, no call, no argument."""
    for path in PRODUCT:
        tree = list(ast.walk(ast.parse(path.read_text())))
        arguments = {node.arg for node in tree if isinstance(node, ast.arg)}
        calls = [node for node in tree if isinstance(node, ast.Call)]
        for call in (node for node in calls if ast.unparse(node.func).endswith((".execute", ".executemany"))):
            parts = list(ast.walk(call.args[0]))
            assert not [part for part in parts if isinstance(part, ast.BinOp | ast.Call)], ast.unparse(call)
            for part in (part.value for part in parts if isinstance(part, ast.FormattedValue)):
                assert isinstance(part, ast.Name), ast.unparse(call)
                assert part.id not in arguments, ast.unparse(call)


UNPICKLERS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "code", "codeop"}
EXECUTORS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execve", "os.spawnv"}


@pytest.fixture
def calls() -> list[dict[str, object]]:
    """Tool calls that would leave a file behind."""
    commands = ["touch hacked", "import os; os.system('touch hacked')", '{"cmd": "touch hacked"}']
    names = ["os.system", "bash", "python", "eval", "batcher.cli.main"]
    return [
        {"id": f"{name}-{n}", "type": "function", "function": {"name": name, "arguments": command}}
        for name in names
        for n, command in enumerate(commands)
    ]


def test_row_21_calls_are_stored_and_never_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[dict[str, object]]
) -> None:
    """Tool calls, old function calls and code in the text are data: JSON in a column, and nothing else happens."""
    monkeypatch.chdir(tmp_path)
    write_numbers(tmp_path, 3)
    message = {"role": "assistant", "content": HOSTILE, "tool_calls": calls, "function_call": calls[0]["function"]}
    body = orjson.dumps({"choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}]})
    with begun(make_job(tmp_path)) as run:
        assert work(run, lambda row, attempt: Reply(200, {}, body)) is None
    for row in table(tmp_path / "out").to_pylist():
        assert row["completion"] == HOSTILE
        assert orjson.loads(row["choices_raw"])[0]["message"]["tool_calls"] == calls
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "out"}


def test_row_21_the_product_has_nothing_that_could_execute_an_answer() -> None:
    """No eval, no pickle and no shell anywhere; a program that is started is batcher itself.

    But for what the processes of one run tell each other through a socket that nobody else has: no answers.
    """
    found = set()
    for path in PRODUCT:
        if path.match("engines/messages.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found |= {getattr(node, "module", None), *(alias.name for alias in node.names)} & UNPICKLERS
            elif isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in EXECUTORS or any(keyword.arg == "shell" for keyword in node.keywords):
                    found.add(f"{path.name}: {name}")
                if name.startswith("subprocess.") and not ast.unparse(node.args[0]).startswith("[sys.executable,"):
                    found.add(f"{path.name}: {ast.unparse(node)}")
    assert not found
