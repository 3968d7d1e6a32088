"""Whether a higher limit still pays: what is measured, when it is judged, and what follows."""

from __future__ import annotations

from batcher.limits.adaptive import Plateau


class Measured:
    """A plateau guard fed with an endpoint of steady rate; time goes on from call to call."""

    def __init__(self) -> None:
        self.plateau = Plateau()
        self.now_s = 0.0

    def feed(
        self, per_s: float, limit: int, *, seconds: float = 60.0, latency_s: float = 1.0
    ) -> list[tuple[float, float]]:
        """Let successes come in for that long; return the advice that came with them."""
        advice = []
        for _ in range(int(per_s * seconds)):
            self.now_s += 1 / per_s
            settled = self.plateau.succeeded(1.0, latency_s, limit, self.now_s)
            if settled is not None:
                advice.append((round(settled[0], 3), settled[1]))
        return advice


def test_a_rise_that_gains_nothing_is_taken_back() -> None:
    """From 100 to 150 in flight without a fifth more done per second: back to 95 for a minute."""
    measured = Measured()
    assert measured.feed(10, 100, seconds=120) == []
    assert measured.feed(11.9, 150, seconds=61) == [(95.0, 60.0)]


def test_a_rise_that_gains_is_kept() -> None:
    """A fifth more done per second is worth a limit half as high again."""
    measured = Measured()
    measured.feed(10, 100, seconds=120)
    assert measured.feed(12.2, 150, seconds=300) == []


def test_a_small_rise_is_not_judged() -> None:
    """The saw-tooth of cuts and growth below a hard cap is no rise."""
    measured = Measured()
    measured.feed(10, 100, seconds=120)
    assert measured.feed(10, 149, seconds=600) == []


def test_each_further_disappointment_holds_for_longer_and_a_gain_forgets_it() -> None:
    """1, 2, 4, 8, 10, 10 minutes; after a rise that did gain, a minute again."""
    measured = Measured()
    measured.feed(10, 100, seconds=120)
    holds_s = []
    for _ in range(6):
        holds_s += [hold_s for _, hold_s in measured.feed(10, 150, seconds=61)]
        measured.feed(10, 95, seconds=120)
    assert holds_s == [60, 120, 240, 480, 600, 600]
    measured.feed(20, 190, seconds=120)
    assert measured.feed(20, 300, seconds=61) == [(180.5, 60.0)]


def test_a_limit_that_fell_is_measured_afresh() -> None:
    """What was done per second before the server took slots away is no yardstick for what is done after."""
    measured = Measured()
    measured.feed(40, 500, seconds=120)
    measured.feed(10, 100, seconds=120)
    assert measured.feed(15, 150, seconds=300) == []


def test_few_answers_and_single_waves_of_answers_are_no_measure() -> None:
    """A measurement takes in a hundred successes and twice the latency, however long that takes."""
    measured = Measured()
    measured.feed(1, 100, seconds=290)
    assert measured.feed(1, 150, seconds=109) == []
    assert measured.feed(1, 150, seconds=91) == [(95.0, 60.0)]

    measured = Measured()
    measured.feed(10, 100, seconds=600, latency_s=100)
    assert measured.feed(10, 150, seconds=190, latency_s=100) == []
    assert measured.feed(10, 150, seconds=210, latency_s=100) == [(95.0, 60.0)]
