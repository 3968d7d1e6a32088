"""Where the event loop of a run runs, and how signals reach it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest
from blockbuster import BlockBuster

from batcher.loop import STOPPING, received_signals, run_loop


@pytest.fixture(autouse=True)
def signals_are_heard() -> Iterator[None]:
    """Whoever started the tests in the background had them ignore Ctrl-C."""
    usual = {signal.SIGINT: signal.default_int_handler}
    before = {signum: signal.signal(signum, usual.get(signum, signal.SIG_DFL)) for signum in STOPPING}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture(autouse=True)
def blocking_is_meant(blocking_calls_fail: BlockBuster) -> None:
    """A call in a running loop blocks it: that is what is tested."""
    blocking_calls_fail.deactivate()


async def thread_of(error: Exception | None = None) -> threading.Thread:
    """The thread in which this runs."""
    await anyio.lowlevel.checkpoint()
    if error is not None:
        raise error
    return threading.current_thread()


async def next_signals(count: int) -> list[int]:
    """Send this process so many signals, one after the other, and return those that came."""
    found: list[int] = []
    async with received_signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        async for signum in signals:
            found.append(signum)
            if len(found) == count:
                return found
            os.kill(os.getpid(), signal.SIGINT)
    return found


def test_it_runs_here_where_no_loop_does() -> None:
    """Without a running loop the caller's thread is used."""
    assert run_loop(thread_of) is threading.current_thread()


def test_it_runs_beside_a_loop() -> None:
    """In a running loop a thread of its own is used; what is raised there comes out here."""

    async def main() -> None:
        found = run_loop(thread_of)
        assert found is not threading.current_thread()
        assert not found.is_alive()
        with pytest.raises(LookupError, match="theirs"):
            run_loop(thread_of, LookupError("theirs"))

    asyncio.run(main())


@pytest.mark.parametrize("beside", [False, True])
def test_signals_reach_it(beside: bool) -> None:
    """Signals come to the run, in the main thread or handed on by it, and the handlers are the old ones afterwards."""

    async def main() -> list[int]:
        return run_loop(next_signals, 3)

    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    found = asyncio.run(main()) if beside else run_loop(next_signals, 3)
    assert found == [signal.SIGTERM, signal.SIGINT, signal.SIGINT]
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_what_is_raised_while_waiting_stops_it() -> None:
    """A handler of the program's own that raises is a Ctrl-C for the run, which ends before the error goes on."""
    ended = threading.Event()

    async def until_stopped() -> None:
        async with received_signals() as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            async for signum in signals:
                assert signum == signal.SIGINT
                ended.set()
                return

    def handler(*_: object) -> None:
        raise LookupError("theirs")

    async def main() -> None:
        with pytest.raises(LookupError, match="theirs"):
            run_loop(until_stopped)
        assert ended.is_set()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_thread_that_nobody_hands_signals_to_gets_none() -> None:
    """There the run goes on to its end; whoever owns the main thread decides."""
    found: list[list[int]] = []

    async def listen() -> None:
        async with received_signals() as signals:
            found.append([signum async for signum in signals])

    thread = threading.Thread(target=run_loop, args=(listen,))
    thread.start()
    thread.join()
    assert found == [[]]
