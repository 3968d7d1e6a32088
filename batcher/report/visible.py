"""Text of rows and servers as it may be shown: short, in one line, and with nothing invisible at work in it.

Escaping for HTML is the template engine's business, not done here.
"""

from __future__ import annotations

import re
import unicodedata

#: controls, and what turns the direction of text, joins or hides it: shown by number
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_SHOWN = "\u200c\u200d"  # some scripts and emoji are made with these
#: marks that sit on the letter before; more than three in a row would climb over the neighbouring lines
_MARK = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_PILE = re.compile(f"({_MARK}{{3}}){_MARK}+")
_NAMES = {"\n": "⏎", "\r": "⏎", "\t": " "}


def one_line(text: str, longest: int = 300) -> str:
    """Return the beginning of `text` in one line."""
    return _safe(text[:longest], lines=False) + ("…" if len(text) > longest else "")


def lines(text: str, longest: int = 20_000) -> str:
    """Return the beginning of `text` with its line breaks and tabs."""
    return _safe(text[:longest], lines=True) + (f"\n… ({len(text):,} characters)" if len(text) > longest else "")


def _safe(text: str, *, lines: bool) -> str:
    return _PILE.sub(r"\1", "".join(_character(character, lines=lines) for character in text))


def _character(character: str, *, lines: bool) -> str:
    if character in _SHOWN or (lines and character in "\n\t"):
        return character
    if character in _NAMES:
        return _NAMES[character]
    return f"[U+{ord(character):04X}]" if unicodedata.category(character) in _HIDDEN else character
