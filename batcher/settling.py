"""What follows from an attempt: its row is completed, waits, fails, or puts the whole run in doubt.

A failure can be the row's fault, the endpoint's or the job's, and one answer does not tell which. So it is believed
only once something else succeeds:

    held       rows that failed since the last success (see `guard`); the next success lets their failures count, and
               excuses those that only ran out of attempts meanwhile
    suspects   rows that were refused for a reason that concerns every row (key, address, model) while others succeed;
               single requests find out which it is (see `limits.inquiry`)

Everything here runs on the event loop and awaits nothing. It sends nothing either: rows that are to be asked again go
back to the backlog.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import Random

from batcher.backlog import Backlog
from batcher.budget import Budget, Reserved
from batcher.errors import BatcherError
from batcher.guard import FIRST, Guard, Held
from batcher.job import Job
from batcher.journal import Journal
from batcher.limits import Limiter
from batcher.limits.quota import RetryQuota, UnsureBudget, as_leak
from batcher.outage import Outages
from batcher.pending import Pending
from batcher.pricing import Prices
from batcher.progress import Figures
from batcher.records import Draft, Fault, FaultKind, Outcome, Reply, Signal, Spent, Totals
from batcher.repairing import Repairing
from batcher.retry import Action, Doubt, Verdict, is_row_specific, safely_judged
from batcher.structured import Answers
from batcher.window import Window

_log = logging.getLogger(__name__)

#: when the requests go out that are to find out about a refusal: after it, and after each that was refused as well
INQUIRIES_S: dict[Doubt, tuple[float, ...]] = {Doubt.PASSING: (15.0, 75.0, 210.0), Doubt.ROW: (0.0, 0.0, 1.0)}
#: where no row is left that could succeed, rows that ran out of attempts get new ones until nothing has succeeded for
#: so long: a short outage should not cost the last rows of a run
END_PATIENCE_S = 60.0
#: rows that may be refused at the very end, where no other is left to ask with, and are believed
FEW_SUSPECTS = 2
#: and for how long they must have met nothing but an overloaded endpoint: an outage of minutes is waited for
OVERLOADED_AT_THE_END_S = 900.0
#: attempts whose client raises before anything has succeeded
FEW_MISTAKES = 4


@dataclass(slots=True, kw_only=True)
class Rules:
    """What decides about rows and money, apart from the answers themselves."""

    limiter: Limiter
    guard: Guard
    random: Random
    budget: Budget = field(default_factory=lambda: Budget(None, None, None, Totals(), None))
    prices: Prices | None = None


@dataclass(slots=True)
class Suspect:
    """A row whose refusal may concern the whole run."""

    pending: Pending
    verdict: Verdict
    outcome: Outcome


class Settling:
    """Acts on the results of attempts."""

    def __init__(
        self,
        job: Job,
        journal: Journal,
        rows: Backlog,
        window: Window,
        figures: Figures,
        rules: Rules,
        stop: Callable[[BatcherError], None],
        answers: Answers | None = None,
    ) -> None:
        self._journal, self._rows, self._window, self._figures = journal, rows, window, figures
        self._limiter, self._guard, self._random = rules.limiter, rules.guard, rules.random
        self._budget, self._prices = rules.budget, rules.prices
        self._stop = stop
        self._repairing = Repairing(answers)
        self._max_attempts = job.limits.max_attempts
        self._quota = RetryQuota(job.limits.concurrency)
        self._unsure = UnsureBudget(job.limits.max_unsure_share, job.limits.concurrency)
        self._suspects: list[Suspect] = []
        #: of this run; attempts that were lost while others succeeded
        self._completed = self._ambiguous = 0
        self._succeeded_at_s = -inf
        #: when the latest request was sent that succeeded
        self._sound_at_s = -inf
        self._outages = Outages()
        #: attempts whose client raised, since then
        self._mistakes = 0
        #: the latest result that was no completion, in words
        self.trouble = ""
        #: the run is to stop: nothing is asked again, and what is held stays pending
        self.stopping = False

    def __repr__(self) -> str:
        return f"<Settling: {self._guard}, {len(self._suspects)} suspects>"

    @property
    def lost(self) -> int:
        """Attempts of this run that may have been paid for in vain, while others succeeded."""
        return self._ambiguous

    def sending(self, pending: Pending, now_s: float, wall_s: float, reserved: Reserved) -> None:
        """Note that an attempt begins."""
        pending.sent_at_s, pending.requested_at, pending.reserved = now_s, wall_s, reserved
        pending.number = self._outages.sent()

    def settle(self, pending: Pending, result: Reply | Fault, now_s: float, wall_s: float, in_flight: int) -> None:
        """Act on the result of an attempt; `in_flight` counts it still."""
        verdict = safely_judged(result, json_mode=pending.prompt.json_mode, now_s=wall_s)
        usage = verdict.completion.usage if verdict.completion else None
        self._limiter.answered(
            pending.sent_at_s,
            now_s,
            pending.signal(verdict),
            wait_s=verdict.wait_s,
            tokens=usage.total_tokens if usage else None,
            in_flight=in_flight,
            headers=result.headers if isinstance(result, Reply) else None,
        )
        pending.attempts += 1
        self._count_money(pending, verdict)
        if verdict.action is Action.COMPLETE:
            self._complete(pending, verdict, result, now_s)
            return
        self.trouble = result.message if isinstance(result, Fault) else f"HTTP {result.status}"
        if verdict.action is Action.STOP:
            self._refused(pending, verdict, result, now_s)
        elif verdict.action is Action.FAIL:
            self._fail(Held(pending, pending.outcome(result.body, now_s, verdict.error)), now_s)
        else:
            self._retry(pending, verdict, result, now_s)
        if verdict.ambiguous and self._unsure.spent(self._ambiguous, self._completed):
            self._stop(as_leak(self._ambiguous, self._completed))

    def mistake(self, error: Exception) -> Fault:
        """Return what an attempt met whose client raised: a mistake of ours, which a row or two may bring about.

        Raises `error` again if there are too many without a success between. Its words may quote the request, so they
        are not repeated.
        """
        self._mistakes += 1
        if self._mistakes > (FIRST if self._completed else FEW_MISTAKES):
            raise error
        name = type(error).__name__
        _log.warning("an attempt ended with %s, which is a mistake of batcher's; please report it", name)
        return Fault(FaultKind.DISCONNECTED, f"the attempt ended with an internal error ({name})")

    # -- money

    def _count_money(self, pending: Pending, verdict: Verdict) -> None:
        spent = None
        if verdict.completion is not None:
            usage = verdict.completion.usage
            cost_usd = self._prices.cost_usd(usage, pending.requested_at) if self._prices else None
            spent = pending.used(usage, cost_usd)
            self._figures.paid(cost_usd)
            self._figures.prompt_tokens += usage.prompt_tokens or 0
            self._figures.completion_tokens += usage.completion_tokens or 0
        if verdict.ambiguous:
            spent = spent or Spent()  # nobody says what it used
            pending.ambiguous += 1
            self._figures.ambiguous += 1
            self._ambiguous += self._succeeded_at_s >= pending.sent_at_s  # while all fail, the breaker bounds them
        if pending.reserved is not None:
            self._budget.settle(pending.reserved, spent)

    # -- what becomes of the row

    def _complete(self, pending: Pending, verdict: Verdict, result: Reply | Fault, now_s: float) -> None:
        self._succeeded_at_s = now_s
        self._sound_at_s = max(self._sound_at_s, pending.sent_at_s)
        self._completed += 1
        self._mistakes = 0
        if self._outages.succeeded(pending.number, now_s):
            self._forgive_waiting()
        self._quota.succeeded()
        self._take(pending, self._repairing.decide(pending, verdict.completion, result.body, now_s), now_s)
        if not self.stopping:
            for held in self._guard.succeeded(pending.sent_at_s):
                self._decide(held, now_s)
            if self._suspects and not self._limiter.suspecting:
                self._clear(now_s, pending.sent_at_s)

    def _take(self, pending: Pending, decided: Outcome | bytes, now_s: float) -> None:
        """Record an answer, or ask for a better one at once; the one there is becomes durable before."""
        if isinstance(decided, Outcome):
            self._rows.settled(pending)
            self._window.record(decided, pending.shard)
            return
        self._rows.rewritten(pending, decided)
        self._figures.retries += 1
        self.release(pending, pending.draft)
        self._rows.wait(pending, now_s)

    def _record_failure(self, outcome: Outcome, pending: Pending) -> None:
        """Record that a row got no answer; one that has an earlier answer ends with that."""
        self._window.record(pending.at_worst(outcome), pending.shard)

    def _forgive_waiting(self) -> None:
        """After an outage the failures of rows that wait do not count, if all of them fell into it."""
        for waiting in self._rows.all_waiting():
            if self._outages.covers(waiting.failing_since_s):
                waiting.forgive()

    def _retry(self, pending: Pending, verdict: Verdict, result: Reply | Fault, now_s: float) -> None:
        self._outages.failed(pending.number, now_s)
        succeeded_at_s = self._succeeded_at_s
        exhausted = pending.exhausted(verdict, now_s, succeeded_at_s=succeeded_at_s, max_attempts=self._max_attempts)
        if exhausted or self._is_unbearable(pending, verdict, now_s):
            excusable = verdict.action is Action.RETRY and pending.is_excusable(self._sound_at_s)
            self._fail(Held(pending, pending.outcome(result.body, now_s, verdict.error), excusable), now_s)
            return
        pause_s = pending.pause_s(verdict, self._random)
        if verdict.action is Action.RETRY:
            pause_s += self._quota.delay_s(now_s)
        self._figures.retries += 1
        self.release(pending)
        self._rows.wait(pending, now_s + pause_s)

    def _is_unbearable(self, pending: Pending, verdict: Verdict, now_s: float) -> bool:
        """A last row that overloads an endpoint, which took all the others, for so long is what it cannot bear."""
        long = now_s - pending.refused_since_s >= OVERLOADED_AT_THE_END_S
        overloads = verdict.action is Action.RETRY_FREE and verdict.signal is Signal.OVERLOADED
        return long and overloads and self._completed > 0 and self._rows.is_down_to(FEW_SUSPECTS - 1)

    def release(self, pending: Pending, draft: Draft | None = None) -> None:
        """Note that a row is not on its way any more, and has no outcome; `draft` is an answer that is news."""
        self._journal.release(
            pending.row_index, attempts=pending.attempts, ambiguous=pending.ambiguous, spent=pending.spent, draft=draft
        )

    def _fail(self, held: Held, now_s: float) -> None:
        """Record a failure, or hold it back until a success shows that it is the row's own."""
        self._rows.settled(held.pending)
        error = held.outcome.error
        if held.pending.failed_so_before(error) or (error is not None and is_row_specific(error)):
            self._record_failure(held.outcome, held.pending)
            return
        self.release(held.pending)
        if self._guard.failed(held):
            self._too_many(now_s)

    def _too_many(self, now_s: float) -> None:
        """Stop: these are no single rows' failures. If it is the endpoint that is down, wait for it instead."""
        if not self._guard.is_outage:
            self._stop(self._guard.as_error())
            return
        self._limiter.outage(now_s)
        for held in self._guard.give_up_holding():
            self._ask_again(held.pending, now_s)

    def _decide(self, held: Held, now_s: float) -> None:
        """A failure that was held back counts, unless the row is excused: by an outage, or once on suspicion of one."""
        if held.excusable and (not held.pending.excuses or self._outages.covers(held.pending.failing_since_s)):
            self._ask_again(held.pending, now_s)
        else:
            self._record_failure(held.outcome, held.pending)

    def _ask_again(self, pending: Pending, now_s: float) -> None:
        pending.forgive()
        self._take_back(pending, now_s)

    def _take_back(self, pending: Pending, now_s: float) -> None:
        pending.excuses += 1
        self._figures.retries += 1
        wait_s = 2.0**pending.excuses
        self._rows.unsettled(pending, now_s + self._random.uniform(wait_s / 2, wait_s))

    # -- refusals that may concern the whole run

    def _refused(self, pending: Pending, verdict: Verdict, result: Reply | Fault, now_s: float) -> None:
        if verdict.doubt is Doubt.ROW and pending.failed_so_before(verdict.error):
            self._rows.settled(pending)
            self._record_failure(pending.outcome(result.body, now_s, verdict.error), pending)
            return
        self.release(pending)
        # a key that is refused at the start is wrong; about a single row one knows more from earlier runs, too
        had_answers = self._guard.proven if verdict.doubt is Doubt.ROW else self._succeeded_at_s > -inf
        if verdict.doubt is None or not had_answers:
            self._stop(verdict.as_error())
            return
        if self.stopping:
            return
        self._rows.settled(pending)
        self._suspects.append(Suspect(pending, verdict, pending.outcome(result.body, now_s, verdict.error)))
        waits_s = INQUIRIES_S[verdict.doubt]
        if self._limiter.suspect(verdict.reason or "refused", waits_s, pending.sent_at_s, now_s):
            self._stop(verdict.as_error())

    def _clear(self, now_s: float, sent_at_s: float = inf) -> None:
        """The refusals did not concern the whole run: a request succeeded that was sent at `sent_at_s`, not before."""
        suspects = [one for one in self._suspects if one.pending.sent_at_s <= sent_at_s]
        self._suspects = [one for one in self._suspects if one.pending.sent_at_s > sent_at_s]
        for suspect in suspects:
            if suspect.verdict.doubt is Doubt.ROW:
                self._record_failure(suspect.outcome, suspect.pending)
            else:
                self._ask_again(suspect.pending, now_s)

    # -- the end

    def conclude(self, now_s: float) -> bool:
        """Decide on held and suspect rows, as no other row is left that could succeed; True if none remains."""
        if self._suspects:
            self._conclude_suspects(now_s)
            return False
        guard = self._guard
        if not guard.held:
            return True
        if not guard.may_believe:
            self._too_many(now_s)
            return False
        patient = now_s - self._succeeded_at_s < END_PATIENCE_S
        for held in guard.give_up_holding():
            if held.excusable and patient:
                self._take_back(held.pending, now_s)  # for one attempt: it may be the row after all
            else:
                self._record_failure(held.outcome, held.pending)
        return False  # their commits are awaited

    def _conclude_suspects(self, now_s: float) -> None:
        """A last row or two may be refused for their own sake. More of them are what is left to ask again with."""
        if len(self._suspects) <= FEW_SUSPECTS and all(one.verdict.doubt is Doubt.ROW for one in self._suspects):
            self._clear(now_s)
            return
        suspects, self._suspects = self._suspects, []
        for suspect in suspects:
            self._ask_again(suspect.pending, now_s)
