"""`batcher help`: a page about a topic, or about one command, key, column, parameter or exit code.

The prose is in the Markdown files of this folder. What can be listed (keys, flags, columns, exit codes, parameters,
statuses) is made from its definition where the program itself takes it from, by `reference`; `page` shows both.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from batcher.cli.help.page import Block, render
from batcher.cli.help.reference import commands, entries_about, names
from batcher.cli.help.topics import TOPICS, blocks_of, overview
from batcher.cli.text import put
from batcher.config.document import did_you_mean
from batcher.errors import BatcherError

#: longer lines are hard to read
WIDEST = 100
NARROWEST = 40


class UnknownTopicError(BatcherError):
    """There is no help about this."""

    exit_code = 2


def show_help(name: str | None) -> int:
    """Print what there is to say about `name`, or what there is help about; return 0.

    Raises:
        UnknownTopicError: nothing is called so.
    """
    if name is not None and name not in TOPICS and name in commands():
        _show_command(name)
        _put(entries_about(name))  # a command may be called as a column is
        return 0
    blocks = overview() if name is None else blocks_of(name) if name in TOPICS else entries_about(name)
    if not blocks:
        known = [*TOPICS, *commands(), *names()]
        hint = did_you_mean(name or "", known) or "; `batcher help` lists the topics"
        raise UnknownTopicError(f"there is no help about '{name}'{hint}")
    _put(blocks)
    return 0


def _put(blocks: Sequence[Block]) -> None:
    width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size((80, 24)).columns))
    if blocks:
        put(render(blocks, width, bold=_is_bold()))


def _show_command(name: str) -> None:
    from batcher.cli.app import app

    app(args=[name, "--help"], prog_name="batcher", standalone_mode=False)


def _is_bold() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
