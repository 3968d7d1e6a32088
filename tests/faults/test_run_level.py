"""A problem of the run is no problem of a row: the run stops, rows stay pending, the same command completes them."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.checker import check, summary
from tests.fault_server import (
    HTML,
    FaultServer,
    Shape,
    always_good,
    fault_server,
    refusing,
    sending,
)
from tests.faults.client.wire_server import reply
from tests.harness import parts
from tests.scaled import SCALED
from tests.trial import Trial, simulated, trial

CONCURRENCY = 16
LOGIN = sending("401-html", lambda exchange: reply(b"<html>log in</html>", status="401 No"), doubtful=False)
REDIRECT = sending(
    "302", lambda exchange: reply(b"", status="302 Found", headers=("Location: /v1/elsewhere",)), doubtful=False
)
#: what an endpoint does to every request, and how the run must end
REFUSALS = {
    refusing(401, "invalid_api_key"): 77,
    LOGIN: 77,
    refusing(402, message="Insufficient Balance"): 77,
    refusing(403): 77,
    refusing(429, "insufficient_quota"): 77,
    refusing(404, "model_not_found"): 78,
    REDIRECT: 78,
}


def everybody_gets(shape: Shape, server: FaultServer) -> None:
    """Give every request this, from now on."""
    server.plan = lambda prompt, attempt: shape


def check_stopped(made: Trial, *, completed: int = 0) -> None:
    """Assert that a run stopped with so many rows completed, none failed, and said why in one line."""
    now = summary(made.out)
    assert now["state"] == "stopped"
    assert (now["completed"], now["failed"]) == (completed, 0)
    assert len([line for line in made.ends[-1].stderr.splitlines() if line.startswith("batcher: ")]) == 1


def completes(made: Trial, server: FaultServer) -> None:
    """Mend the endpoint, run the same command again, and judge the end."""
    server.plan = always_good
    made.run()
    check(made)


def test_refused_from_the_start(tmp_path: Path) -> None:
    """An endpoint that refuses the run gets one request, no row fails, and the same command completes it later."""
    with fault_server() as server:
        made = trial(tmp_path, server, 200)
        for runs, (refusal, code) in enumerate(REFUSALS.items(), 1):
            everybody_gets(refusal, server)
            made.run(code=code)
            check_stopped(made)
            assert server.asked == runs, refusal
        assert parts(made.out) == []
        completes(made, server)


@pytest.mark.parametrize("status", [401, 403, 404], ids=str)
def test_refused_from_the_middle_on(tmp_path: Path, status: int) -> None:
    """A refusal that concerns everybody is looked into by single requests, then stops the run; nothing is failed."""
    with fault_server() as server:
        made = trial(tmp_path, server, 300, program=SCALED)
        server.plan = lambda prompt, attempt: refusing(status) if server.answered >= 130 else None
        made.run(code=78 if status == 404 else 77)
        check_stopped(made, completed=server.answered)
        assert server.asked <= server.answered + CONCURRENCY + 3
        completes(made, server)


@pytest.mark.parametrize("shape", [refusing(403), refusing(404), REDIRECT], ids=str)
def test_one_row_is_refused(tmp_path: Path, shape: Shape) -> None:
    """The same refusal of one row, while others succeed, fails that row alone."""
    with fault_server() as server:
        made = trial(tmp_path, server, 200, program=SCALED)
        refused = made.texts[70]
        server.plan = lambda prompt, attempt: shape if prompt == refused else None
        made.run(code=3)
        rows = check(made, code=3, failed=[70])
        assert server.asked <= len(made.texts) + 1
    assert rows["error"][70].as_py()["http_status"] == int(str(shape)[:3])


def test_every_row_refused_with_400(tmp_path: Path) -> None:
    """A server that refuses every row stops the run after about 20 + concurrency requests; the rows stay pending."""
    with fault_server() as server:
        everybody_gets(refusing(400, "bad_parameter"), server)
        made = trial(tmp_path, server, 300)
        ended = made.run(code=78)
        assert "bad_parameter" in ended.stderr
        check_stopped(made)
        assert 20 <= server.asked <= 20 + CONCURRENCY
        assert parts(made.out) == []
        completes(made, server)


def test_every_row_refused_by_an_endpoint_that_has_worked_before(tmp_path: Path) -> None:
    """Where rows have succeeded before, the run puts up with more failures, then stops; all of them stay pending."""
    with fault_server() as server:
        made = trial(tmp_path, server, 500)
        server.plan = lambda prompt, attempt: refusing(402) if server.answered >= 100 else None
        made.run(code=77)
        asked, answered = server.asked, server.answered
        everybody_gets(refusing(400, "bad_parameter"), server)
        made.run(code=78)
        assert 200 <= server.asked - asked <= 200 + CONCURRENCY
        check_stopped(made, completed=answered)
        completes(made, server)


def test_fewer_rows_than_the_guard_needs_all_refused(tmp_path: Path) -> None:
    """Where nothing ever succeeded, even few refusals are the job's problem: the rows stay pending."""
    with fault_server() as server:
        everybody_gets(refusing(400, "bad_parameter"), server)
        made = trial(tmp_path, server, 5)
        made.run(code=78)
        check_stopped(made)
        assert server.asked == 5
        completes(made, server)


