"""`row` in a template: which columns it names there.

In a template `row` holds all columns, so that those can be used whose names are no words: `{{ row["customer name"] }}`.
Read from the template's text, since its language tells of variables only. Pure.
"""

from __future__ import annotations

import re
from typing import Final

#: the name for all columns, where no column is called so
ROW: Final = "row"

_TAG: Final = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_NAMED: Final = re.compile(
    r"""(?<![\w.])row\s*(?:\[\s*(?:"([^"\\]*)"|'([^'\\]*)')\s*\]|\.\s*([^\W\d]\w*)\b)"""
    r"(?P<guard>\s*(?:\(|\|\s*d(?:efault)?\b|is\s))?"
)


def columns_through_row(source: str) -> frozenset[str]:
    """Return the columns that a template needs by way of `row`; one that it asks about may be missing."""
    found = [match for tag in _TAG.findall(source) for match in _NAMED.finditer(tag)]
    guarded = {_name(match) for match in found if match["guard"]}
    return frozenset(map(_name, found)) - guarded


def _name(match: re.Match[str]) -> str:
    return next(name for name in match.groups()[:3] if name is not None)
