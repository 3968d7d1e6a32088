"""Answers of a job with a schema: which one a row ends with, and which are asked for again.

An answer that does not match is kept as the row's draft, durable like an outcome, and the model is shown what is wrong
with it. Whatever comes of that, the row ends completed: with the new answer, or if none came, or only the draft is
JSON, with that. An answer is a success of its attempt, so a repair counts among the row's attempts, but not among the
failures that `limits.max_attempts` bounds. Nothing is sent or stored here.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from batcher.completion import parse
from batcher.pending import Pending
from batcher.records import Completion, Draft, Outcome, Prompt
from batcher.structured import Answers


class Repairing:
    """Decides about completions. Without a schema every one is the row's outcome."""

    def __init__(self, answers: Answers | None) -> None:
        self._answers = answers

    def decide(self, pending: Pending, completion: Completion | None, body: bytes, now_s: float) -> Outcome | bytes:
        """Return the outcome that an answer gives, or the request for a better one; the row then has a draft."""
        if self._answers is None or completion is None:
            return pending.outcome(body, now_s)
        checked, draft = self._answers.check(completion), pending.draft
        repairs = 0 if draft is None else draft.repairs
        if not checked.valid and self._answers.is_worth_repairing(completion, repairs):
            pending.refusals, pending.refused_since_s = 0, inf  # the endpoint can bear this row
            latency_s = now_s - pending.sent_at_s
            pending.draft = Draft(pending.row_index, body, latency_s, pending.requested_at, repairs + 1)
            return self._answers.repair(pending.prompt.body, completion, checked)
        outcome = pending.outcome(body, now_s, valid=checked.valid)
        if checked.text is None and draft is not None and self._is_json(draft):
            return pending.at_worst(replace(outcome, status="failed"))
        return outcome

    def _is_json(self, draft: Draft) -> bool:
        completion = parse(draft.body)
        return (
            self._answers is not None
            and isinstance(completion, Completion)
            and self._answers.check(completion).text is not None
        )


def resumed(prompt: Prompt, draft: Draft, answers: Answers) -> Prompt:
    """Return the request for a better answer than the draft of an earlier run; `prompt` is the row's first request."""
    completion = parse(draft.body)
    if not isinstance(completion, Completion):
        return prompt
    return Prompt(answers.repair(prompt.body, completion, answers.check(completion)), prompt.json_mode)
