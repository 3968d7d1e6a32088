"""A problem of the run is no problem of a row: the run stops, rows stay pending, the same command completes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.harness import Ledger, batcher, check_output, digest, parts, write_job, write_rows
from tests.recording_server import Answer, Request, as_json, completion, recording

CONCURRENCY = 16
Respond = Callable[[Request], Answer]


def error(status: int, code: str | None = None, message: str = "no", kind: str | None = None) -> Respond:
    """Refuse every request in the same way."""
    return lambda request: as_json({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def good(request: Request) -> Answer:
    """Answer a request with an id by which `check_output` knows whose answer it is."""
    return completion("fine", id=f"chatcmpl-{digest(request.prompt)}")


@dataclass
class Refused:
    """What an endpoint does to every request, and how the run must end."""

    name: str
    respond: Respond
    code: int

    def __str__(self) -> str:
        return self.name


REFUSALS = [
    Refused("401", error(401, "invalid_api_key", "bad key"), 77),
    Refused("401-html", lambda request: Answer(b"<html>log in</html>", 401), 77),
    Refused("402", error(402, "invalid_request_error", "Insufficient Balance", "unknown_error"), 77),
    Refused("403", error(403), 77),
    Refused("429-quota", error(429, "insufficient_quota"), 77),
    Refused("404-model", error(404, "model_not_found"), 78),
    Refused("302", lambda request: Answer(b"", 302, {"Location": "/v1/elsewhere"}), 78),
]


def summary(out: Path) -> dict[str, Any]:
    """How the run says it stands."""
    content: dict[str, Any] = orjson.loads((out / ".batcher" / "summary.json").read_bytes())
    return content


def one_line(stderr: str) -> str:
    """The one line of trouble, without progress and advice."""
    (line,) = [line for line in stderr.splitlines() if line.startswith("batcher: ")]
    return line


@pytest.mark.parametrize("refused", REFUSALS, ids=str)
def test_refused_from_the_start(tmp_path: Path, refused: Refused) -> None:
    """An endpoint that refuses the run gets few requests, no row fails, and the same command completes it later."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(400)))
    with recording(refused.respond) as server:
        job = write_job(tmp_path, server.base_url)
        end = batcher("run", str(job))
        assert end.returncode == refused.code, end.stderr
        assert "Traceback" not in end.stderr
        assert one_line(end.stderr)
        assert len(server.requests) <= CONCURRENCY
        assert {request.path for request in server.requests} == {"/v1/chat/completions"}
        assert parts(tmp_path / "out") == []
        assert (summary(tmp_path / "out")["completed"], summary(tmp_path / "out")["failed"]) == (0, 0)
        server.respond = good
        end = batcher("run", str(job))
    assert end.returncode == 0, end.stderr
    check_output(tmp_path / "out", texts)


@pytest.mark.parametrize("refused", [refusal for refusal in REFUSALS if refusal.name in ("402", "404-model")], ids=str)
def test_refused_in_the_middle(tmp_path: Path, refused: Refused) -> None:
    """When the refusal comes in the middle, what succeeded before is kept, nothing fails, and nothing is paid twice."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(400)))
    answered: list[str] = []
    broken = True

    def respond(request: Request) -> Answer:
        if broken and len(answered) >= 130:
            return refused.respond(request)
        answered.append(request.prompt)
        return good(request)

    with recording(respond) as server:
        job = write_job(tmp_path, server.base_url)
        end = batcher("run", str(job))
        assert end.returncode == refused.code, end.stderr
        assert len(server.requests) <= 130 + CONCURRENCY + 3
        stopped = summary(tmp_path / "out")
        assert (stopped["completed"], stopped["failed"]) == (130, 0)
        broken = False
        end = batcher("run", str(job))
    assert end.returncode == 0, end.stderr
    check_output(tmp_path / "out", texts)
    assert sorted(answered) == sorted(texts)


def test_every_row_refused_with_400(tmp_path: Path) -> None:
    """A server that refuses every row stops the run after about 20 + concurrency requests; the rows stay pending."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(400)))
    with recording(error(400, "bad_parameter")) as server:
        job = write_job(tmp_path, server.base_url)
        end = batcher("run", str(job))
        assert end.returncode == 78, end.stderr
        assert "bad_parameter" in one_line(end.stderr)
        assert 20 <= len(server.requests) <= 20 + CONCURRENCY
        assert parts(tmp_path / "out") == []
        assert (summary(tmp_path / "out")["completed"], summary(tmp_path / "out")["failed"]) == (0, 0)
        server.respond = good
        assert batcher("run", str(job), "-q").returncode == 0
    check_output(tmp_path / "out", texts)


