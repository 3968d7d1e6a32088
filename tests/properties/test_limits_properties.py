"""What holds for the limiter whatever happens: bounds, causes of growth and cuts, and that it never gets stuck."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batcher.limits import Limiter
from batcher.limits.pacing import header_wait_s
from batcher.records import Signal

FAILURES = [Signal.THROTTLED, Signal.OVERLOADED, Signal.FAILING, Signal.UNREACHABLE]
WAITS_S = st.one_of(st.none(), st.floats(0, 10_000), st.sampled_from([float("nan"), float("inf"), -1.0]))


class AnyRun(RuleBasedStateMachine):
    """Requests are sent as allowed and answered in any order with anything, while time passes as it likes."""

    @initialize(
        ceiling=st.integers(1, 300),
        start=st.integers(1, 64),
        requests=st.sampled_from([None, 1, 90, 60_000]),
        tokens=st.sampled_from([None, 500, 1_000_000]),
        seed=st.integers(0, 9),
        proven=st.booleans(),
    )
    def begin(
        self, ceiling: int, start: int, requests: int | None, tokens: int | None, seed: int, proven: bool
    ) -> None:
        """Set up a limiter of any kind."""
        self.ceiling = ceiling
        self.gate = Limiter(
            ceiling,
            random=Random(seed),
            start=start,
            requests_per_minute=requests,
            tokens_per_minute=tokens,
            proven=proven,
        )
        self.first_limit = self.highest_limit = self.gate.limit
        self.now_s = 1000.0
        self.in_flight: list[tuple[float, float]] = []
        self.succeeded = False
        self.failures = 0
        self.outage = False
        self.cut_at_s = float("-inf")

    @rule(at_most=st.integers(1, 40), tokens=st.floats(0, 100_000))
    def send(self, at_most: int, tokens: float) -> None:
        """Send some of what is allowed."""
        for _ in range(min(at_most, self.gate.allowance(len(self.in_flight), self.now_s))):
            self.in_flight.append((self.now_s, self.gate.sent(self.now_s, tokens)))
            self.now_s += 0.0001

    @rule(seconds=st.one_of(st.floats(0.0001, 1), st.floats(1, 4000)))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds

    @rule()
    def sleep(self) -> None:
        """Sleep for as long as the limiter says."""
        wake_s = self.gate.wake_at(self.now_s)
        if wake_s is not None and wake_s < 1e8:
            self.now_s = wake_s

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 300), tokens=st.one_of(st.none(), st.integers(0, 100_000)), times=st.integers(1, 300))
    def succeed(self, which: int, tokens: int | None, times: int) -> None:
        """Some requests succeed; the limit grows only if it was in use."""
        for _ in range(min(times, len(self.in_flight))):
            before, used = self.gate.limit, len(self.in_flight)
            sent_at_s, reserved = self.in_flight.pop(which % len(self.in_flight))
            self.gate.answered(sent_at_s, self.now_s, Signal.SUCCESS, in_flight=used, tokens=tokens, reserved=reserved)
            if used < 0.8 * before and self.failures < 10 and not self.outage:  # which end with another limit
                assert self.gate.limit <= before
            self.outage = False
            self.succeeded, self.failures = True, 0

    @precondition(lambda self: self.in_flight)
    @rule(
        which=st.integers(0, 300),
        signal=st.sampled_from([*FAILURES, Signal.NONE]),
        wait_s=WAITS_S,
        times=st.integers(1, 300),
    )
    def fail(self, which: int, signal: Signal, wait_s: float | None, times: int) -> None:
        """Some requests fail; only one that was sent after the last cut cuts again."""
        for _ in range(min(times, len(self.in_flight))):
            before, used = self.gate.limit, len(self.in_flight)
            sent_at_s, reserved = self.in_flight.pop(which % len(self.in_flight))
            self.gate.answered(sent_at_s, self.now_s, signal, in_flight=used, wait_s=wait_s, reserved=reserved)
            self.failures += 1
            assert self.gate.limit <= max(before, self.highest_limit)  # cuts that were for nothing are taken back
            if self.gate.limit < before:
                assert not self.outage
                assert not self.gate.suspecting
                assert sent_at_s > self.cut_at_s
                assert signal in (Signal.THROTTLED, Signal.OVERLOADED)
                self.cut_at_s = self.now_s

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 300), waits_s=st.lists(st.floats(0, 300), max_size=3))
    def suspect(self, which: int, waits_s: list[float]) -> None:
        """A refusal seems to concern the run; what was sent before an inquiry confirms nothing."""
        sent_at_s, reserved = self.in_flight.pop(which % len(self.in_flight))
        used, before, was_open = len(self.in_flight) + 1, self.gate.limit, self.gate.suspecting
        self.gate.answered(sent_at_s, self.now_s, Signal.NONE, in_flight=used, reserved=reserved)
        confirmed = self.gate.suspect("refused", waits_s, sent_at_s, self.now_s)
        if not was_open:
            self.inquiry_at_s = self.now_s
            assert confirmed == (self.gate.suspecting and not waits_s)
        assert not confirmed or not was_open or sent_at_s > self.inquiry_at_s
        assert self.gate.limit == before

    @rule(running=st.integers(-1, 10**9), waiting=st.integers(-1, 10**9), times=st.integers(1, 4))
    def gauge(self, running: int, waiting: int, times: int) -> None:
        """The server tells how busy it is; that raises no limit, and nobody is sent home at once."""
        for _ in range(times):
            before = self.gate.limit
            self.gate.gauged(running, waiting, self.now_s)
            assert before // 2 <= self.gate.limit <= before
            self.now_s += 5.0

    @rule()
    def declare_an_outage(self) -> None:
        """Somebody knows better."""
        self.gate.outage(self.now_s)
        self.outage = True
        assert self.gate.allowance(1, self.now_s) <= 1

    @invariant()
    def the_limit_stays_in_its_bounds(self) -> None:
        """At least one, at most the ceiling, and no growth before the first success."""
        self.highest_limit = max(self.highest_limit, self.gate.limit)
        assert 1 <= self.gate.limit <= self.ceiling
        if not self.succeeded:
            assert self.gate.limit <= self.first_limit

    @invariant()
    def the_allowance_fits_the_limit(self) -> None:
        """Never negative, never more than the limit leaves; an outage or an inquiry lets a single probe through."""
        used = len(self.in_flight)
        single = self.outage or self.gate.suspecting
        assert 0 <= self.gate.allowance(used, self.now_s) <= (1 if single else max(1, self.gate.limit - used))

    @invariant()
    def it_never_gets_stuck(self) -> None:
        """With nothing in flight, either something may be sent or a moment is named at which it may."""
        now_s = self.now_s
        for _ in range(3):
            if self.gate.allowance(0, now_s):
                return
            wake_s = self.gate.wake_at(now_s)
            assert wake_s is not None
            assert wake_s > now_s
            now_s = wake_s
        assert self.gate.allowance(0, now_s) > 0

    @invariant()
    def it_can_always_be_asked(self) -> None:
        """The words never fail."""
        assert self.gate.found()
        why, hopeless = self.gate.why(self.now_s), self.gate.hopeless(self.now_s)
        assert why is None or why
        assert hopeless is None or hopeless


AnyRun.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)
TestAnyRun = AnyRun.TestCase


@settings(deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "ratelimit",
                *(
                    f"x-ratelimit-{part}-{what}"
                    for part in ("limit", "remaining", "reset")
                    for what in ("requests", "tokens")
                ),
            ]
        ),
        st.one_of(st.text(max_size=20), st.from_regex(r"\d{1,3}(ms|s|m|h)?|;r=\d{1,2};t=\d{1,3}", fullmatch=True)),
    ),
    st.floats(1, 1e9),
)
def test_any_quota_headers_give_a_wait_between_nothing_and_a_minute(headers: dict[str, str], tokens: float) -> None:
    """Headers come from outside: whatever they hold, the answer is a usable number of seconds."""
    assert 0 <= header_wait_s(headers, tokens) <= 60
