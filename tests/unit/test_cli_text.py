"""Text of strangers on a terminal: it does nothing but fill its lines, which are never wider than the terminal."""

from __future__ import annotations

import io
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.cli.text import MAX_LINES, block, cells, harmless, line, put

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def test_what_steers_a_terminal_is_written_out() -> None:
    """Escape sequences, bells, back spaces and marks that turn the direction are seen, not obeyed."""
    assert harmless("a\x1b[31mred\x1b]0;title\x07 b\x08c") == r"a\x1b[31mred\x1b]0;title\x07 b\x08c"
    assert harmless("x\u202egnp.exe \x9b2J \u2066y\ufeff") == r"x\u202egnp.exe \x9b2J \u2066y\ufeff"
    assert harmless("over\rwritten\x85") == r"over\rwritten\x85"


def test_what_people_write_stays() -> None:
    """Line ends, tabs (as blanks), accents, other scripts, joined emoji."""
    text = "Grüße\n  naïve — 你好 👩‍👩‍👧 ‌می‌خواهم"
    assert harmless(text) == text
    assert harmless("a\r\nb\tc") == "a\nb    c"


@given(st.text(max_size=200), st.integers(2, 40))
def test_no_line_is_wider_than_allowed(text: str, width: int) -> None:
    """Whatever the text, every line fits, holds nothing that steers, and no letter is lost."""
    lines = list(block(text, width, full=True))
    assert all(cells(one) <= width for one in lines)
    assert not CONTROL.search("".join(lines))
    assert "".join("".join(lines).split()) == "".join(harmless(text).split())
    assert cells(line(text, width)) <= width


def test_lines_break_between_words() -> None:
    """Words stay whole where they fit; blanks at a break vanish, those at the start of a line stay."""
    assert list(block("one two  three\n\n    four five", 9, full=True)) == ["one two", "three", "", "    four", "five"]
    assert list(block("abcdefghijkl mn", 5, full=True)) == ["abcde", "fghij", "kl mn"]
    assert list(block("你好世界 ab", 6, full=True)) == ["你好世", "界 ab"]
    assert list(block("abcde   ", 5, full=True)) == ["abcde"]
    assert cells("e\u0301") == 1


def test_long_texts_are_cut_and_say_so() -> None:
    """Many lines, or one that is very long; --full shows everything."""
    many = "\n".join(map(str, range(100)))
    lines = list(block(many, 40, full=False))
    assert lines[:MAX_LINES] == [str(number) for number in range(MAX_LINES)]
    assert lines[MAX_LINES:] == [f"[... cut; {len(many)} characters in all, --full shows them]"]
    assert len(list(block(many, 40, full=True))) == 100
    assert (
        list(block("x" * 1_000_000, 40, full=False))[-1] == "[... cut; 1,000,000 characters in all, --full shows them]"
    )
    assert "cut" not in "".join(block("\n".join("x" * MAX_LINES), 40, full=False))


def test_one_line() -> None:
    """Line ends become blanks, what does not fit an ellipsis."""
    assert line("a\nb\x1b", 20) == r"a b\x1b"
    assert line("name:  value", 20) == "name:  value"
    assert line("abcdefgh", 8) == "abcdefgh"
    assert line("abcdefghi", 8) == "abcdefg…"
    assert line("你好世界", 6) == "你好…"


def test_a_terminal_without_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its encoding lacks is written out instead of ending the command."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    put("é — 你")
    assert raw.getvalue() == "é \\u2014 \\u4f60\n".encode("latin-1")
