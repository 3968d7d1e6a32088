"""A row on its way: its request, how often it was asked, and what that means for asking again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from random import Random

from batcher.budget import Reserved
from batcher.journal import ReopenedRow
from batcher.records import ApiError, Draft, Outcome, Prompt, Signal, Spent, Usage
from batcher.retry import Action, Verdict, backoff_s
from batcher.shard import OpenShard

#: refusals, each while other rows succeed, after which a row fails: it is the row that the endpoint cannot bear
MOST_REFUSALS = 50
#: how often a row gets new attempts because the endpoint, not the row, seemed to fail
MOST_EXCUSES = 5

_NOTHING = Spent()


@dataclass(slots=True, eq=False)
class Pending:
    """A row without an outcome, from the time it is read until it has one."""

    row_index: int
    shard: OpenShard
    prompt: Prompt
    #: attempts made and attempts that may have been paid for, those of earlier runs included
    attempts: int = 0
    ambiguous: int = 0
    #: what its answers used, those of earlier runs included; None while there was none
    spent: Spent | None = None
    #: attempts of this run that count against `limits.max_attempts`
    failures: int = 0
    #: of these, how many by error code, for codes with a tighter bound
    by_code: dict[str, int] = field(default_factory=dict)
    #: attempts of this run that count against nothing, but came while other rows succeeded
    refusals: int = 0
    #: when the first attempt came that counts against nothing; infinite while there is none
    refused_since_s: float = inf
    #: when the first of these failures came; infinite while there is none
    failing_since_s: float = inf
    #: how often they were forgiven
    excuses: int = 0
    #: when the current attempt was sent: on the monotonic clock, and seconds since 1970 UTC
    sent_at_s: float = 0.0
    requested_at: float = 0.0
    #: its number among all attempts of this run
    number: int = 0
    #: what the budget has put aside for the current attempt
    reserved: Reserved | None = None
    #: an answer that does not match the job's schema, for which a better one is being asked; `prompt` asks for that
    draft: Draft | None = None
    #: how it stood, if it is asked again that had an outcome
    before: ReopenedRow | None = None

    def exhausted(self, verdict: Verdict, now_s: float, *, succeeded_at_s: float, max_attempts: int) -> bool:
        """Count an attempt that failed; whether it was the last one this row may have.

        `succeeded_at_s` is when any row last succeeded: a refusal counts only if others get through meanwhile.
        """
        if verdict.action is Action.RETRY_FREE:
            self.refusals += succeeded_at_s >= self.sent_at_s
            self.refused_since_s = min(self.refused_since_s, now_s)
            return self.refusals >= MOST_REFUSALS
        code = (verdict.error.code if verdict.error else None) or "unknown"
        self.failures += 1
        self.failing_since_s = min(self.failing_since_s, now_s)
        self.by_code[code] = self.by_code.get(code, 0) + 1
        too_many = verdict.max_retries is not None and self.by_code[code] > verdict.max_retries
        return too_many or self.failures >= max_attempts

    def failed_so_before(self, error: ApiError | None) -> bool:
        """Whether it is asked again after this very failure: then it may fail in the same way whatever others do."""
        before = self.before
        if error is None or before is None or before.kept:
            return False
        return (before.code, before.http_status) == (error.code, error.http_status)

    def signal(self, verdict: Verdict) -> Signal:
        """What a result says about the endpoint: nothing, where the row fails as it did before it was asked again."""
        tells = verdict.signal in (Signal.FAILING, Signal.OVERLOADED)
        return Signal.NONE if tells and self.failed_so_before(verdict.error) else verdict.signal

    def is_excusable(self, sound_at_s: float) -> bool:
        """Whether no request has succeeded that was sent after the row first failed; it is no excuse time and again.

        `sound_at_s` is when the latest request was sent that succeeded. An outage begins while answers are under way.
        """
        return sound_at_s <= self.failing_since_s < inf and self.excuses < MOST_EXCUSES

    def forgive(self) -> None:
        """Count the attempts of this run anew: none of the failures so far was the row's fault."""
        self.failures, self.refusals = 0, 0
        self.failing_since_s = self.refused_since_s = inf
        self.by_code.clear()

    def pause_s(self, verdict: Verdict, random: Random) -> float:
        """Return how long this row waits for its next attempt."""
        if verdict.action is Action.RETRY:
            return backoff_s(self.failures, random, verdict.wait_s)
        # the limiter holds back everybody; the row itself only keeps out of step with the others
        return (verdict.wait_s or 0.0) + random.uniform(0.0, min(60.0, 1.25**self.refusals))

    def used(self, usage: Usage, cost_usd: float | None) -> Spent:
        """Count what an answer used, whether or not it can be kept, and return it."""
        cached = usage.prompt_tokens_details.get("cached_tokens")
        spent = Spent(usage.prompt_tokens, cached, usage.completion_tokens, cost_usd)
        if self.spent is None:
            self.spent = spent
        else:
            self.spent.add(spent)
        return spent

    def outcome(
        self, body: bytes, now_s: float, error: ApiError | None = None, *, valid: bool | None = None
    ) -> Outcome:
        """Return the outcome that the current attempt decided: completed if there is no error."""
        spent = self.spent or _NOTHING
        return Outcome(
            row_index=self.row_index,
            status="completed" if error is None else "failed",
            body=body,
            attempts=self.attempts,
            ambiguous=self.ambiguous,
            latency_s=now_s - self.sent_at_s,
            requested_at=self.requested_at,
            error=error,
            prompt_tokens=spent.prompt_tokens,
            cached_tokens=spent.cached_tokens,
            completion_tokens=spent.completion_tokens,
            cost_usd=spent.cost_usd,
            valid=valid,
        )

    def at_worst(self, outcome: Outcome) -> Outcome:
        """Return an outcome, or in place of a failure the earlier answer, if there is one."""
        if self.draft is None or outcome.status == "completed":
            return outcome
        return replace(
            outcome,
            status="completed",
            body=self.draft.body,
            latency_s=self.draft.latency_s,
            requested_at=self.draft.requested_at,
            error=None,
            valid=False,
        )
