"""The simulator's program: arguments, listening, signals, the lifeline, leaving cleanly.

On standard output it writes one line, `listening on http://127.0.0.1:PORT`; everything else goes to standard error.
Exit codes: 0 after a signal or the end of the lifeline, 2 when it cannot start as told, 74 when the ledger cannot be
written any more.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from batcher.errors import StorageError
from batcher.simulator.ledger import Ledger
from batcher.simulator.options import SimulatorOptions
from batcher.simulator.process import LISTENING
from batcher.simulator.script import Playback, ScriptError, load_script
from batcher.simulator.server import Simulator

log = logging.getLogger(__name__)

BACKLOG = 4096
FLUSH_AFTER_S = 0.02
EXIT_USAGE = 2
DESCRIPTION = """\
A chat-completions endpoint on this machine, for demos, rehearsals and tests: POST .../chat/completions,
GET .../models, GET /simulator/ledger. It calls no model; the same prompt gets the same answer every time."""


class CannotStartError(Exception):
    """Something the simulator was told is not possible; the message says what."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or the end of the lifeline; return the exit code."""
    arguments = parser().parse_args(argv)
    level = logging.WARNING if arguments.stdin_lifeline else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format="simulator: %(message)s")
    _raise_descriptor_limit()
    try:
        program = _Program(_options(arguments), arguments)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(program.run())
    except (CannotStartError, ScriptError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message says all
        return EXIT_USAGE


def parser() -> argparse.ArgumentParser:
    """The simulator's options, each with its help."""
    made = argparse.ArgumentParser(prog="batcher simulator", description=DESCRIPTION)
    add = made.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add(
        "--port",
        type=int,
        choices=range(65536),
        metavar="PORT",
        default=0,
        help="port to listen on (default: any free one)",
    )
    add(
        "--latency",
        dest="latency_s",
        type=float,
        default=0.05,
        metavar="S",
        help="median seconds (default: %(default)s)",
    )
    add("--spread", type=float, default=0.3, help="sigma of the log-normal latency; 0: fixed (default: %(default)s)")
    add("--max-concurrency", type=int, metavar="N", help="refuse more requests at the same time with 429")
    add("--api-key-env", metavar="NAME", help="environment variable with the key that every request must bring")
    add("--script", type=Path, metavar="FILE", help="YAML file: which prompts go wrong, and how")
    add("--ledger", type=Path, metavar="FILE", help="append one JSON line per request and per answer")
    add("--seed", type=int, default=0, help="another seed gives other texts and latencies (default: %(default)s)")
    add("--model", metavar="NAME", help="the only model served (default: any)")
    add("--stdin-lifeline", action="store_true", help="leave when standard input ends")
    return made


def _options(arguments: argparse.Namespace) -> SimulatorOptions:
    try:
        return SimulatorOptions(**{field.name: getattr(arguments, field.name) for field in fields(SimulatorOptions)})
    except ValueError as error:
        raise CannotStartError(str(error)) from error


class _Program:
    """One run of the simulator, from listening to leaving."""

    def __init__(self, options: SimulatorOptions, arguments: argparse.Namespace) -> None:
        rules = load_script(options.script) if options.script else ()
        key = _key(options.api_key_env)
        self._arguments = arguments
        self._ledger = _open_ledger(options.ledger)
        self._simulator = Simulator(
            options,
            playback=Playback(rules, options.seed),
            ledger=self._ledger,
            key=key,
            lines_wait=self._plan_flush,
            flush=self._flush,
        )
        self._leave = asyncio.Event()
        self._flush_planned = False
        self._exit_code = 0

    async def run(self) -> int:
        """Listen, serve, leave."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._leave.set)
        server = await self._listen()
        if self._arguments.stdin_lifeline:
            _watch_lifeline(lambda: loop.call_soon_threadsafe(self._leave.set))
        await self._leave.wait()
        server.close()
        for connection in tuple(self._simulator.connections):
            connection.abort()
        self._close_ledger()
        counts = self._ledger.counts()
        log.info("%d requests, %d answered", counts["requests"], counts["answered"])
        return self._exit_code

    async def _listen(self) -> asyncio.Server:
        host, port = self._arguments.host, self._arguments.port
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(self._simulator.connect, host, port, backlog=BACKLOG)
        except (OSError, OverflowError) as error:
            raise CannotStartError(f"cannot listen on {host}, port {port}: {error}") from error
        bound = server.sockets[0].getsockname()[1]
        sys.stdout.write(f"{LISTENING}http://{f'[{host}]' if ':' in host else host}:{bound}\n")
        sys.stdout.flush()
        return server

    def _plan_flush(self) -> None:
        if self._ledger.pending and not self._flush_planned:
            self._flush_planned = True
            asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self._planned_flush)

    def _planned_flush(self) -> None:
        self._flush_planned = False
        self._flush()

    def _flush(self) -> None:
        try:
            self._ledger.flush()
        except OSError as error:
            self._storage_failed(error)

    def _close_ledger(self) -> None:
        try:
            self._ledger.close()
        except OSError as error:
            self._storage_failed(error)

    def _storage_failed(self, error: OSError) -> None:
        """A ledger with holes would be worse than none."""
        log.error("the ledger cannot be written: %s", error.strerror)
        self._exit_code = StorageError.exit_code
        self._leave.set()


def _open_ledger(path: Path | None) -> Ledger:
    try:
        return Ledger(path)
    except OSError as error:
        raise CannotStartError(f"--ledger {path}: {error.strerror}") from error


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    value = os.environ.get(name)
    if not value:
        raise CannotStartError(f"--api-key-env {name}: this environment variable is not set, or empty")
    return value


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's if it is installed: about twice as fast here."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _raise_descriptor_limit() -> None:
    """Every connection takes a file descriptor; take as many as the system grants."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # some systems call the hard limit infinite and then refuse it
        log.info("the limit of open files stays at %s", resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _watch_lifeline(ended: Callable[[], object]) -> None:
    """Call `ended` when standard input ends. A thread, because not every kind of input can be polled."""

    def watch() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError as error:
            log.warning("standard input cannot be read (%s); leaving", error.strerror)
        try:
            ended()
        except RuntimeError:
            return  # the event loop is closed: the simulator is leaving already

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def _port(text: str) -> int:
    """A port as an option says it."""
    port = int(text)
    if not 0 <= port < 1 << 16:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port
