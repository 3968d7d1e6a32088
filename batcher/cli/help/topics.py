"""The topics of `batcher help`: Markdown files of this folder, in which a line `[[...]]` stands for a reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from batcher.cli.help.page import Block, Heading, Paragraph, Placeholder, Table, parse
from batcher.cli.help.reference import REFERENCES, commands, section

#: in the order of the list; each has a file of its name
TOPICS: Final = (
    "job",
    "rows",
    "templates",
    "parameters",
    "structured",
    "models",
    "columns",
    "files",
    "resume",
    "exit-codes",
    "retries",
    "limits",
    "cost",
    "cron",
    "simulator",
    "python",
    "commands",
)


def path_of(topic: str) -> Path:
    """The file of a topic."""
    return Path(__file__).parent / f"{topic}.md"


def blocks_of(topic: str) -> list[Block]:
    """The blocks of a topic's page, references included."""
    return [
        made
        for block in parse(path_of(topic).read_text(encoding="utf-8"))
        for made in (_filled(block.words) if isinstance(block, Placeholder) else [block])
    ]


def _filled(words: Sequence[str]) -> Sequence[Block]:
    name, *arguments = words
    return REFERENCES[name](*arguments)


def overview() -> list[Block]:
    """What there is help about."""
    return [
        Paragraph("`batcher help TOPIC` explains one of these:"),
        Table((("TOPIC", ""), *((topic, _title(topic)) for topic in TOPICS))),
        Paragraph(
            "`batcher help NAME` explains one key of a job file (`limits.concurrency`), column (`finish_reason`),"
            " parameter (`top_p`), exit code (`75`) or command, which are:"
        ),
        Table((("COMMAND", ""), *((name, section(name)) for name in commands()))),
    ]


def _title(topic: str) -> str:
    heading = next(parse(path_of(topic).read_text(encoding="utf-8")))
    if not isinstance(heading, Heading):
        raise TypeError(f"{topic}.md does not begin with a heading")
    return heading.text
