"""What can be listed, made from where it is defined, so that no list can forget anything.

Keys come from the schema of the job file, parameters and model files from the catalogue, columns from the schema of a
part, exit codes from the errors, statuses from the rules of retrying, flags from the commands themselves. A text is
changed there, not here. Everything heavy is imported by the one who asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from batcher.cli.help.page import Block, Entry, Heading, Paragraph, Table
from batcher.errors import EXIT_CODES

# -- keys of a job file ------------------------------------------------------------------------------------------------

_KINDS: Final = {
    "string": "text",
    "number": "number",
    "integer": "whole number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
}


def keys(prefix: str = "") -> list[Block]:
    """The keys of a job file, or of one section, sections before what is in them."""
    within = f"{prefix}." if prefix else ""
    return [entry for entry in _keys() if entry.name.startswith(within)]


@cache
def _keys() -> tuple[Entry, ...]:
    from batcher.cli.jobschema import job_schema

    schema = job_schema()
    return tuple(_walk(schema, schema["$defs"], ""))


def _walk(section: dict[str, Any], sections: dict[str, Any], prefix: str) -> Iterator[Entry]:
    for name, value in section["properties"].items():
        inner = _section_of(value, sections)
        about = value.get("description") or (inner or {}).get("description", "")
        facts = ["section"] if inner else _facts(value)
        if name in section.get("required", ()):
            facts.append("required")
        yield Entry(prefix + name, ", ".join(facts), about)
        if inner:
            yield from _walk(inner, sections, f"{prefix}{name}.")


def _section_of(value: dict[str, Any], sections: dict[str, Any]) -> dict[str, Any] | None:
    """The section that a key holds, if it holds one."""
    refs = [inner["$ref"] for inner in value.get("anyOf", [value]) if "$ref" in inner]
    return sections[refs[0].rpartition("/")[2]] if refs else None


def _facts(value: dict[str, Any]) -> list[str]:
    """Kind, range and default of a key."""
    kinds = [kind for inner in value.get("anyOf", [value]) if (kind := _kind(inner))]
    facts = [" or ".join(dict.fromkeys(kinds))]
    if "default" in value:
        facts.append(f"default {_plain(value['default'])}")
    return facts


def _kind(value: dict[str, Any]) -> str:
    """A kind of value in words; nothing for null and for the variable that may stand anywhere."""
    if "anyOf" in value and "type" not in value:
        return " or ".join(filter(None, map(_kind, value["anyOf"])))
    if "const" in value:
        return _plain(value["const"])
    if "enum" in value:
        return " or ".join(map(str, value["enum"]))
    is_path = value.get("not", {}).get("pattern") == "://"
    word = "path" if is_path else _KINDS.get(value.get("type", ""), "")
    bounds = [
        f"{words} {_plain(value[key])}"
        for key, words in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"))
        if key in value
    ]
    is_variable = value.get("pattern") == r"\$\{"
    return "" if is_variable else " ".join([word, *bounds])


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value in ("", {}):
        return "empty"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


# -- parameters and models ---------------------------------------------------------------------------------------------


def parameters() -> list[Block]:
    """Every parameter of a known model, once, with the models that take it where not all do."""
    from batcher.catalogue import GENERIC, FormParameter, load_catalogue

    catalogue = load_catalogue()
    takers: dict[str, dict[str, FormParameter]] = {}
    for model in catalogue.names():
        for parameter in catalogue.schema_of(model).parameters:
            takers.setdefault(parameter.name, {})[model] = parameter
    entries: list[Block] = []
    for name, by_model in takers.items():
        parameter = by_model.get(GENERIC) or next(iter(by_model.values()))
        facts = [parameter.expected]
        if parameter.default is not None:
            facts.append(f"{_plain(parameter.default)} if not sent")
        if len(by_model) < len(catalogue.names()):
            facts.append("only " + ", ".join(by_model))
        entries.append(Entry(name, "; ".join(facts), parameter.help))
    return entries


def model_file() -> list[Block]:
    """The keys of a file that describes a model."""
    from batcher.catalogue import FormParameter, FormSchema

    def described(model: type[FormSchema] | type[FormParameter], prefix: str) -> Iterator[Entry]:
        for name, info in model.model_fields.items():
            yield Entry(prefix + name, "required" if info.is_required() else "", info.description or "")

    return [*described(FormSchema, ""), *described(FormParameter, "parameters[].")]


# -- columns -----------------------------------------------------------------------------------------------------------


def columns() -> list[Block]:
    """The columns that batcher adds, in order."""
    from batcher.columns import ABOUT
    from batcher.part import RESULT

    return [
        Entry(field.name, _type_words(field.type), ABOUT.get(field.name, "") + _fields(field.type)) for field in RESULT
    ]


def _fields(kind: Any) -> str:
    """The fields of a struct, in words."""
    return f" Fields: {', '.join(f'`{field.name}`' for field in kind)}." if _type_words(kind) == "struct" else ""


def _type_words(kind: Any) -> str:
    words = {"int64": "whole number", "string": "text", "double": "number", "bool": "true or false"}
    if str(kind).startswith("struct"):
        return "struct"
    if str(kind).startswith("timestamp"):
        return f"time in UTC, in {'seconds' if kind.unit == 's' else 'microseconds'}"
    return words.get(str(kind), str(kind))


# -- what happens ------------------------------------------------------------------------------------------------------


def exit_codes() -> list[Block]:
    """The exit codes of the command line."""
    rows = ((str(code), _exit_words(code)) for code in EXIT_CODES)
    return [Table((("CODE", "MEANING, AND WHAT TO DO"), *rows))]


def _exit_words(code: int) -> str:
    exit = EXIT_CODES[code]
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in (exit.meaning, exit.then) if part)


def statuses() -> list[Entry]:
    """What is done after each HTTP status, as the rules of retrying have it."""
    from batcher.retry.rules import rule_of_status

    usual = {rule_of_status(499): "other 4xx", rule_of_status(399): "3xx", rule_of_status(599): "other 5xx"}
    groups: dict[str, list[str]] = {}
    for status in range(300, 600):
        rule = rule_of_status(status)
        groups.setdefault(_rule_words(rule), []).append(usual.get(rule, str(status)))
    entries = [Entry(_ranges(list(dict.fromkeys(found))), "", words) for words, found in groups.items()]
    return sorted(entries, key=lambda entry: entry.name.removeprefix("other "))


def _ranges(words: Sequence[str]) -> str:
    """Statuses in succession as one range."""
    numbers = [int(word) for word in words if word.isdigit()]
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    spans = [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    return ", ".join([*spans, *(word for word in words if not word.isdigit())])


def names_of_errors() -> list[Block]:
    """Error codes and types of providers that mean the same whatever the status."""
    from batcher.retry.rules import NAMES

    groups: dict[str, list[str]] = {}
    for name, rule in NAMES.items():
        groups.setdefault(_rule_words(rule), []).append(f"`{name}`")
    return [Paragraph(f"{', '.join(found)}: {words}", bullet=True) for words, found in groups.items()]


def _rule_words(rule: Any) -> str:
    """A rule in words."""
    from batcher.records import Signal
    from batcher.retry.rules import Action, Doubt

    paid = "; it may have been paid for, and is counted" if rule.ambiguous else ""
    if rule.action is Action.RETRY_FREE:
        slow = "the run slows down" if rule.signal is Signal.THROTTLED else "the run slows down, or waits and probes"
        return f"asked again, which costs the row no attempt; {slow}{paid}"
    if rule.action is Action.RETRY:
        at_most = f", at most {rule.max_retries} times" if rule.max_retries else ""
        return f"asked again with growing pauses{at_most}; uses an attempt{paid}"
    if rule.action is Action.STOP:
        looked = {
            Doubt.PASSING: " (once there were answers: only if that lasts for five minutes)",
            Doubt.ROW: " (once there were answers: only if one more request is refused too, else the row fails)",
        }.get(rule.doubt, "")
        return f"the run stops with exit code {rule.stop.exit_code}: {rule.reason}{looked}"
    return "the row fails" + (f" as `{rule.code}`" if rule.code else "")


# -- commands ----------------------------------------------------------------------------------------------------------


@cache
def _program() -> Any:
    from typer.main import get_command

    from batcher.cli.app import app

    return get_command(app)


def commands() -> Mapping[str, Any]:
    """The commands of the command line by name."""
    found: Mapping[str, Any] = _program().commands
    return found


def section(name: str) -> str:
    """What a command is for."""
    return " ".join((commands()[name].help or "").split())


def all_commands() -> list[Block]:
    """Every command with its arguments and flags."""
    blocks: list[Block] = [Heading("batcher", 3), *_parameters_of(_program())]
    for name in commands():
        blocks += command(name)
    return blocks


def command(name: str) -> list[Block]:
    """One command with its arguments and flags."""
    found = commands()[name]
    usage = " ".join(["batcher", name, *(_usage(p) for p in found.params if p.param_type_name == "argument")])
    if name == "simulator":
        return [Heading(usage, 3), Paragraph(section(name)), *_simulator_options()]
    return [Heading(usage, 3), Paragraph(section(name)), *_parameters_of(found)]


def _usage(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _parameters_of(found: Any) -> Iterator[Entry]:
    for parameter in found.params:
        if parameter.name == "help":
            continue
        if parameter.param_type_name == "argument":
            yield Entry(_usage(parameter), "required" if parameter.required else "", parameter.help or "")
            continue
        value = "" if parameter.is_flag else f" {parameter.metavar}"
        default = "" if parameter.is_flag or parameter.default in (None, [], ()) else f"default {parameter.default}"
        yield Entry(", ".join(parameter.opts) + value, default, parameter.help or "")


def _simulator_options() -> Iterator[Entry]:
    from batcher.simulator.serve import parser

    for action in parser()._actions:
        if "--help" not in action.option_strings:
            value = f" {action.metavar or action.dest.upper()}" if action.nargs != 0 else ""
            text = (action.help or "") % {"default": action.default}
            yield Entry(", ".join(action.option_strings) + value, "", text)


# -- finding -----------------------------------------------------------------------------------------------------------

#: what a line `[[NAME ...]]` of a topic stands for
REFERENCES: Final[dict[str, Callable[..., Sequence[Block]]]] = {
    "keys": keys,
    "parameters": parameters,
    "model-file": model_file,
    "columns": columns,
    "exit-codes": exit_codes,
    "statuses": statuses,
    "error-names": names_of_errors,
    "commands": all_commands,
    "command": command,
}


def names() -> list[str]:
    """The names that `entries_about` knows."""
    return [entry.name for entry in _named()] + [str(code) for code in EXIT_CODES]


def entries_about(name: str) -> list[Block]:
    """What the references say about one name; keys can be named by their last part."""
    if name.isdigit() and int(name) in EXIT_CODES:
        return [Entry(f"exit code {name}", "", _exit_words(int(name)))]
    exact: list[Block] = [entry for entry in _named() if entry.name == name or entry.name.startswith(f"{name}.")]
    return exact or [entry for entry in _named() if entry.name.rpartition(".")[2] == name]


def _named() -> list[Entry]:
    return [entry for blocks in (keys(), columns(), parameters()) for entry in blocks if isinstance(entry, Entry)]
