"""A simulator as a child process that cannot outlive its parent.

The parent holds the only writing end of the child's standard input. When the parent ends, however it ends, the kernel
closes it, and the child leaves at the end of file. The child has a session of its own, so the terminal's Ctrl-C
reaches the parent alone.
"""

from __future__ import annotations

import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from batcher.errors import JobError
from batcher.simulator.options import SimulatorOptions

LISTENING = "listening on "
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
#: the folder that holds the package; the child starts there, so no file of the user's folder can shadow a module
PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class SimulatorProcess:
    """A running simulator. Leaving its `with` block, or `close`, ends it."""

    def __init__(self, options: SimulatorOptions) -> None:
        """Use `start`, which says what can go wrong."""
        self._process = subprocess.Popen(  # noqa: S603 - our own program, and no shell
            [sys.executable, "-m", "batcher.simulator", "--stdin-lifeline", *options.arguments()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=PACKAGE_ROOT,
            start_new_session=True,
        )
        try:
            #: what a job's `endpoint.base_url` would be
            self.base_url = self._read_base_url()
        except BaseException:
            self.close()
            raise

    @classmethod
    def start(cls, options: SimulatorOptions | None = None) -> SimulatorProcess:
        """Start a simulator on a free port of 127.0.0.1 and return when it listens.

        Raises:
            JobError: the script is invalid (one line per problem), or the simulator refused to start (its own message
                is on standard error).
        """
        options = options or SimulatorOptions()
        if options.script is not None:
            from batcher.simulator.script import load_script  # PyYAML, which is needed for a script only

            load_script(Path(options.script))
        return cls(options)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def close(self) -> int:
        """End the simulator if it still runs, wait for it and return its exit code. May be called again."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        return self._process.returncode

    def _read_base_url(self) -> str:
        output = self._process.stdout
        poller = select.poll()  # unlike select(), it takes descriptors above 1023
        if output:
            poller.register(output, select.POLLIN)
        line = output.readline().decode().strip() if output and poller.poll(START_TIMEOUT_S * 1000) else ""
        if not line.startswith(LISTENING):
            raise JobError("endpoint.simulator: the simulator did not start")
        return line.removeprefix(LISTENING)

    def __enter__(self) -> SimulatorProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


#: the same, as a function
start = SimulatorProcess.start
