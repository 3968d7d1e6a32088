"""All faults together, for as long as is asked: `pytest -m soak`, with SOAK_S=86400 for a day.

Rounds of at most five minutes. In each a job is asked of an endpoint that breaks a share of everything, is away now and
then, and takes its time, while its process is killed, stopped, frozen and continued at random. In the end every row has
to be right, what is admitted has to cover what was paid twice, and neither memory nor descriptors may have grown. The
seed is printed; SOAK_SEED repeats a round's choices, though not the machine's timing.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from tests import shapes
from tests.checker import check
from tests.command import Command
from tests.fault_server import HTML, FaultServer, Shape, fault_server, refusing
from tests.scaled import SCALED
from tests.trial import Trial, trial

SOAK_S = float(os.environ.get("SOAK_S", "300"))
SEED = int(os.environ.get("SOAK_SEED", time.time_ns() % 1_000_000))
LONGEST_ROUND_S = 300.0
CONCURRENCY = 32
#: rows for each second of a round: more than it gets to, so that it works all the time
ROWS_PER_S = 150
#: share of the requests that meet a fault
FAULTY = 0.05
#: a process that works holds what is in flight, its files and a few more
MOST_DESCRIPTORS = CONCURRENCY + 40
#: how much more memory the last third of a long-lived process may take than the first
GROWTH = 1.15
FAULTS = [
    *shapes.BROKEN,
    *shapes.GOOD_IN_THE_END,
    refusing(429, None, "Retry-After: 0.5"),
    refusing(429),
    refusing(503, None, "retry-after-ms: 200"),
]
#: what a run may end with by itself while the endpoint is at its worst
MAY_END = (69,)


@dataclass
class Round:
    """One job under fire."""

    made: Trial
    server: FaultServer
    random: Random
    command: Command
    #: requests that were made unsure by a deadline while the process stood still
    doubtful: int = 0
    #: (resident kB, descriptors) of the present process, second by second
    samples: list[tuple[int, int]] = field(default_factory=list)

    def restart(self) -> None:
        """Start the command again, as whoever watches the night would."""
        self.command = self.made.start()
        self.samples.clear()

    def sample(self) -> None:
        """Look at the process, and start it again if it gave up on the endpoint."""
        ended = self.command.poll()
        if ended is not None:
            assert ended.returncode in MAY_END, (ended.returncode, ended.stderr)
            self.made.ended(self.command)
            self.restart()
            return
        status = Path(f"/proc/{self.command.pid}/status").read_text()
        resident = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
        self.samples.append((resident, len(os.listdir(f"/proc/{self.command.pid}/fd"))))  # noqa: PTH208 - a count

    # -- blows

    def kill(self) -> None:
        """kill -9."""
        self.made.kill(self.command)
        self.restart()

    def stop(self) -> None:
        """SIGTERM: it finishes what is in flight."""
        self.command.signal(signal.SIGTERM)
        self.made.ended(self.command)
        self.restart()

    def stop_now(self) -> None:
        """Ctrl-C, twice."""
        for _ in range(2):
            self.command.signal(signal.SIGINT)
            time.sleep(0.1)
        self.made.ended(self.command, killed=True)
        self.restart()

    def freeze(self) -> None:
        """SIGSTOP for a while."""
        self.command.signal(signal.SIGSTOP)
        time.sleep(self.random.uniform(0.2, 4))
        self.command.signal(signal.SIGCONT)
        self.doubtful += CONCURRENCY

    def outage(self) -> None:
        """The endpoint is away."""
        shape = self.random.choice([None, refusing(503), refusing(500), HTML, shapes.SILENT])
        plan = self.server.plan
        if shape is None:
            self.server.down()
        else:
            self.server.plan = lambda prompt, attempt: shape
        time.sleep(self.random.uniform(0.2, 4))
        self.server.plan = plan
        self.server.up()

    def slowness(self) -> None:
        """The endpoint takes its time, though less than the deadline."""
        latency_s, self.server.latency_s = self.server.latency_s, self.random.uniform(0.3, 0.8)
        time.sleep(self.random.uniform(0.2, 3))
        self.server.latency_s = latency_s


def under_fire(this: Round, seconds: float) -> None:
    """Strike at random; in the second half leave the process alive, to see whether it grows."""
    blows: list[Callable[[], None]] = [this.freeze, this.outage, this.slowness]
    deadly = [this.kill, this.kill, this.stop, this.stop_now]
    began = time.monotonic()
    while (gone := time.monotonic() - began) < seconds:
        pause_s = this.random.uniform(0.5, 5)
        for _ in range(int(pause_s) + 1):
            time.sleep(pause_s / (int(pause_s) + 1))
            this.sample()
        this.random.choice([*blows, *deadly] if gone < seconds / 2 else blows)()


def check_flat(samples: list[tuple[int, int]]) -> None:
    """Assert that a process that lived long enough to tell holds no more in the end than in the beginning."""
    assert max(descriptors for _, descriptors in samples) <= MOST_DESCRIPTORS
    third = len(samples) // 3
    if third >= 20:
        early = max(resident for resident, _ in samples[third // 2 : third])
        late = max(resident for resident, _ in samples[-third:])
        assert late <= early * GROWTH, f"{early} kB at first, {late} kB in the end"


def faulty(seed: int) -> Callable[[str, int], Shape | None]:
    """A plan that breaks a share of all requests."""

    def plan(prompt: str, attempt: int) -> Shape | None:
        random = Random(f"{seed} {prompt} {attempt}")
        return random.choice(FAULTS) if random.random() < FAULTY else None

    return plan


@pytest.mark.soak
@pytest.mark.timeout(10 * SOAK_S + 600)
def test_soak(tmp_path: Path) -> None:
    """However long it lasts and whatever happens, every row ends right and nothing grows."""
    left_s, seed = SOAK_S, SEED
    while left_s > 0:
        print(f"soak: seed {seed}, {left_s:.0f} s to go", flush=True)
        seconds = min(left_s, LONGEST_ROUND_S)
        folder = tmp_path / str(seed)
        folder.mkdir()
        soak_round(folder, seed, seconds)
        left_s, seed = left_s - seconds, seed + 1


def soak_round(folder: Path, seed: int, seconds: float) -> None:
    """One round, and its judgement."""
    timeouts = {"connect_s": 5, "first_byte_s": 1.0, "total_s": 2.0}
    with fault_server(faulty(seed)) as server:
        server.latency_s = 0.1
        rows = int(ROWS_PER_S * seconds)
        made = trial(
            folder,
            server,
            rows,
            concurrency=CONCURRENCY,
            connection={"timeouts": timeouts},
            program=SCALED,
            rows_per_part=500,
        )
        this = Round(made, server, Random(seed), made.start())
        try:
            under_fire(this, seconds)
            server.plan, server.latency_s = (lambda prompt, attempt: None), 0.0
            made.ended(this.command, most_s=600)
        finally:
            this.command.kill()
        if made.ends[-1].returncode in MAY_END:
            made.run(most_s=600)
        check(made, doubtful=this.doubtful)
        check_flat(this.samples)
        kills, requests = made.kills, sum(server.ledger().asked.values())
        print(f"soak: {rows} rows, {requests} requests, {len(made.ends)} starts, {kills} kills", flush=True)
