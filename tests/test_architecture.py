"""The layers and the house rules that can be checked by reading the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "batcher"
TESTS = Path(__file__).parent

#: a module imports only from modules further up; modules of one line do not know each other
LAYERS = [
    ["measured"],
    ["errors", "secret", "records", "progress", "durable", "config", "tuning", "columns", "wholerow"],
    ["catalogue", "selection", "timeline", "lock", "outage", "given", "loop", "structured"],
    ["job"],
    ["source", "prompt", "client", "completion", "journal", "pricing"],
    ["plan", "retry", "limits", "part", "budget"],
    ["manifest", "renewal"],
    ["rundir", "estimate"],
    ["results", "branch", "reopening"],
    ["export"],
    ["shard", "forecast"],
    ["pending"],
    ["repairing"],
    ["feed"],
    ["backlog", "window", "guard"],
    ["settling"],
    ["worker"],
    ["tied"],
    ["engines"],
    ["run"],
    ["report"],
    ["cli"],
]
LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules}
#: stands beside the layers: used by the engine and the command line, knows only the nouns
BESIDE = {"simulator": {"errors", "records", "config"}}
LONGEST_FILE = 350

FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """The top-level module or package of the product that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """Full names of the modules a file imports; `lazy` includes imports inside functions."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def own_imports(path: Path) -> set[str]:
    """The top-level modules of the product that a file imports, other than its own."""
    names = {name.split(".")[1] for name in imports(path) if name.startswith("batcher.")}
    return names - {module_of(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_layers(path: Path) -> None:
    """Every import of ours points down the layers of the design, so that no part knows who uses it."""
    module = module_of(path)
    if module in ("__init__", "__main__"):
        return
    if module in BESIDE:
        assert own_imports(path) <= BESIDE[module]
        return
    assert module in LEVEL, f"{module} has no layer; add it to the list"
    wrong = {name for name in own_imports(path) if name not in BESIDE and LEVEL[name] >= LEVEL[module]}
    assert not wrong


def test_the_simulator_is_known_only_to_the_engine_and_the_command_line() -> None:
    """Nothing that asks or stores can tell the simulator from a real endpoint."""
    users = {module_of(path) for path in FILES if "simulator" in own_imports(path)}
    assert users <= {"engines", "cli"}


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("aiohttp", {"client"}),
        ("httptools", {"client", "simulator"}),
        ("sqlite3", {"journal"}),
        ("tqdm", {"cli"}),
        ("typer", {"cli"}),
        ("yaml", {"config", "simulator", "cli"}),
        ("minijinja", {"prompt", "report"}),
        ("vl_convert", {"report"}),
        ("tenacity", {"retry"}),
        ("genai_prices", {"pricing"}),
        ("jsonschema", {"structured"}),
        ("referencing", {"structured"}),
    ],
)
def test_a_library_is_known_to_one_part_only(library: str, homes: set[str]) -> None:
    """A foreign library is used behind one boundary, so that it can be replaced there."""
    users = {module_of(path) for path in FILES if library in {name.split(".")[0] for name in imports(path)}}
    assert users <= homes


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_one_idea_and_says_which(path: Path) -> None:
    """Every file begins with a docstring and stays short enough to be read in one go."""
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "no module docstring"
    assert len(text.splitlines()) <= LONGEST_FILE


def test_only_the_command_line_prints_or_exits() -> None:
    """Everything else reports to a `Progress`, logs or raises."""
    talkative = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.exit", "exit", "os._exit"):
                talkative.add(module_of(path))
    assert talkative <= {"cli", "__main__", "simulator"}


def test_every_test_states_its_rule() -> None:
    """A test function has a docstring, which is the rule it checks."""
    silent = [
        f"{path.name}:{node.name}"
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not silent