@pytest.mark.parametrize("shape", [refusing(503), refusing(500), HTML], ids=str)
def test_outage_longer_than_allowed(tmp_path: Path, shape: Shape) -> None:
    """A server that is down, in any way, for longer than `max_outage_s` ends the run with 69; rows stay pending."""
    with fault_server() as server:
        made = trial(tmp_path, server, 100, limits={"max_outage_s": 1.5, "max_attempts": 1}, program=SCALED)
        server.plan = lambda prompt, attempt: shape if server.answered >= 40 else None
        ended = made.run(code=69)
        assert "max_outage_s" in ended.stderr
        check_stopped(made, completed=server.answered)
        completes(made, server)


def test_broken_from_the_start(tmp_path: Path) -> None:
    """A server that has never worked and breaks on every row is down, exit 69; the rows stay pending."""
    with fault_server() as server:
        everybody_gets(refusing(500), server)
        made = trial(tmp_path, server, 200, limits={"max_outage_s": 1.5, "max_attempts": 1}, program=SCALED)
        made.run(code=69)
        check_stopped(made)
        assert server.asked <= 20 + CONCURRENCY
        completes(made, server)


def test_wait_longer_than_allowed(tmp_path: Path) -> None:
    """A server that asks to wait longer than `max_outage_s` allows ends the run at once with 69."""
    with fault_server() as server:
        everybody_gets(refusing(429, None, "Retry-After: 90000"), server)
        made = trial(tmp_path, server, 100)
        made.run(code=69)
        check_stopped(made)
        assert server.asked <= CONCURRENCY


@pytest.mark.parametrize("code", ["context_length_exceeded", "content_filter"])
def test_every_row_fails_for_its_own_reason(tmp_path: Path, code: str) -> None:
    """Failures that are a row's own by nature become failed rows, though all of them do."""
    with fault_server() as server:
        everybody_gets(refusing(400, code), server)
        made = trial(tmp_path, server, 120)
        made.run(code=3)
        rows = check(made, code=3, failed=range(120))
        assert server.asked == 120
    assert {row["code"] for row in rows["error"].to_pylist()} == {code}


def test_short_outage_in_the_middle(tmp_path: Path) -> None:
    """A short outage in the middle is waited out: no row fails, nothing has to be run again, nothing is said."""
    with fault_server() as server:
        made = trial(tmp_path, server, 200)
        server.plan = lambda prompt, attempt: refusing(503) if 50 < server.asked <= 66 else None
        ended = made.run("-q")
        assert ended.stderr == ""
        check(made)


@pytest.mark.parametrize("step", [-1, 1], ids=["older", "newer"])
def test_a_folder_of_another_version(tmp_path: Path, step: int) -> None:
    """What another version wrote is not resumed but left as it is, and nothing is sent."""
    with fault_server() as server:
        made = trial(tmp_path, server, 120)
        server.plan = lambda prompt, attempt: refusing(402) if server.answered >= 60 else None
        made.run(code=77)
        path = made.out / ".batcher" / "manifest.json"
        before, asked = path.read_bytes(), server.asked
        manifest = orjson.loads(before)
        path.write_bytes(orjson.dumps({**manifest, "format": manifest["format"] + step}))
        ended = made.run(code=78)
        assert "another version" in ended.stderr
        assert server.asked == asked
        path.write_bytes(before)
        completes(made, server)


def test_wrong_model_at_the_simulator(tmp_path: Path) -> None:
    """An endpoint that serves another model stops the run with 78 after one request."""
    with simulated(tmp_path, latency_s=0, model="other") as simulator:
        made = trial(tmp_path, simulator, 200)
        ended = made.run(code=78)
        assert "model" in ended.stderr
        assert simulator.ledger().asked.total() == 1
