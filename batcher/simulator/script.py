"""A script of faults: which prompts go wrong, and how, attempt by attempt.

The file is a YAML list of rules. A rule has one matcher, a list of answers, and perhaps `forever: true`:

    - {row: 3, answers: [{status: 429, retry_after: 2}, {status: 503}]}    # the 4th distinct prompt to arrive
    - {match: refund, answers: [{cut: 0.5}]}                               # prompts that contain the text
    - {every: 10, answers: [{silent: true}]}                               # every 10th distinct prompt
    - {share: 0.01, answers: [{status: 500}], forever: true}               # this share of prompts, by seed

A prompt belongs to the first rule that matches when it arrives for the first time. Each attempt uses up one answer;
after the last come normal ones, or with `forever` the last again. The keys of an answer are those of `step.CHECKS`.
Knows nothing of HTTP; keeps state for matched prompts only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batcher.errors import JobError
from batcher.simulator.checks import Check, number, text, unknown_keys, whole
from batcher.simulator.step import NORMAL, Step, read_step, step_problems

MATCHERS: dict[str, Check] = {"row": whole(0), "match": text, "every": whole(1), "share": number(0, 1)}
RULE_KEYS = (*MATCHERS, "answers", "forever")


class ScriptError(JobError):
    """The script of the simulator is invalid."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which prompts, and what their attempts get."""

    matcher: str
    value: Any
    answers: tuple[Step, ...]
    forever: bool

    def matches(self, prompt: str, order: int, luck: float) -> bool:
        """`order` counts distinct prompts from 0; `luck` is the prompt's own number from 0 to 1."""
        match self.matcher:
            case "row":
                return bool(order == self.value)
            case "match":
                return self.value in prompt
            case "every":
                return bool((order + 1) % self.value == 0)
        return bool(luck < self.value)

    def answer(self, attempt: int) -> Step:
        """What the attempt gets, counted from 0."""
        if attempt < len(self.answers):
            return self.answers[attempt]
        return self.answers[-1] if self.forever else NORMAL


@dataclass(slots=True)
class Playback:
    """A script as it is being played."""

    rules: tuple[Rule, ...] = ()
    seed: int = 0
    _matched: dict[str, tuple[Rule, int]] = field(default_factory=dict)

    def next_step(self, digest: str, prompt: str, *, order: int | None) -> Step:
        """What this attempt gets. `order` is the prompt's number when it arrives for the first time, else None."""
        if order is not None:
            self._meet(digest, prompt, order)
        entry = self._matched.get(digest)
        if entry is None:
            return NORMAL
        rule, attempt = entry
        self._matched[digest] = (rule, attempt + 1)
        return rule.answer(attempt)

    def _meet(self, digest: str, prompt: str, order: int) -> None:
        for position, rule in enumerate(self.rules):
            if rule.matches(prompt, order, _luck(digest, self.seed, position)):
                self._matched[digest] = (rule, 0)
                return


def _luck(digest: str, seed: int, position: int) -> float:
    drawn = hashlib.blake2b(f"{seed}:{position}:{digest}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") / 2.0**64


def load_script(path: Path) -> tuple[Rule, ...]:
    """Read a script; raises `ScriptError` with every problem in it."""
    import yaml  # only a simulator with a script needs it

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScriptError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScriptError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    problems = [f"{path}: {problem}" for problem in _problems(content)]
    if problems:
        raise ScriptError(problems)
    return tuple(map(_read_rule, content))


def _problems(content: Any) -> Iterator[str]:
    if not isinstance(content, list):
        yield "must be a list of rules, each starting with '- '"
        return
    for position, rule in enumerate(content, 1):
        for problem in _rule_problems(rule):
            yield f"rule {position}{problem}"


def _rule_problems(rule: Any) -> Iterator[str]:
    if not isinstance(rule, dict):
        yield ": must be a mapping"
        return
    yield from (f": {problem}" for problem in unknown_keys(rule, RULE_KEYS))
    matchers = [name for name in MATCHERS if name in rule]
    if len(matchers) != 1:
        yield f": needs exactly one of {', '.join(MATCHERS)}"
    for name in matchers:
        if problem := MATCHERS[name](rule[name]):
            yield f": {name}: {problem}"
    if not isinstance(rule.get("forever", False), bool):
        yield ": forever: must be true or false"
    answers = rule.get("answers")
    if not isinstance(answers, list) or not answers:
        yield ": answers: must be a list of at least one answer"
        return
    for position, answer in enumerate(answers, 1):
        yield from (f", answer {position}: {problem}" for problem in step_problems(answer))


def _read_rule(rule: dict[str, Any]) -> Rule:
    matcher = next(name for name in MATCHERS if name in rule)
    return Rule(matcher, rule[matcher], tuple(map(read_step, rule["answers"])), rule.get("forever", False))
