"""How news of the journal's thread reaches the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading

from batcher.journal.listener import Nobody, OnLoop
from batcher.journal.tables import Batch

_WHERE = contextvars.ContextVar("where", default="nowhere")


class _Noting(Nobody):
    """Notes in which context it is called."""

    def __init__(self) -> None:
        self.heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def committed(self, batch: Batch) -> None:
        """See `Listener`."""
        self.heard.set_result(_WHERE.get())


def test_news_come_in_the_context_of_who_listens() -> None:
    """A listener is called in the context it was set in: anyio may find its event loop by nothing else."""

    async def listen() -> str:
        _WHERE.set("on the loop")
        listener = _Noting()
        told = OnLoop(asyncio.get_running_loop(), listener)
        thread = threading.Thread(target=told.committed, args=(Batch(),))
        thread.start()
        heard = await asyncio.wait_for(listener.heard, 10)
        thread.join()
        return heard

    assert asyncio.run(listen()) == "on the loop"
