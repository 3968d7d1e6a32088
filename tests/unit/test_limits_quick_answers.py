"""The limiter against servers whose answers take less time than a pause after a refusal, or that lose most slots."""

from __future__ import annotations

from random import Random

import pytest

from batcher.limits import Limiter
from tests.server_models import Server, Slots, simulate

SLOTS, CEILING = 40, 64


class Quick(Slots):
    """Slots that are free again after less than half a second, as where a label is asked for."""

    def __init__(self, latency_s: float) -> None:
        Server.__init__(self, latency_s=latency_s)
        self._slots_at = lambda now_s: SLOTS


@pytest.mark.parametrize("latency_s", [0.1, 0.3])
def test_quick_answers_from_few_slots(latency_s: float) -> None:
    """Few slots with quick answers are used, and hardly ever is more sent than they take."""
    random = Random(1)
    run = simulate(Limiter(CEILING, random=random), Quick(latency_s), random, seconds=240)
    assert run.refused_share() <= 0.02
    assert run.per_s() >= 0.85 * SLOTS / latency_s


def test_three_of_four_slots_are_taken_away() -> None:
    """A server that takes a quarter of what it took is followed at once, not refuted."""
    shares = []
    for seed in range(4):
        random = Random(seed)
        server = Slots(lambda now_s: SLOTS // 4 if 600 < now_s < 1200 else SLOTS)
        shares.append(simulate(Limiter(CEILING, random=random), server, random, seconds=1800).refused_share())
    assert max(shares) <= 0.05, shares
