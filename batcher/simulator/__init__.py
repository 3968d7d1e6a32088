"""The simulator: a chat-completions endpoint on this machine, for demos, rehearsals and tests.

It speaks HTTP as the real endpoints do, answers a prompt with the same text every time, and goes wrong exactly when
and how a script says. It never calls a model, keeps no prompt and writes no key.

* `python -m batcher.simulator --help` serves it (`main` here).
* `start(SimulatorOptions(...))` runs it as a child process that cannot outlive its parent.

The endpoint: `POST .../chat/completions`, `GET .../models`, `GET /simulator/ledger` (counts, see `ledger`).
Nothing heavy is imported here: the parent of a simulator does not need the server.
"""

from __future__ import annotations

from collections.abc import Sequence

from batcher.simulator.options import SimulatorOptions
from batcher.simulator.process import SimulatorProcess, start

__all__ = ["SimulatorOptions", "SimulatorProcess", "main", "start"]


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal or the end of the lifeline; return the exit code. `argv` is without the program's name."""
    from batcher.simulator.serve import main as serve

    return serve(argv)
