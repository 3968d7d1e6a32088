"""A page of help: a little Markdown and lists of entries, as lines of a terminal's width. Pure.

Of Markdown it knows headings, paragraphs, lists of one level, tables, fenced blocks and code between backticks; in a
page that is not bold the backticks stay. A line `[[NAME ...]]` stands for what somebody else puts there.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_BOLD: Final = ("\x1b[1m", "\x1b[0m")
_CODE: Final = re.compile("`([^`]+)`")
_ITEM: Final = re.compile(r"[-*] +")
#: stands for a blank at which no line is broken
_STUCK: Final = "\x00"
_NARROWEST_COLUMN: Final = 24


@dataclass(frozen=True, slots=True)
class Heading:
    """A line of its own; level 1 is the page's title."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text to be wrapped; `bullet` makes it an item of a list."""

    text: str
    bullet: bool = False


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Lines as they are."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, the head first; the last column is wrapped."""

    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing of a reference: its name, a few facts such as its default, and what it is."""

    name: str
    facts: str
    text: str


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Words between double brackets."""

    words: tuple[str, ...]


Block = Heading | Paragraph | Verbatim | Table | Entry | Placeholder


# -- reading -----------------------------------------------------------------------------------------------------------


def parse(markdown: str) -> Iterator[Block]:
    """Yield the blocks of a Markdown text."""
    lines = markdown.splitlines()
    start = 0
    while start < len(lines):
        end = _end_of_block(lines, start)
        if lines[start].strip():
            yield _block(lines[start:end])
        start = end


def _end_of_block(lines: Sequence[str], start: int) -> int:
    """The line after the block that begins at `start`."""
    first, end = lines[start], start + 1
    if first.startswith("```"):
        while not lines[end].startswith("```"):
            end += 1
        return end + 1
    if not first.strip() or first.startswith("#"):
        return end
    while end < len(lines) and lines[end].strip() and not _begins_block(lines[end], table=first.startswith("|")):
        end += 1
    return end


def _begins_block(line: str, *, table: bool) -> bool:
    return line.startswith(("#", "```", "[[")) or bool(_ITEM.match(line)) or line.startswith("|") != table


def _block(lines: Sequence[str]) -> Block:
    first = lines[0]
    if first.startswith("```"):
        return Verbatim(tuple(lines[1:-1]))
    if first.startswith("#"):
        return Heading(first.lstrip("#").strip(), len(first) - len(first.lstrip("#")))
    if first.startswith("[["):
        return Placeholder(tuple(first.strip("[] ").split()))
    if first.startswith("|"):
        rows = [tuple(cell.strip() for cell in line.strip().strip("|").split("|")) for line in lines]
        return Table((rows[0], *rows[2:]))
    text = " ".join(line.strip() for line in lines)
    bullet = _ITEM.match(first)
    return Paragraph(text[bullet.end() :] if bullet else text, bullet=bullet is not None)


# -- showing -----------------------------------------------------------------------------------------------------------


def render(blocks: Sequence[Block], width: int, *, bold: bool) -> str:
    """Return the blocks as text of at most `width` cells a line, but for verbatim lines and words that are longer."""
    lines: list[str] = []
    before: Block | None = None
    for block in blocks:
        if before is not None and not _is_close(before, block):
            lines.append("")
        lines += _lines(block, width, bold=bold)
        before = block
    return "\n".join(line.rstrip() for line in lines)


def _is_close(before: Block, block: Block) -> bool:
    """Whether no blank line stands between two blocks."""
    if isinstance(block, Paragraph) and block.bullet:
        return isinstance(before, Paragraph) and before.bullet
    return isinstance(block, Entry) and isinstance(before, Entry)


def _lines(block: Block, width: int, *, bold: bool) -> list[str]:
    match block:
        case Heading():
            text = block.text.upper() if block.level == 2 else block.text
            return [_strong(text, bold)]
        case Paragraph():
            first, rest = ("- ", "  ") if block.bullet else ("", "")
            return _wrapped(block.text, width, first, rest, bold=bold)
        case Verbatim():
            return [f"  {line}" for line in block.lines]
        case Table():
            return _table(block, width, bold=bold)
        case Entry():
            facts = f"  {block.facts}" if block.facts else ""
            head, *more = _broken(f"`{block.name}`{facts}", width, "", "        ")
            head = _shown(head, bold=True) if bold else head.replace("`", "", 2)
            return [head, *more, *_wrapped(block.text, width, "    ", "    ", bold=bold)]
        case Placeholder():
            raise ValueError(f"nothing stands for {block.words}")


def _table(table: Table, width: int, *, bold: bool) -> list[str]:
    """The columns as wide as they need, the last one broken at the page's width."""
    *others, _ = zip(*table.rows, strict=True)
    sizes = [max(_cells(cell, bold=bold) for cell in column) + 2 for column in others]
    before = sum(sizes)
    lines = []
    for row in table.rows:
        cells = zip(row[:-1], sizes, strict=True)
        left = "".join(_shown(cell, bold=bold) + " " * (size - _cells(cell, bold=bold)) for cell, size in cells)
        last = _broken(row[-1], max(_NARROWEST_COLUMN, width - before)) or [""]
        lines += [left + _shown(last[0], bold=bold), *(" " * before + _shown(more, bold=bold) for more in last[1:])]
    return lines


def _cells(text: str, *, bold: bool) -> int:
    """How wide a cell's text is when it is shown."""
    return len(_CODE.sub(r"\1", text) if bold else text)


def _wrapped(text: str, width: int, first: str, rest: str, *, bold: bool) -> list[str]:
    return _shown("\n".join(_broken(text, width, first, rest)), bold=bold).split("\n")


def _broken(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Break text at its blanks, but within code only where it is longer than a line."""
    text = _CODE.sub(lambda code: code[0].replace(" ", _STUCK) if len(code[0]) < width - len(rest) else code[0], text)
    lines = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(_STUCK, " ") for line in lines]


def _shown(text: str, *, bold: bool) -> str:
    return _CODE.sub(lambda code: _strong(code[1], bold), text) if bold else text


def _strong(text: str, bold: bool) -> str:
    return f"{_BOLD[0]}{text}{_BOLD[1]}" if bold else text
