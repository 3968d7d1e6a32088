"""Text of strangers on a terminal: made harmless, wrapped to its width, cut where it is long.

Prompts, answers and error messages may hold anything, also what makes a terminal change its title, hide lines or turn
the direction of writing. Such characters are written out (`\\x1b`, `\\u202e`). A width is in cells: a Chinese character
takes two, a combining accent none.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from itertools import islice

#: lines of one text that are shown without --full
MAX_LINES = 16

#: control and format characters but newline, the joiners that scripts and emoji need, and the soft hyphen
_UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_WORDS = re.compile(r"\S+\s*|\s+")


def put(text: str) -> None:
    """Print a result; what the terminal's encoding lacks is written out."""
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        print(text.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding), flush=True)


def harmless(text: str) -> str:
    """Return text that does nothing to a terminal but fill it; line ends and tabs stay what they look like."""
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def line(text: str, width: int) -> str:
    """Return text as one harmless line of at most `width` cells."""
    text = harmless(text[: 4 * width]).replace("\n", " ").rstrip()
    if cells(text) <= width:
        return text
    return f"{next(_pieces(text, width - 1), '').rstrip()}…"


def block(text: str, width: int, *, full: bool) -> Iterator[str]:
    """Yield the harmless lines of a text; unless `full`, only the first ones and a note on the rest."""
    head = text if full else text[: MAX_LINES * width]
    lines = (piece for one in harmless(head).split("\n") for piece in _wrapped(one, width))
    if full:
        yield from lines
        return
    shown = list(islice(lines, MAX_LINES + 1))
    yield from shown[:MAX_LINES]
    if len(shown) > MAX_LINES or len(head) < len(text):
        yield f"[... cut; {len(text):,} characters in all, --full shows them]"


def cells(text: str) -> int:
    """Return how many cells of a terminal a harmless text takes."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Break one line between words, and within those that are longer than a line."""
    held = ""
    for word in _WORDS.findall(text):
        if held and cells(held) + cells(word.rstrip()) > width:
            yield held.rstrip()
            held = ""
        *whole, held = _pieces(held + word, width)
        yield from whole
    yield held.rstrip()


def _pieces(text: str, width: int) -> Iterator[str]:
    """Cut a text into pieces of at most `width` cells; trailing blanks do not count."""
    start = used = 0
    for place, character in enumerate(text):
        size = _cells_of(character)
        if used + size > width and not text[place:].isspace():
            yield text[start:place]
            start, used = place, 0
        used += size
    yield text[start:]
