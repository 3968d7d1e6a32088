"""What a text says about the command line and the job file, held against what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from batcher.cli.help.reference import commands, keys, names
from batcher.cli.help.topics import TOPICS

SECTIONS = ("endpoint", "input", "output", "limits", "pricing", "engine")
_CODE = re.compile(r"^```[a-z]*\n(.*?)^```|`([^`\n]+(?:\n[^`\n]+)?)`", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"(?<![\w/.-])(?<!from )(?:\S*/)?batcher[ \n]+([a-z][a-z-]*)([^\n|;&#]*)")
_FLAG = re.compile(r"(?<!\S)(--?[A-Za-z][\w-]*)")
_KEY = re.compile(rf"(?<![\w./-])((?:{'|'.join(SECTIONS)})\.[a-z_.]*[a-z_])")


def code_of(markdown: str) -> list[str]:
    """Everything that is marked as code: blocks, and words between backticks."""
    return [block or words for block, words in _CODE.findall(markdown)]


def wrong_mentions(markdown: str) -> list[str]:
    """The commands, flags, topics and keys that a text names as code but that do not exist."""
    return [wrong for code in code_of(markdown) for wrong in _wrong_in(code)]


def _wrong_in(code: str) -> Iterator[str]:
    known = {key.name for key in keys()}  # type: ignore[union-attr]
    yield from (f"no key {key}" for key in _KEY.findall(code) if key not in known)
    if code.startswith("-") and "\n" not in code and " " not in code.rstrip():
        every = {flag for command in commands().values() for flag in flags_of(command)}
        if _FLAG.fullmatch(code) and code not in every:
            yield f"no command has {code}"
    for command, rest in _CALL.findall(code):
        if command not in commands():
            yield f"no command `batcher {command}`"
            continue
        yield from (
            f"`batcher {command}` has no {flag}"
            for flag in _FLAG.findall(rest)
            if flag not in flags_of(commands()[command])
        )
        topic = next(iter(rest.split()), "")
        if command == "help" and topic.islower() and topic not in (*TOPICS, *commands(), *names()):
            yield f"no help about {topic}"


def flags_of(command: Any) -> set[str]:
    """The flags that a command takes; those of the simulator are its own."""
    if command.name == "simulator":
        from batcher.simulator.serve import parser

        return {flag for action in parser()._actions for flag in action.option_strings}
    return {"-h", "--help"} | {flag for parameter in command.params for flag in parameter.opts if flag.startswith("-")}
