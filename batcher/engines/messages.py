"""What the parent and its worker processes tell each other, and the channel it goes through.

The channel is a pair of sockets that nobody else has an end of, so a message is whatever both ends know: it is pickled.
When one of the two is gone, however it ended, the other one finds the end of the channel.

    parent    Begin        once, when the process may start to send
              Give         the answer to each Ask
              Grant        its share of the limits changed
              Proven       another process has had an answer
              Refused      another process was sending too much
              Stop, StopNow
    process   Hello        the journal is open; how it stands before anything is sent
              Ask          a shard, please
              State        how it stands, a few times a second
              Said, Noted  a line for the log, for the watcher
              Ended        the last one
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from batcher.errors import BatcherError
from batcher.job import Job
from batcher.part import PartFormat
from batcher.plan import Plan
from batcher.progress import Figures
from batcher.records import Shard, Totals

_LENGTH = struct.Struct("!I")

#: the names of the limits that are shared, by their pools
Shares = dict[str, float]


@dataclass(slots=True)
class Problem:
    """An error, which as an exception may not come through as it was."""

    kind: type[BatcherError]
    text: str
    problems: Sequence[str]
    exit_code: int

    @classmethod
    def of(cls, error: BatcherError) -> Problem:
        """Return what is to be sent for an error."""
        return cls(type(error), str(error), error.problems, error.exit_code)

    def as_error(self) -> BatcherError:
        """Return the error again."""
        error = self.kind.__new__(self.kind, self.text)
        error.args, error.problems, error.exit_code = (self.text,), tuple(self.problems), self.exit_code
        return error


@dataclass(slots=True)
class Begin:
    """All that a process needs to know."""

    number: int
    #: with limits that are this process's own where they are not shared
    job: Job
    plan: Plan
    form: PartFormat
    base_url: str
    #: the file descriptor that holds the run folder
    lock: int
    #: what the whole run has used so far
    spent: Totals
    proven: bool
    #: there are prices, which take half a second to be looked for
    is_priced: bool
    #: requests to send at first
    start: int
    shares: Shares
    #: the number of the grant that `shares` are
    grant: int
    #: shards of a process that died
    take_over: list[Shard] = field(default_factory=list)
    log_level: int = 0


@dataclass(slots=True)
class Give:
    """A shard to work on; None if there are no more."""

    shard: Shard | None


@dataclass(slots=True)
class Grant:
    """Shares of the limits from now on."""

    number: int
    shares: Shares


@dataclass(slots=True)
class Proven:
    """The endpoint has answered a request of this job."""


@dataclass(slots=True)
class Refused:
    """The endpoint has just refused another process for sending too much."""


@dataclass(slots=True)
class Stop:
    """Send nothing more, finish what is in flight."""

    reason: Problem


@dataclass(slots=True)
class StopNow:
    """End at once, still committing what was received."""


@dataclass(slots=True)
class Hello:
    """How the process's journal stands before anything is sent, and the rows that were on their way in it."""

    figures: Figures
    orphaned: int


@dataclass(slots=True)
class Ask:
    """A shard is wanted."""


@dataclass(slots=True)
class Use:
    """What a process holds of a shared limit, what it needs of that, and how much it would like to hold."""

    holds: float
    needs: float
    wants: float


@dataclass(slots=True)
class State:
    """How a process stands."""

    figures: Figures
    #: the latest grant it has received, and what it makes of that
    grant: int
    uses: dict[str, Use]
    #: the part of the budget that its next request would take, if that is what it waits for
    asked: Shares | None
    #: it waits for its first answer
    alone: bool
    #: how often refusals have cut its limit
    cuts: int
    #: attempts lost while others succeeded
    lost: int
    stopping: Problem | None


@dataclass(slots=True)
class Said:
    """A line for the log."""

    logger: str
    level: int
    text: str


@dataclass(slots=True)
class Noted:
    """A line for whoever watches the run."""

    text: str


@dataclass(slots=True)
class Ended:
    """The process leaves: why, and with how many requests at once, held there by what."""

    reason: Problem | None
    found: str


class Channel:
    """One end of the channel, on an event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, end: socket.socket) -> Channel:
        """Take over one of a pair of sockets."""
        return cls(*await asyncio.open_connection(sock=end))

    def send(self, message: Any) -> None:
        """Send a message; one to somebody who is gone is lost."""
        content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        if not self._writer.is_closing():
            self._writer.write(_LENGTH.pack(len(content)) + content)

    async def receive(self) -> Any:
        """Return the next message; None at the end of the channel."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return pickle.loads(await self._reader.readexactly(length))  # noqa: S301 - from ourselves
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def close(self) -> None:
        """Send what waits, and leave."""
        try:
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
        except ConnectionError:
            pass  # the other one is gone
