"""`batcher help`: nothing is left out, nothing is named that is not there, and it reads well on a terminal.

What is missing is named together with the place where its text belongs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

import batcher
from batcher.catalogue import load_catalogue
from batcher.cli import main
from batcher.cli.help.page import Entry, Heading, Paragraph, Table, Verbatim, parse, render
from batcher.cli.help.reference import REFERENCES, command, commands, keys, model_file, parameters
from batcher.cli.help.topics import TOPICS, blocks_of, overview, path_of
from batcher.columns import ABOUT
from batcher.errors import EXIT_CODES, BatcherError, Interrupted
from batcher.job import Job, load_job
from batcher.part import RESULT
from batcher.prompt import Builder
from batcher.simulator.script import RULE_KEYS, load_script
from batcher.simulator.serve import parser
from batcher.simulator.step import CHECKS, ERROR_KEYS
from tests.mentions import code_of, wrong_mentions

PACKAGE = Path(batcher.__file__).parent
ESCAPE = "\x1b"


def shown(topic: str, width: int = 80) -> str:
    """A topic as it is printed without a terminal."""
    return render(blocks_of(topic), width, bold=False)


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a job file, from the types that read it."""
    for name, info in model.model_fields.items():
        yield prefix + name
        for section in (info.annotation, *get_args(info.annotation)):
            if isinstance(section, type) and issubclass(section, BaseModel):
                yield from keys_of(section, f"{prefix}{name}.")


# -- nothing is left out -----------------------------------------------------------------------------------------------


def test_every_key_of_a_job_file_is_described() -> None:
    """`batcher help job` has each key with a sentence, which also editors show."""
    described = {entry.name: entry.text for entry in keys() if isinstance(entry, Entry)}
    for key in keys_of(Job):
        assert described.get(key), f"batcher/job/model.py: give {key} a Field(description=...)"
        assert f"\n{key}" in shown("job"), f"batcher help job does not show {key}"


def test_every_flag_and_argument_is_described() -> None:
    """`batcher help commands` has each command with its flags, which also `--help` shows."""
    text = shown("commands", 200)
    for name, found in commands().items():
        assert found.help, f"batcher/cli/app.py: give the command {name} a docstring"
        for parameter in found.params:
            what = f"{'/'.join(parameter.opts)} of `batcher {name}`"
            assert parameter.help, f"batcher/cli/app.py: give {what} a help=..."
            if parameter.name != "help" and parameter.param_type_name == "option":
                assert parameter.is_flag or parameter.metavar, f"batcher/cli/app.py: give {what} a metavar=..."
                assert f"\n{', '.join(parameter.opts)}" in text, f"batcher help commands does not show {what}"
    for action in parser()._actions:
        assert action.help, f"batcher/simulator/serve.py: give {action.option_strings} a help=..."
        assert action.option_strings[-1] in shown("simulator")


def test_every_column_is_described() -> None:
    """`batcher help columns` has each column that batcher adds, in their order."""
    missing = [name for name in RESULT.names if not ABOUT.get(name)]
    assert not missing, f"batcher/columns.py: write in ABOUT what {', '.join(missing)} says"
    assert list(ABOUT) == RESULT.names, "batcher/columns.py: ABOUT has other columns or another order than part.RESULT"
    places = [shown("columns").index(f"\n{name}") for name in RESULT.names]
    assert places == sorted(places)


