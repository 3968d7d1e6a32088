"""How anything is said: lines that control no terminal, and a log that repeats no exception's words.

What a server, a file or a column is called is data: shown as it is, it could move the cursor, recolour the screen,
turn the direction of text or put a line of its own into a log. And the message of an exception may hold a row's text
or a key, so of an exception only its type and its places are shown. Knows no command.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import traceback
from types import TracebackType
from typing import TextIO

from batcher.errors import BatcherError

#: controls (C0, C1), line and paragraph separators, what hides or turns text, and halves of surrogate pairs
_ACTIVE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Return `text` in one line, with every character that would act instead of being seen written as its number."""
    return _ACTIVE.sub(lambda found: _escaped(ord(found[0])), text)


def visible_lines(text: str) -> str:
    """The same for text whose line breaks are ours."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(text: str) -> str:
    """The same for JSON, which stays the same value."""
    return _ACTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(number: int) -> str:
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def problems(error: BatcherError) -> list[str]:
    """What is wrong, a line for each problem; what a message quotes cannot begin a line of its own."""
    return [visible(line) for line in error.problems]


def say(message: str, stream: TextIO) -> None:
    """Print lines; that nobody reads any more is no reason to stop a run."""
    try:
        print(visible_lines(message) + "\n", end="", file=stream, flush=True)  # at once: threads talk too
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def internal_error(error: BaseException, trace: TracebackType | None = None) -> str:
    """Where a mistake of ours came to light and of what type it is; not its message, which may quote a row."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    places = "".join(traceback.format_tb(trace or error.__traceback__))
    return f"{places}batcher: internal error ({type(error).__name__}); please report the lines above"


def log_to_stderr(level: int) -> None:
    """Send what is logged, and what goes wrong where nobody catches it, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler])
    threading.excepthook = lambda args: _tell(args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _tell(args.exc_value, args.exc_traceback)


def _tell(error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None:
        say(internal_error(error, trace), sys.stderr)


class _Formatter(logging.Formatter):
    """One line a record. Of an exception that comes with it only type and places: asyncio's words quote arguments."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return visible(super().format(record))
        return f"{self.formatTime(record, self.datefmt)} {record.name}:\n{internal_error(error)}"
