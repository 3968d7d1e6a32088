"""The event loop of a run: in the caller's thread, or beside a loop that runs there already, as in a notebook.

Signals reach the main thread only. Where it waits for a run in another thread, it hands them on, so that Ctrl-C and a
notebook's stop button mean the same everywhere.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib.util
import queue
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import anyio

T = TypeVar("T")

#: seconds between two looks for signals that were handed on
_LOOK_S = 0.1

#: the signals that stop a run
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: how signals come to a run whose thread gets none
_handed_on: contextvars.ContextVar[queue.SimpleQueue[int] | None] = contextvars.ContextVar("handed_on", default=None)


def run_loop(main: Callable[..., Awaitable[T]], *args: object) -> T:
    """Return what `main(*args)` returns, run by a loop of its own; waits for it, whatever loop runs here."""
    options = {"use_uvloop": importlib.util.find_spec("uvloop") is not None}
    ours = functools.partial(anyio.run, main, *args, backend_options=options)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return ours()
    return _beside(ours)


def _beside(call: Callable[[], T]) -> T:
    """Return what `call` returns in a thread of its own; what is raised here meanwhile stops it first."""
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    ended: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        _handed_on.set(signals)
        try:
            ended.put((call(), None))
        except BaseException as error:
            ended.put((None, error))

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="batcher")
    with _heeding(signals.put):
        try:
            thread.start()
            result, error = ended.get()  # during which, unlike in a join, signals are heard in every version of Python
        except BaseException:
            signals.put(signal.SIGINT)
            if thread in threading.enumerate():  # also one that is just being started
                ended.get()
            raise
    thread.join()
    if error is not None:
        raise error
    return result  # type: ignore[return-value] # there was no error


@contextmanager
def _heeding(hand_on: Callable[[int], object]) -> Iterator[None]:
    """Hand on the signals that stop a run, if this is the thread that gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, lambda number, _: hand_on(number)) for signum in heeded()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def heeded() -> list[signal.Signals]:
    """The signals that stop a run, without those that this process is to ignore, as under nohup."""
    return [signum for signum in STOPPING if signal.getsignal(signum) is not signal.SIG_IGN]


@asynccontextmanager
async def received_signals() -> AsyncIterator[AsyncIterator[int]]:
    """The signals that are to stop this run, as they come; none in a thread that nobody hands them on to."""
    handed_on = _handed_on.get()
    if threading.current_thread() is threading.main_thread():
        with anyio.open_signal_receiver(*heeded()) as signals:
            yield signals
    else:
        yield _from(handed_on)


async def _from(handed_on: queue.SimpleQueue[int] | None) -> AsyncIterator[int]:
    while handed_on is not None:
        while not handed_on.empty():
            yield handed_on.get_nowait()
        await anyio.sleep(_LOOK_S)