def exit_codes_of_the_source() -> Iterator[tuple[int, str]]:
    """Every exit code that an error or a command has, and where."""
    for module in walk_packages(batcher.__path__, "batcher."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    errors = [BatcherError]
    for error in errors:
        errors += error.__subclasses__()
        if error is not Interrupted:
            yield error.exit_code, error.__name__
    for path in sorted((PACKAGE / "cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.returns and ast.unparse(node.returns) == "int":
                yield from ((code, f"{path.name}: {node.name}") for code in _returned(node))


def _returned(function: ast.FunctionDef) -> Iterator[int]:
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            yield from (part.value for part in ast.walk(node.value) if _is_number(part))  # type: ignore[attr-defined]


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def test_every_exit_code_is_described() -> None:
    """`batcher help exit-codes` has each code with which a command can end, signals included, and so has --help."""
    for code, where in [*exit_codes_of_the_source(), *((128 + signum, "signals") for signum in (1, 2, 15))]:
        assert code in EXIT_CODES, f"batcher/errors.py: write in EXIT_CODES what {code} means ({where})"
    for code in EXIT_CODES:
        assert re.search(rf"^{code} +\S", shown("exit-codes"), re.MULTILINE)


def test_every_parameter_and_key_of_a_model_is_described() -> None:
    """What the catalogue's files hold is in `batcher help parameters`, what they may hold in `batcher help models`."""
    described = {entry.name: entry.text for entry in parameters() if isinstance(entry, Entry)}
    catalogue = load_catalogue()
    for model in catalogue.names():
        for parameter in catalogue.schema_of(model).parameters:
            assert described.get(parameter.name), f"batcher/catalogue: give {parameter.name} of {model} a help: ..."
    for entry in model_file():
        assert isinstance(entry, Entry)
        assert entry.text, f"batcher/catalogue/schema.py: give {entry.name} a Field(description=...)"


def test_every_key_of_a_simulator_script_is_described() -> None:
    """`batcher help simulator` names each matcher, each answer and each part of an error object."""
    spans = " ".join(code_of(path_of("simulator").read_text()))
    for key in (*RULE_KEYS, *CHECKS, *ERROR_KEYS):
        assert re.search(rf"\b{key}\b", spans), f"batcher/cli/help/simulator.md: describe `{key}`"


def test_every_file_is_a_topic() -> None:
    """A page that nobody can ask for, or a topic without a page, is a mistake; so is a reference nobody sees."""
    assert sorted(path.stem for path in path_of("job").parent.glob("*.md")) == sorted(TOPICS)
    used = {word for topic in TOPICS for word in re.findall(r"^\[\[(\S+?)[ \]]", path_of(topic).read_text(), re.M)}
    assert used == set(REFERENCES)


# -- nothing is named that is not there --------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", TOPICS)
def test_topics_name_only_what_exists(topic: str) -> None:
    """Every command, flag, topic and key in a page's code is a real one."""
    assert not wrong_mentions(path_of(topic).read_text())


def test_what_does_not_exist_is_noticed() -> None:
    """The check of mentions finds a wrong command, flag, topic and key, in a word of code and in a block."""
    text = "`batcher rum JOB` `limits.concurency` `--ofline`\n```\n/x/batcher run a --jsn | batcher help topix\n```\n"
    assert wrong_mentions(text) == [
        "no command `batcher rum`",
        "no key limits.concurency",
        "no command has --ofline",
        "`batcher run` has no --jsn",
        "no help about topix",
    ]
    assert not wrong_mentions(
        "`batcher run JOB --set limits.concurrency=5 -q`, `--offline`, `batcher help 75`, `pip --x`"
    )


def block_of(topic: str, start: str) -> str:
    """The fenced block of a page that begins so."""
    (block,) = [block for block in blocks_of(topic) if isinstance(block, Verbatim) and block.lines[0].startswith(start)]
    return "\n".join(block.lines) + "\n"


def test_the_examples_work(tmp_path: Path) -> None:
    """The job, the template, the parameters, the prices, the model file and the script in the pages are accepted."""
    job, own = tmp_path / "job.yaml", tmp_path / "model.yaml"
    whole = yaml.safe_load(block_of("job", "version"))
    load_job(write(job, whole), environ={"DEEPSEEK_API_KEY": "x"})
    more = [block_of("templates", "prompt"), block_of("parameters", "parameters"), block_of("cost", "pricing")]
    for text in more:
        loaded = load_job(write(job, {**whole, **yaml.safe_load(text)}), environ={"DEEPSEEK_API_KEY": "x"})
        assert Builder(loaded, load_catalogue().schema_of(loaded.model)).columns
    own.write_text(block_of("models", "model"))
    assert load_catalogue(own).schema_of("my-model").known
    (tmp_path / "script.yaml").write_text(block_of("simulator", "- row"))
    assert len(load_script(tmp_path / "script.yaml")) == 3


def write(path: Path, values: dict[str, Any]) -> Path:
    """A job file of these values."""
    path.write_text(yaml.safe_dump(values))
    return path


# -- it reads well -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", [None, *TOPICS])
def test_pages_fit_the_terminal(topic: str | None) -> None:
    """No line is wider than the terminal, no mark-up is left over, and every page begins with what it is about."""
    blocks = overview() if topic is None else blocks_of(topic)
    for width in (80, 100):
        text = render(blocks, width, bold=False)
        assert max(map(len, text.splitlines())) <= width
        assert "[[" not in text.replace("[[...", "")
        assert "```" not in text
        assert ESCAPE not in text
    assert topic is None or isinstance(blocks[0], Heading)


def test_markdown_becomes_lines() -> None:
    """Headings, wrapped paragraphs and items, aligned tables and blocks as they are; code is bold or in backticks."""
    text = "# title\n\nSome `code that stays` together\nin lines.\n- one\n- two\n\n```\n  as is\n```\n\n## more\n"
    blocks = list(parse(text + "| a | b |\n| --- | --- |\n| `x` | long words here |\n"))
    assert render(blocks, 34, bold=False).splitlines() == [
        *("title", "", "Some `code that stays` together in", "lines.", "", "- one", "- two", "", "    as is", ""),
        *("MORE", "", "a    b", "`x`  long words here"),
    ]
    assert render([Paragraph("a `b c` d")], 80, bold=True) == f"a {ESCAPE}[1mb c{ESCAPE}[0m d"
    table = render([Table((("k", "v"), ("`x`", "1"), ("y", "2")))], 80, bold=True)
    assert re.sub(r"\x1b\[\dm", "", table).splitlines() == ["k  v", "x  1", "y  2"]
    entry = Entry("limits.x", "number, default 1", "What `it` is.")
    assert render([entry, entry], 30, bold=False).splitlines() == [
        *("limits.x  number, default 1", "    What `it` is.") * 2,
    ]


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `batcher help` prints on standard output, all being well."""
    assert main(["help", *words]) == 0
    out, err = capsys.readouterr()
    assert not err
    return out


def test_one_thing_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """A topic, a key, the end of a key, a section, a column, a parameter, an exit code, a command."""
    assert "TOPIC" in ask(capsys)
    assert ask(capsys, "job").startswith("the job file")
    assert ask(capsys, "limits.concurrency").startswith("limits.concurrency  whole number from 1, default 256\n    Req")
    assert ask(capsys, "max_outage_s").startswith("limits.max_outage_s")
    assert len(re.findall("^endpoint.timeouts", ask(capsys, "endpoint.timeouts"), re.M)) == 4
    assert ask(capsys, "finish_reason").startswith("finish_reason  text")
    assert ask(capsys, "top_p").startswith("top_p")
    assert "another run works on" in ask(capsys, "75")
    assert "--offline" in ask(capsys, "check")
    status = ask(capsys, "status")
    assert "--watch" in status
    assert "`completed`, or `failed`" in status, "a column of the same name"


def test_unknown_words_are_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """What nobody knows is wrong usage, and what was meant is named on standard error."""
    assert main(["help", "colums"]) == 2
    assert main(["help", "limits.concurency"]) == 2
    assert main(["help", "\x1b[31m"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "'columns'?" in err
    assert "'limits.concurrency'?" in err
    assert ESCAPE not in err


@pytest.mark.parametrize("name", [name for name in commands() if name not in TOPICS])
def test_a_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`batcher help COMMAND` is its --help."""
    text = " ".join(ask(capsys, name).split())
    assert f"batcher {name}" in text
    for entry in command(name):
        assert not isinstance(entry, Entry) or entry.name.split()[0].rstrip(",") in text
