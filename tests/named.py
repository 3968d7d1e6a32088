"""Tables in docstrings that say which tests hold what, and the check that these tests exist.

12  what the row is about
        faults/test_x.py: test_this, test_that
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent


def check_table(docstring: str, rows: int) -> None:
    """Assert that the table has the rows 1 to `rows`, and that each names tests that exist."""
    parts = re.split(r"^ ?(\d+)  ", docstring, flags=re.MULTILINE)
    assert list(map(int, parts[1::2])) == list(range(1, rows + 1))
    for number, text in zip(parts[1::2], parts[2::2], strict=True):
        named = re.findall(r"^ {8}(\S+\.py): (.*)$", text, re.MULTILINE)
        assert named, number
        for file, tests in named:
            wanted = set(tests.split(", "))
            assert wanted <= names_of(TESTS / file), (number, wanted - names_of(TESTS / file))


def names_of(path: Path) -> set[str]:
    """The names of the tests in a file, those of state machines included."""
    tree = ast.parse(path.read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assigned = (target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets)
    return functions | {target.id for target in assigned if isinstance(target, ast.Name)}
