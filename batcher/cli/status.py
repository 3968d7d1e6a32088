"""`batcher status`: how a run stands, once or until it ends, read from its folder without touching it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from batcher.cli.again import version_words
from batcher.cli.bar import cost_words
from batcher.cli.folder import folder_of
from batcher.cli.running import shown
from batcher.cli.standing import UNDER_WAY, standing_of
from batcher.cli.talk import visible, visible_json
from batcher.cli.text import line, put
from batcher.errors import StorageError

#: seconds between two looks
_LOOK_S = 1.0


def show_status(target: Path, *, as_json: bool) -> int:
    """Print the state of the run of a job file or in an output folder; exit code 0 if there is one."""
    folder = folder_of(target)
    with _as_written(folder):
        standing = standing_of(folder)
        put(visible_json(orjson.dumps(standing).decode()) if as_json else render_status(folder, standing))
    return 0


def watch_status(target: Path, *, as_json: bool, sleep: Callable[[float], None] = time.sleep) -> int:
    """Show the state again and again until the run ends or Ctrl-C; exit code 0 in both cases.

    A terminal shows the newest state in place of the one before; elsewhere, and as JSON, every change is a line.
    """
    folder = folder_of(target)
    screen = Screen() if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not as_json else None
    last: dict[str, Any] | None = None
    ended = False
    try:
        while True:
            standing = standing_of(folder)
            if screen is not None:
                screen.draw(render_status(folder, standing))
            elif _without_time(standing) != last:
                put(visible_json(orjson.dumps(standing).decode()) if as_json else render_line(standing))
            if standing["state"] not in UNDER_WAY and ended:
                return 0
            last, ended = _without_time(standing), standing["state"] not in UNDER_WAY
            sleep(_LOOK_S if not ended else _LOOK_S / 10)  # a run may take the folder over at the moment one ends
    except KeyboardInterrupt:
        return 0


@contextmanager
def _as_written(folder: Path) -> Iterator[None]:
    """A summary may be somebody else's: values of other kinds than ours are its fault, not a mistake of ours."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{folder / '.batcher' / 'summary.json'} is not what batcher wrote") from error


class Screen:
    """Lines on a terminal that are replaced by the next ones."""

    def __init__(self) -> None:
        self._height = 0

    def draw(self, text: str) -> None:
        """Put the lines in the place of those drawn last."""
        lines = [line(one, shutil.get_terminal_size((100, 24)).columns - 1) for one in text.splitlines()]
        up = f"\x1b[{self._height}F\x1b[J" if self._height else ""
        put(up + "\n".join(lines))
        self._height = len(lines)


def render_status(folder: Path, standing: dict[str, Any]) -> str:
    """The state in a few lines."""
    done = standing["completed"] + standing["failed"]
    words = {
        "starting": f"a run is starting (pid {standing['pid']})",
        "running": f"running (pid {standing['pid']})",
        "finished": "finished",
        "died": "not running; it was killed and can be resumed with the same command",
        "unknown": "was running on another machine, and has not been heard of lately",
    }
    lines = [
        f"{shown(str(folder))}: {words.get(standing['state'], 'stopped; the same command resumes it')}",
        f"rows:   {done} of {standing['total']} ({standing['completed']} completed, {standing['failed']} failed),"
        f" {standing['in_flight']} in flight, {standing['waiting']} waiting for another attempt",
        f"tokens: {standing['prompt_tokens']:,} prompt, {standing['completion_tokens']:,} completion",
        f"cost:   {cost_words(standing.get('cost_usd'), standing.get('unpriced', 0), done, standing['total'])}",
    ]
    if standing.get("invalid"):
        lines.append(f"schema: {standing['invalid']} of the completed rows do not match it")
    if standing["ambiguous"]:
        lines.append(f"unsure: {standing['ambiguous']} requests may have been paid for without an answer")
    if again := standing.get("asked_again"):
        lines.append(f"again:  {again:,} rows are asked again, and stand in the output as they were until then")
    lines += [f"rows {words}" for words in version_words(standing.get("versions", ()))]
    if standing["why_waiting"]:
        lines.append(f"waits:  {standing['why_waiting']}")
    lines.append(f"as of:  {standing['updated_at']}")
    return "\n".join(map(visible, lines))


def render_line(standing: dict[str, Any]) -> str:
    """The state in one line."""
    done = standing["completed"] + standing["failed"]
    words = (
        f"{time.strftime('%H:%M:%S')} {standing['state']}: {done}/{standing['total']} rows, {standing['completed']} ok,"
        f" {standing['failed']} failed, {standing['in_flight']} in flight"
    )
    return visible(f"{words}; {standing['why_waiting']}" if standing["why_waiting"] else words)


def _without_time(standing: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in standing.items() if name != "updated_at"}
