"""A worker process as its parent has it: started, spoken to, waited for.

It is a fresh interpreter, not a copy of this process with its threads. It inherits one end of the channel and the file
that holds the run folder, takes job and shards from the channel and the key from where the job says, so that its
command line names neither.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

import anyio.to_thread

from batcher.engines.messages import Channel
from batcher.loop import STOPPING

#: the folder that holds the package; last on the child's path, so that it shadows nothing
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_CODE = "import sys; sys.path.append(sys.argv[1]); from batcher.engines.child import main; main(int(sys.argv[2]))"
#: seconds that a process has to leave once its end of the channel is closed
_LEAVE_S = 10.0


class Process:
    """A running worker process."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel) -> None:
        self._process = process
        #: to and from it
        self.channel = channel

    @classmethod
    async def start(cls, lock: int) -> Self:
        """Start a process that inherits the file `lock`. Raises OSError if that is not possible."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await anyio.to_thread.run_sync(_start, theirs.fileno(), lock)
        except BaseException:
            ours.close()
            raise
        return cls(process, await Channel.open(ours))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def gone(self) -> str:
        """Close the channel, wait until the process is gone, and return how it ended."""
        await self.channel.close()
        code = await anyio.to_thread.run_sync(self._wait)
        return f"was killed by signal {-code}" if code < 0 else f"left with code {code}"

    def _wait(self) -> int:
        try:
            return self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _start(end: int, lock: int) -> subprocess.Popen[bytes]:
    """Start the process with signals blocked: one that came before it can ignore them would end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        return subprocess.Popen(  # noqa: S603 - our own program, and no shell
            [sys.executable, "-P", "-c", _CODE, str(_PACKAGE_ROOT), str(end)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(end, lock),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
