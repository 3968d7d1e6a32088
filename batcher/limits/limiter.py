"""The one gate every request passes: how many may be sent now, and when that changes.

`Limiter` puts together the adaptive number in flight, the pauses the server asks for, the rates the job file sets, and
the three states in which one request at a time is let out: the first of a run, an outage, an inquiry. It is a plain
state machine: the worker asks `allowance`, says `sent` and `answered`, and sleeps until `wake_at` when nothing may be
sent. It knows no rows, no HTTP and no event loop; what a result means has been decided before (`Signal`). Time is an
argument, in seconds of a monotonic clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from random import Random

from batcher.limits.adaptive import USED_SHARE, AdaptiveLimit, Plateau
from batcher.limits.bound import CEILING, CPU, OVERLOAD, PLATEAU, QUEUE, QUOTA, RATE_LIMIT, Bounds
from batcher.limits.pacing import Bucket, TokenBucket, header_wait_s
from batcher.limits.queue import HOLD_S, ServerQueue
from batcher.limits.single import Single
from batcher.limits.stray import Stray
from batcher.limits.words import in_words
from batcher.records import Signal

#: a longer wait asked for by the server is no matter of one row: the run pauses, whatever the result was
RUN_WAIT_S = 120.0
#: no wait is taken for longer than this, ten years: it only has to be too long for any `max_outage_s`
_FOREVER_S = 3.2e8
#: a cut is worth mentioning for this long
_RECENT_CUT_S = 60.0

#: refusals, and what they say is the bound
_BOUNDS = {Signal.THROTTLED: RATE_LIMIT, Signal.OVERLOADED: OVERLOAD}

_SUCCESS, _NONE = Signal.SUCCESS, Signal.NONE


class Limiter:
    """The limits of one endpoint and model, as one process sees them."""

    def __init__(
        self,
        ceiling: int,
        *,
        random: Random,
        start: int = 8,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        max_outage_s: float = 43200.0,
        proven: bool = False,
    ) -> None:
        self._ceiling = ceiling
        self._random = random
        self._adaptive = AdaptiveLimit(ceiling, start)
        self._plateau = Plateau()
        self._strays = {signal: Stray() for signal in _BOUNDS}
        #: those that want to know what is sent, and how many requests that were in all
        self._below: tuple[Stray, ...] = ()
        self._sent = 0
        self._queue = ServerQueue()
        #: at the latest answer
        self._in_flight = 0
        self._single = Single(proven=proven, max_outage_s=max_outage_s, random=random)
        self._breaker = self._single.breaker
        #: a success changes nothing but the limit
        self._calm = False
        self._requests = Bucket(requests_per_minute) if requests_per_minute else None
        self._tokens = TokenBucket(tokens_per_minute) if tokens_per_minute else None
        self._rates: dict[Bucket, str] = {}
        if self._requests is not None:
            self._rates[self._requests] = f"limits.requests_per_minute ({requests_per_minute:g})"
        if self._tokens is not None:
            self._rates[self._tokens] = f"limits.tokens_per_minute ({tokens_per_minute:g})"
        #: nothing is sent before this, for this reason
        self._resume_at_s = -inf
        self._pause_reason = ""
        self._pause_bound: str | None = None
        #: the end of the latest pause of more than `RUN_WAIT_S` the server asked for
        self._asked_at_s = self._asked_until_s = -inf
        self._header_wait_at_s = -inf
        self._cut_at_s, self._cut_by = -inf, ""
        #: the limit before the present trouble began
        self._calm_limit = self._adaptive.limit
        #: what last kept the limit from growing, a noun; "" for nothing yet
        self._bound = ""
        self._bounds = Bounds()

    @property
    def limit(self) -> int:
        """How many requests may be in flight at the moment."""
        return self._adaptive.limit

    def allowance(self, in_flight: int, now_s: float) -> int:
        """Return how many more requests may be sent right now."""
        if now_s < self._resume_at_s:
            return 0
        room = self._adaptive.limit - in_flight
        if self._single.states:
            room = self._single.room(room, in_flight, now_s)
        if room <= 0:
            return 0
        for bucket in self._rates:
            paced = bucket.room(now_s)
            if paced < room:
                room = paced
        return room

    def wake_at(self, now_s: float) -> float | None:
        """Return when the allowance can next grow by the passing of time; None if only an answer can change it."""
        at_s = self._resume_at_s
        if self._single.states:
            at_s = max(at_s, self._single.next_probe_s)
        if self._rates:
            at_s = max(at_s, *(bucket.ready_at(now_s) for bucket in self._rates))
        return at_s if at_s > now_s else None

    def sent(self, now_s: float, tokens_estimate: float = 0) -> float:
        """Count a request that is being sent; return the tokens reserved for it, to be handed to `answered`."""
        self._sent += 1
        if self._below:
            for stray in self._below:
                stray.sent_below(self._adaptive.limit)
        if self._single.states:
            self._single.probing(now_s)
        if self._requests is not None:
            self._requests.take(1, now_s)
        if self._tokens is not None:
            return self._tokens.reserve(tokens_estimate, now_s)
        return 0.0

    def answered(
        self,
        sent_at_s: float,
        now_s: float,
        signal: Signal,
        *,
        in_flight: int,
        wait_s: float | None = None,
        tokens: int | None = None,
        reserved: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Learn from the result of a request.

        `in_flight` counts the requests in flight with this one still among them, `wait_s` is what the server asked to
        wait, `tokens` what the request used (None: unknown, its reservation stands), `reserved` what `sent` returned
        (None: the usual), `headers` those of the reply in lower case.
        """
        self._in_flight = in_flight
        if tokens is not None and self._tokens is not None:
            self._tokens.settle(reserved, tokens)
        if signal is _SUCCESS:
            if not self._calm:
                self._recover(sent_at_s)
            self._succeeded(sent_at_s, now_s, in_flight, tokens)
            if headers:
                self._heed(headers, tokens or 1, sent_at_s, now_s)
            return
        self._calm = False
        wait_s = min(wait_s, _FOREVER_S) if wait_s is not None and wait_s > 0 else 0.0
        if signal in _BOUNDS and self._is_stray(self._strays[signal], sent_at_s):
            signal = _NONE  # its row waits as it was told, nobody else
        if wait_s > RUN_WAIT_S:
            self._asked_at_s, self._asked_until_s = now_s, max(self._asked_until_s, now_s + wait_s)
        elif signal is _NONE or (signal is Signal.FAILING and not self._breaker.is_open):
            wait_s = 0.0  # what is no matter of load concerns its row
        self._single.failed(signal, sent_at_s, now_s)
        if signal is _NONE:
            self._pause(wait_s, now_s, "the server asks to wait", None)
        else:
            wait_s = max(wait_s, self._failed(signal, sent_at_s, now_s))
            self._pause(wait_s, now_s, self._breaker.last_word, _BOUNDS.get(signal))
        self._single.look()

    def _recover(self, sent_at_s: float) -> None:
        """Forget the trouble, now that a request has succeeded."""
        if sent_at_s > self._asked_at_s:
            self._asked_until_s = -inf
        if self._breaker.is_open:
            self._adaptive.restart(self._calm_limit)
        self._calm = self._single.succeeded(sent_at_s)

    def _succeeded(self, sent_at_s: float, now_s: float, in_flight: int, tokens: int | None) -> None:
        adaptive = self._adaptive
        adaptive.succeeded(in_flight, now_s)
        settled = self._plateau.succeeded(tokens or 1, now_s - sent_at_s, adaptive.limit, now_s)
        if settled is not None:
            adaptive.settle(*settled, now_s)
            self._bound = PLATEAU

    def _failed(self, signal: Signal, sent_at_s: float, now_s: float) -> float:
        """Cut the limit if that is due; return for how long to pause."""
        if self._breaker.is_calm:
            self._calm_limit = self._adaptive.limit
        if not self._single.states:  # what fails alone was not too much
            self._cut(signal, sent_at_s, now_s)
        return self._breaker.failed(signal, sent_at_s, now_s, self._adaptive.limit)

    def _cut(self, signal: Signal, sent_at_s: float, now_s: float) -> None:
        adaptive, cut = self._adaptive, False
        before = adaptive.limit
        if signal is Signal.THROTTLED:
            cut = adaptive.throttled(sent_at_s, now_s, clearly=self._strays[signal].background > 0)
        elif signal is Signal.OVERLOADED:
            cut = adaptive.overloaded(sent_at_s, now_s)
        if cut:
            self._cut_at_s, self._cut_by, self._bound = now_s, _BOUNDS[signal], _BOUNDS[signal]
            self._strays[signal].was_cut(before, adaptive.limit, now_s)
            self._below = tuple(stray for stray in self._strays.values() if stray.is_below)

    def outage(self, now_s: float) -> None:
        """Take it for an outage from now on: single probes, until something succeeds. For callers that know better."""
        if self._breaker.is_calm:
            self._calm_limit = self._adaptive.limit
        self._breaker.open(now_s)
        self._calm = False
        self._single.look()

    def gauged(self, running: int, waiting: int, now_s: float) -> None:
        """Take a reading of the server's own gauges: so many requests run there, so many wait, whoever sent them."""
        enough = self._queue.read(running, waiting, self._in_flight, self._adaptive.limit)
        if self._queue.has_room and self._bound == QUEUE:
            self._bound = ""
            self._adaptive.hasten()
        if not self._queue.is_long:
            return
        self._adaptive.hold(now_s + HOLD_S)
        self._bound = QUEUE
        if enough is not None:
            self._adaptive.settle(enough, HOLD_S, now_s)
            self._cut_at_s, self._cut_by = now_s, self._bound

    def suspect(self, reason: str, waits_s: Sequence[float], sent_at_s: float, now_s: float) -> bool:
        """Count a refusal that may concern the whole run; return True once that is confirmed.

        The first one opens an inquiry: nothing is sent but single requests, the first `waits_s[0]` after now, each
        other so long after the refusal of the one before. A success of one of them ends it; it is confirmed when the
        last one is refused as well. What was sent before the inquiry changes nothing. Where inquiries have ended with
        a success before, it takes several refusals in a row to open the next; until then False is all that comes of
        it. Call `answered` for the same result too, before or after.
        """
        confirmed = self._single.inquiry.refused(reason, waits_s, sent_at_s, now_s)
        self._calm = False
        self._single.look()
        return confirmed

    @property
    def suspecting(self) -> bool:
        """Whether an inquiry is open."""
        return self._single.inquiry.is_open

    def _is_stray(self, stray: Stray, sent_at_s: float) -> bool:
        """Count a refusal; whether it is one that comes at any load, so that only its own row is to wait."""
        stray.refused(sent_at_s, self._adaptive.limit, self._sent)
        former = stray.verdict()
        if former is not None:
            self._adaptive.regrow(former)
            self._cut_at_s, self._resume_at_s, self._bound = -inf, -inf, ""
        return stray.ignores(self._adaptive.limit)

    def _heed(self, headers: Mapping[str, str], tokens: int, sent_at_s: float, now_s: float) -> None:
        """Wait as the quota headers advise, unless they are older than the last time they were heeded."""
        if sent_at_s <= self._header_wait_at_s:
            return
        wait_s = header_wait_s(headers, tokens)
        if wait_s > 0:
            self._header_wait_at_s = now_s
            self._pause(wait_s, now_s, "the server's quota is used up for now", QUOTA)

    def _pause(self, wait_s: float, now_s: float, reason: str, bound: str | None) -> None:
        """Send nothing for at least `wait_s`; the end is spread, so that many clients do not come back as one."""
        if wait_s <= 0:
            return
        resume_at_s = now_s + wait_s + self._random.uniform(0, min(wait_s / 2, 1 + wait_s / 10))
        if resume_at_s > self._resume_at_s:
            self._resume_at_s, self._pause_reason, self._pause_bound = resume_at_s, reason, bound

    def hopeless(self, now_s: float) -> str | None:
        """Return why the run should stop, in words, or None to go on."""
        return self._single.hopeless(now_s, self._asked_until_s)

    def why(self, now_s: float) -> str | None:
        """Say why nothing or less is sent at the moment, and until when; None if nothing holds the run back."""
        if words := self._single.why(now_s, self._resume_at_s):
            return words
        if now_s < self._resume_at_s:
            return f"{self._pause_reason}, next request in {in_words(self._resume_at_s - now_s)}"
        for bucket, rate in self._rates.items():
            ready_s = bucket.ready_at(now_s) - now_s
            if ready_s > 0:
                return f"held to {rate}, next request in {in_words(ready_s)}"
        if now_s - self._cut_at_s < _RECENT_CUT_S:
            return f"held to {self.limit} requests at once by {self._cut_by}"
        return None

    def looked(self, in_flight: int, now_s: float, *, unused_for: str | None = None, cpu_s: float = 0.0) -> None:
        """Take note of what holds the run back just now; call it a few times a second, for `found`.

        `unused_for` is what the rows are missing for that could be sent: `INPUT` or `DISK` of `limits.bound`, None if
        none are missing or none are left. `cpu_s` is the CPU time of the thread that sends, so far.
        """
        busy = self._bounds.is_busy(cpu_s, now_s)
        self._bounds.note(CPU if busy else self._bound_now(in_flight, now_s, unused_for), now_s)

    def _bound_now(self, in_flight: int, now_s: float, unused_for: str | None) -> str | None:
        if self._single.states:
            return None
        if now_s < self._resume_at_s:
            return self._pause_bound
        for bucket, rate in self._rates.items():
            if bucket.ready_at(now_s) > now_s:
                return rate
        if in_flight < USED_SHARE * self.limit:
            return unused_for
        return CEILING if self.limit >= self._ceiling else self._bound

    def found(self) -> str:
        """Say which limit was found and what bounds it."""
        bound = CEILING if self.limit >= self._ceiling else self._bound
        words = f"held there by {bound}" if bound else "no bound was met"
        return self._bounds.said(self.limit) or f"{self.limit} requests at once, {words}"
