"""What is below HTTP: connections that end while nobody looks, descriptors, names, networks and certificates."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest

from tests.checker import check, check_end, check_secrets, summary
from tests.command import BATCHER, limited, together
from tests.fault_server import Ending, fault_server
from tests.faults.client.certificates import issue
from tests.harness import Ledger
from tests.scaled import SCALED
from tests.trial import trial, until


def test_connections_closed_at_the_very_time_of_reuse(tmp_path: Path) -> None:
    """A server that closes idle connections just when the client would reuse them fails no row."""
    endings = cycle([*Ending, None, None, None])
    with fault_server() as server:
        server.ending = lambda: next(endings)
        made = trial(tmp_path, server, 100, concurrency=4)
        made.run()
        crossed = server.ended[Ending.CROSSING] + server.ended[Ending.RESET]
        ended = crossed + server.ended[Ending.IDLE]  # of these, too, some may meet a request that is just being sent
        check(made, doubtful=ended)
        assert crossed <= summary(made.out)["ambiguous"] <= ended, "nobody knows whether they were served"
        assert min(server.ended[ending] for ending in Ending) >= 10, server.ended


def test_fewer_descriptors_than_requests(tmp_path: Path) -> None:
    """With 64 descriptors and 200 requests wanted the run says which limit to raise; what was answered is kept."""
    with fault_server() as server:
        server.latency_s = 0.1
        made = trial(tmp_path, server, 600, concurrency=200)
        ended = made.run(code=1, program=together(limited(nofile=64), [BATCHER]))
        assert "ulimit -n" in ended.stderr
        assert "concurrency" in ended.stderr
        now = summary(made.out)
        assert (now["completed"], now["failed"]) == (server.answered, 0)
        assert now["completed"] >= 8
        made.run()
        check(made)
        assert max(server.ledger().asked.values()) == 1, "an answer was lost"


def test_certificates_that_are_not_accepted(tmp_path: Path) -> None:
    """The run stops with 78 before anything is sent; with the right certificate the same command completes it."""
    authority, stranger = (issue(tmp_path, name, authority=True) for name in ("authority", "stranger"))
    right = issue(tmp_path, "right", issuer=authority)
    wrong = [
        issue(tmp_path, "elsewhere", issuer=authority, host="elsewhere.example"),
        issue(tmp_path, "expired", issuer=authority, days=-5),
        issue(tmp_path, "unknown", issuer=stranger),
    ]
    context = wrong[0].server_context()
    with fault_server(context=context) as server:
        made = trial(tmp_path, server, 50, connection={"ca_file": str(authority.path)})
        for certificate in wrong:
            context.load_cert_chain(certificate.path)
            ended = made.run(code=78)
            assert "certificate" in ended.stderr, certificate.path.name
            assert server.asked == 0, "something was sent over a connection that cannot be trusted"
            assert (summary(made.out)["completed"], summary(made.out)["failed"]) == (0, 0)
        context.load_cert_chain(right.path)
        made.run()
        check(made)


def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    """A host that has no address ends a run that never reached it, with 69 and nothing failed."""

    made = trial(tmp_path, Elsewhere("http://nowhere.invalid"), 50, connection={"allow_http": True}, program=SCALED)
    ended = made.run(code=69)
    assert "cannot be reached" in ended.stderr
    assert (summary(made.out)["completed"], summary(made.out)["failed"]) == (0, 0)
    check_end(ended.returncode, ended.stderr)
    check_secrets(made)


@dataclass
class Elsewhere:
    """An endpoint that these tests do not serve; it may have a ledger."""

    base_url: str
    path: Path | None = None

    def ledger(self) -> Ledger:
        """What it wrote down."""
        return Ledger.read(self.path) if self.path and self.path.exists() else Ledger()


def own_network() -> bool:
    """Whether a process may be given a network of its own, and that network an interface."""
    if not (shutil.which("unshare") and shutil.which("nsenter") and shutil.which("ip")):
        return False
    command = ["unshare", "-n", "ip", "link", "set", "lo", "up"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not own_network(), reason="a network of its own is not permitted here, or its tools are missing")
def test_the_network_vanishes(tmp_path: Path) -> None:
    """While the only interface is down nothing is failed, and afterwards the run goes on by itself."""
    endpoint = Elsewhere("simulator", tmp_path / "ledger.jsonl")
    settings = {"latency_s": 0.05, "ledger": str(endpoint.path)}
    timeouts = {"connect_s": 1, "first_byte_s": 2.0, "total_s": 3.0}
    alone = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "-"]
    made = trial(
        tmp_path,
        endpoint,
        400,
        connection={"simulator": settings, "timeouts": timeouts},
        program=together(alone, SCALED),
    )

    def interface(state: str) -> None:
        command = ["nsenter", "-t", str(process.pid), "-n", "ip", "link", "set", "lo", state]
        subprocess.run(command, check=True)

    with made.start() as process:
        until(process, lambda: sum(endpoint.ledger().answered.values()) >= 100)
        interface("down")
        until(process, lambda: "unreachable" in (summary(made.out)["why_waiting"] or ""))
        interface("up")
        made.ended(process)
    check(made, doubtful=2 * made.concurrency)
