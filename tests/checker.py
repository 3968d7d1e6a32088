"""The one judge of every fault test: what must hold at the end, whatever was done to a run on the way.

    C1   every input row has its one row in the output, in input order
    C2   each holds the answer to its own prompt, byte for byte
    C3   no row was sent again once its result was committed
    C4   what was paid for twice is not more than batcher admits, and that not more than was inflicted on it
    C5   tokens add up: the endpoint's, the parts', the summary's and the report's
    C6   nothing unfinished is left, and all parts are readable, page checksums included
    C7   the exit code and the report are as they should be, and every earlier end said why in one line
    C8   neither the key nor a prompt is in anything that was said, nor in a file where it does not belong
    C9   memory stayed below a ceiling
    C10  every command ended within its time: whoever waits for one says how long (`Command.wait`)

It knows trials (`trial`) and no particular fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from tests.harness import Ledger, answer_to, check_output, digest, parts
from tests.trial import DONE, KEY, PROMPT, Trial

#: no run of the fault tests needs more: interpreter and libraries take about 90 MB of it
MOST_KB = 260_000
#: files of a run folder that hold rows
_HOLDS_ROWS = ("part-", "journal-", "shard-", "received-")


def check(
    trial: Trial,
    *,
    code: int = 0,
    failed: Collection[int] = (),
    odd: Collection[int] = (),
    doubtful: int = 0,
    most_kb: int = MOST_KB,
) -> pa.Table:
    """Assert C1 to C10 of a trial whose last command has asked every row, and return the output.

    `failed` are the rows that had to fail; `odd` are completed rows whose answer or token counts the test judges by
    itself; `doubtful` is how many requests were made unsure without the endpoint knowing, by a client's deadline for
    instance. What the endpoint did, and who was killed how often, the trial knows.
    """
    rows = check_output(trial.out, trial.texts, failed=failed)  # C1, C6: and each row's answer by its id
    ledger = trial.endpoint.ledger()
    _check_answers(trial, rows, odd)
    _check_nothing_committed_was_sent_again(trial, ledger)
    _check_money(trial, ledger, rows, doubtful)
    _check_tokens(trial, rows, ledger, odd)
    _check_report(trial, rows, code)
    check_secrets(trial)
    for ended in trial.ends:
        assert ended.peak_kb <= most_kb, f"C9: {ended.peak_kb} kB at the peak"
    return rows


def _check_answers(trial: Trial, rows: pa.Table, odd: Collection[int]) -> None:
    """C2: the text and its finish reason are what the endpoint gives to this prompt."""
    for index, row in enumerate(rows.select(["status", "completion", "finish_reason"]).to_pylist()):
        if row["status"] == "completed" and index not in odd:
            answer = answer_to(trial.texts[index], seed=trial.seed)
            assert (row["completion"], row["finish_reason"]) == (answer.content, answer.finish_reason), f"C2: {index}"


def _check_nothing_committed_was_sent_again(trial: Trial, ledger: Ledger) -> None:
    """C3: prompts all of whose rows had a committed result when a command ended were never asked again."""
    copies = Counter(map(digest, trial.texts))
    for number, snapshot in enumerate(trial.snapshots):
        for prompt, count in snapshot.committed.items():
            if count == copies[prompt]:
                assert ledger.asked[prompt] == snapshot.asked[prompt], f"C3: {prompt} after end {number}"


def _check_money(trial: Trial, ledger: Ledger, rows: pa.Table, doubtful: int) -> None:
    """C4: paid twice <= admitted <= inflicted."""
    copies = Counter(map(digest, trial.texts))
    completed = {
        digest(text)
        for text, status in zip(trial.texts, rows["status"].to_pylist(), strict=True)
        if status == "completed"
    }
    assert set(+ledger.answered) >= completed, "C4: a completed row was never answered"
    twice = sum((ledger.answered - copies).values())
    admitted = unsure_of(trial)
    inflicted = trial.kills * trial.concurrency * 9 // 8 + sum(ledger.doubtful.values()) + doubtful
    assert twice <= admitted <= inflicted, f"C4: {twice} paid twice, {admitted} admitted, {inflicted} inflicted"


def unsure_of(trial: Trial) -> int:
    """How many attempts batcher says may have been paid for without an answer."""
    report = report_of(trial)
    return int(summary(trial.out)["ambiguous"] if report is None else report["totals"]["ambiguous"])


def report_of(trial: Trial) -> dict[str, Any] | None:
    """What the last command said, if it was to say it as JSON and had come to the end."""
    said = trial.ends[-1].stdout
    return orjson.loads(said) if said else None


def _check_tokens(trial: Trial, rows: pa.Table, ledger: Ledger, odd: Collection[int]) -> None:
    """C5, endpoint and parts: every row counts its answer, and those before it that could not be kept, once each."""
    columns = ["status", "prompt_tokens", "completion_tokens", "total_tokens"]
    for index, row in enumerate(rows.select(columns).to_pylist()):
        if index in odd:
            continue
        text = trial.texts[index]
        usage, prompt = answer_to(text, seed=trial.seed).usage, digest(text)
        answers = {ledger.unkept[prompt] + (row["status"] == "completed")}
        if trial.kills:  # one may have come between such an answer and its record
            answers.update(range(row["status"] == "completed", ledger.unkept[prompt] + 1))
        for column in columns[1:]:
            assert (row[column] or 0) in {count * usage[column] for count in answers}, f"C5: {column} of {index}"


def _check_report(trial: Trial, rows: pa.Table, code: int) -> None:
    """C7, and the sums of C5: the last word agrees with what is on disk."""
    *earlier, last = trial.ends
    assert last.returncode == code, f"C7: {last.returncode}: {last.stderr}"
    for ended in (*earlier, last):
        check_end(ended.returncode, ended.stderr)
    statuses = Counter(rows["status"].to_pylist())
    held: dict[str, Any] = {
        "completed": statuses["completed"],
        "failed": statuses["failed"],
        "prompt_tokens": sum(filter(None, rows["prompt_tokens"].to_pylist())),
        "completion_tokens": sum(filter(None, rows["completion_tokens"].to_pylist())),
    }
    now = summary(trial.out)
    assert now["state"] == "finished", f"C7: {now['state']}"
    assert {key: now[key] for key in held} == held, "C5: the summary"
    assert now["ambiguous"] == unsure_of(trial), "C4: the report"
    report = report_of(trial)
    if report is not None:
        assert report["complete"], "C7"
        assert (report["rows"], report["parts"]) == (len(trial.texts), len(parts(trial.out))), "C7"
        assert {key: report["totals"][key] for key in held} == held, "C5: the report"


def check_end(code: int, stderr: str) -> None:
    """C7: a command that did not get to the end of its rows said why in one line, and none showed a traceback."""
    assert "Traceback" not in stderr, stderr
    assert 'File "' not in stderr, stderr
    if code > 0 and code not in DONE:
        assert len([line for line in stderr.splitlines() if line.startswith("batcher: ")]) == 1, stderr


def check_secrets(trial: Trial) -> None:
    """C8: the key is nowhere, prompts are only where rows are."""
    for ended in trial.ends:
        for said in (ended.stdout, ended.stderr):
            assert KEY not in said, "C8: the key was said"
            assert PROMPT not in said, "C8: a prompt was said"
    for path in trial.out.rglob("*"):
        if path.is_file():
            _check_file(path)


def _check_file(path: Path) -> None:
    content = path.read_bytes()
    assert KEY.encode() not in content, f"C8: the key is in {path}"
    if not path.name.startswith(_HOLDS_ROWS):
        assert PROMPT.encode() not in content, f"C8: a prompt is in {path}"


def summary(out: Path) -> dict[str, Any]:
    """How a run says it stands."""
    content: dict[str, Any] = orjson.loads((out / ".batcher" / "summary.json").read_bytes())
    return content