def test_every_row_refused_by_an_endpoint_that_has_worked_before(tmp_path: Path) -> None:
    """Where rows have succeeded before, the run puts up with more failures, then stops; all of them stay pending."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(600)))
    with recording(good) as server:
        server.respond = lambda request: (good if len(server.requests) <= 100 else error(401))(request)
        job = write_job(tmp_path, server.base_url)
        assert batcher("run", str(job), "-q").returncode == 77
        server.requests.clear()
        server.respond = error(400, "bad_parameter")
        assert batcher("run", str(job), "-q").returncode == 78
        assert 200 <= len(server.requests) <= 200 + CONCURRENCY
        assert (summary(tmp_path / "out")["completed"], summary(tmp_path / "out")["failed"]) == (100, 0)
        server.respond = good
        assert batcher("run", str(job), "-q").returncode == 0
    check_output(tmp_path / "out", texts)


def test_fewer_rows_than_the_guard_needs_all_refused(tmp_path: Path) -> None:
    """Where nothing ever succeeded, even few refusals are the job's problem: the rows stay pending."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(5)))
    with recording(error(400, "bad_parameter")) as server:
        end = batcher("run", str(write_job(tmp_path, server.base_url)))
        assert end.returncode == 78, end.stderr
        assert len(server.requests) == 5
        assert parts(tmp_path / "out") == []
        server.respond = good
        end = batcher("run", str(tmp_path / "job.yaml"), "-q")
    assert end.returncode == 0, end.stderr
    check_output(tmp_path / "out", texts)


def test_every_row_fails_with_500(tmp_path: Path) -> None:
    """A server that breaks on every row is down, exit 69; the rows stay pending."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(400)))
    with recording(error(500)) as server:
        job = write_job(tmp_path, server.base_url, limits={"concurrency": CONCURRENCY, "max_attempts": 1})
        end = batcher("run", str(job))
        assert end.returncode == 69, end.stderr
        assert one_line(end.stderr)
        assert len(server.requests) <= 20 + CONCURRENCY
        assert parts(tmp_path / "out") == []
        assert (summary(tmp_path / "out")["completed"], summary(tmp_path / "out")["failed"]) == (0, 0)
        server.respond = good
        end = batcher("run", str(job), "-q")
    assert end.returncode == 0, end.stderr
    check_output(tmp_path / "out", texts)


def test_outage_longer_than_allowed(tmp_path: Path) -> None:
    """A server that stays overloaded longer than `max_outage_s` ends the run with 69, the rows pending."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(100)))
    with recording(error(503)) as server:
        job = write_job(tmp_path, server.base_url)
        end = batcher("run", str(job), "--set", "limits.max_outage_s=2")
        assert end.returncode == 69, end.stderr
        assert "max_outage_s" in one_line(end.stderr)
        assert (summary(tmp_path / "out")["completed"], summary(tmp_path / "out")["failed"]) == (0, 0)
        server.respond = good
        assert batcher("run", str(job), "-q").returncode == 0
    check_output(tmp_path / "out", texts)


def test_wait_longer_than_allowed(tmp_path: Path) -> None:
    """A server that asks to wait longer than `max_outage_s` allows ends the run at once with 69."""
    write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(100)))
    refusal = as_json({"error": {"message": "later"}}, 429, **{"Retry-After": "90000"})
    with recording(lambda request: refusal) as server:
        end = batcher("run", str(write_job(tmp_path, server.base_url)))
        assert end.returncode == 69, end.stderr
        assert len(server.requests) <= CONCURRENCY
    assert (summary(tmp_path / "out")["completed"], summary(tmp_path / "out")["failed"]) == (0, 0)


@pytest.mark.parametrize("code", ["context_length_exceeded", "content_filter"])
def test_every_row_fails_for_its_own_reason(tmp_path: Path, code: str) -> None:
    """Failures that are a row's own by nature become failed rows, though all of them do."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(120)))
    with recording(error(400, code)) as server:
        end = batcher("run", str(write_job(tmp_path, server.base_url)))
        assert end.returncode == 3, end.stderr
        assert len(server.requests) == 120
    rows = check_output(tmp_path / "out", texts, failed=range(120))
    assert {row["code"] for row in rows["error"].to_pylist()} == {code}


def test_key_that_the_endpoint_asks_for(tmp_path: Path) -> None:
    """The wrong key stops the run with 77; with the right one the same command completes it."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(60)))

    def respond(request: Request) -> Answer:
        if request.headers.get("authorization") != "Bearer right":
            return error(401, "invalid_api_key")(request)
        return good(request)

    with recording(respond) as server:
        job = write_job(tmp_path, "", endpoint={"base_url": server.base_url, "api_key_env": "KEY"})
        assert batcher("run", str(job), "-q", env={"KEY": "wrong"}).returncode == 77
        assert batcher("run", str(job), "-q", env={"KEY": "right"}).returncode == 0
    check_output(tmp_path / "out", texts)


def test_short_outage_in_the_middle(tmp_path: Path) -> None:
    """A short outage in the middle is waited out: no row fails, nothing has to be run again."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(200)))
    count = 0

    def respond(request: Request) -> Answer:
        nonlocal count
        count += 1
        return error(503)(request) if 50 < count <= 66 else good(request)

    with recording(respond) as server:
        end = batcher("run", str(write_job(tmp_path, server.base_url)), "-q")
    assert (end.returncode, end.stderr) == (0, "")
    check_output(tmp_path / "out", texts)


def test_wrong_model_at_the_simulator(tmp_path: Path) -> None:
    """An endpoint that serves another model stops the run with 78 after one round of requests."""
    write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(200)))
    options = SimulatorOptions(latency_s=0, model="other", ledger=tmp_path / "ledger.jsonl")
    with start_simulator(options) as simulator:
        end = batcher("run", str(write_job(tmp_path, simulator.base_url)))
    assert end.returncode == 78, end.stderr
    assert "model" in one_line(end.stderr)
    assert sum(Ledger.read(tmp_path / "ledger.jsonl").asked.values()) <= CONCURRENCY
