"""Which refusals come of sending too much, and which at any load."""

from __future__ import annotations

import pytest

from batcher.limits.stray import Stray


class Watched(Stray):
    """A watch that counts what is sent as the limiter does."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def send(self, limit: int, at_s: float, *, ok: int = 0, refused: int = 0) -> None:
        """Send requests under a limit and get their results, the refusals spread among them."""
        count = ok + refused
        for number in range(count):
            self.total += 1
            self.sent_below(limit)
            if (number + 1) * refused // count > number * refused // count:
                self.refused(at_s, limit, self.total)


def test_refusals_well_below_the_limit_at_which_they_began_are_stray() -> None:
    """One in twenty is refused at 100 and at 50: the limit goes back to 100 and the next one is ignored."""
    stray = Watched()
    stray.send(100, 1.0, ok=95, refused=5)
    stray.was_cut(100, 50, 2.0)
    stray.send(50, 3.0, ok=76, refused=4)
    assert stray.verdict() == 100
    assert stray.ignores(100)


def test_refusals_that_end_with_the_cut_are_the_endpoints_limit() -> None:
    """What is refused at 100 and not at 85 is no chance; a few more refusals above the bound change nothing."""
    stray = Watched()
    stray.send(100, 1.0, ok=80, refused=20)
    stray.was_cut(100, 85, 2.0)
    stray.send(85, 3.0, ok=500)
    stray.send(95, 4.0, ok=10, refused=4)
    assert stray.verdict() is None
    assert not stray.ignores(100)


def test_a_limit_that_was_lowered_is_not_taken_for_chance() -> None:
    """After an hour without a refusal nearly everything is refused at any limit: that is not the same trouble."""
    stray = Watched()
    stray.send(500, 1.0, ok=2000)
    stray.was_cut(500, 425, 2.0)
    stray.send(425, 3.0, ok=2, refused=20)
    assert stray.verdict() is None


def test_an_endpoint_that_refuses_everything_is_never_ignored() -> None:
    """Where nothing succeeds there is nothing to gain by going on as before."""
    stray = Watched()
    stray.send(8, 1.0, refused=8)
    stray.was_cut(8, 6, 2.0)
    stray.send(6, 3.0, refused=8)
    assert stray.verdict() is None


def test_refusals_that_become_rarer_are_forgotten() -> None:
    """After thousands of requests without one, a few refusals are no longer what is usual."""
    stray = Watched()
    stray.send(100, 1.0, ok=95, refused=5)
    stray.was_cut(100, 50, 2.0)
    stray.send(50, 3.0, ok=76, refused=4)
    stray.verdict()
    stray.send(100, 4.0, ok=20_000)
    stray.send(100, 5.0, refused=1)
    assert not stray.background
    assert not stray.ignores(100)


def test_a_clear_rise_of_the_share_counts_again() -> None:
    """Once 5 % are known to be stray, refusals at 40 % are not."""
    stray = Watched()
    stray.send(100, 1.0, ok=95, refused=5)
    stray.was_cut(100, 50, 2.0)
    stray.send(50, 3.0, ok=76, refused=4)
    stray.verdict()
    stray.send(100, 4.0, ok=50, refused=40)
    assert not stray.ignores(100)


def test_refusals_that_become_much_rarer_by_the_cut_are_no_chance() -> None:
    """A third of 150 comes back refused after the cut, one in fifty at 40: the cut did help."""
    stray = Watched()
    stray.send(150, 1.0, ok=150)
    stray.was_cut(150, 40, 2.0)
    for _ in range(50):
        stray.refused(1.0, 40, stray.total)
    stray.send(40, 3.0, ok=196, refused=4)
    assert stray.verdict() is None


def test_refusals_after_the_limit_has_risen_again_are_no_suspects() -> None:
    """What is refused near the limit at which it began says nothing about lower ones."""
    stray = Watched()
    stray.send(100, 1.0, ok=95, refused=5)
    stray.was_cut(100, 80, 2.0)
    assert stray.is_below
    stray.send(80, 3.0, ok=20)
    stray.send(95, 4.0, ok=1)
    assert not stray.is_below
    stray.send(80, 5.0, ok=10, refused=4)
    assert stray.verdict() is None


def test_each_cut_wants_evidence_of_its_own() -> None:
    """A share that rose enough for one cut has to show again before the next."""
    stray = Watched()
    stray.send(100, 1.0, ok=95, refused=5)
    stray.was_cut(100, 50, 2.0)
    stray.send(50, 3.0, ok=76, refused=4)
    stray.verdict()
    stray.send(100, 4.0, refused=16)
    assert not stray.ignores(100)
    stray.was_cut(100, 75, 5.0)
    stray.send(85, 6.0, refused=1)
    assert stray.ignores(85)


def known(share: float) -> Watched:
    """A watch that has found this share of stray refusals, and has seen the limit cut from 100 to 75 for a rise."""
    stray = Watched()
    refused = round(200 * share)
    stray.send(100, 1.0, ok=200 - refused, refused=refused)
    stray.was_cut(100, 50, 2.0)
    stray.send(50, 3.0, ok=200 - refused, refused=refused)
    stray.verdict()
    assert stray.background == pytest.approx(share)
    stray.was_cut(100, 75, 4.0)
    return stray


def test_a_limit_below_which_hardly_any_are_refused_is_one_after_all() -> None:
    """What was taken for chance ended with the cut: the next refusal counts."""
    stray = known(0.2)
    stray.send(75, 5.0, ok=59, refused=1)
    assert stray.verdict() is None
    assert not stray.ignores(75)


def test_a_share_that_was_taken_from_too_little_is_put_right() -> None:
    """Ten in a hundred were thought stray, and it is thirty at any load."""
    stray = known(0.1)
    stray.send(75, 5.0, ok=42, refused=18)
    assert stray.verdict() is None
    assert stray.background == pytest.approx(0.3)


def test_a_share_is_not_taken_anew_from_a_few() -> None:
    """Sixty requests at least, or as many as should hold six refusals."""
    stray = known(0.2)
    stray.send(75, 5.0, ok=58, refused=1)
    assert stray.verdict() is None
    assert stray.background == pytest.approx(0.2)
    stray = known(0.05)
    stray.send(75, 5.0, ok=118, refused=1)
    stray.verdict()
    assert 0.03 < stray.background <= 0.05  # the lasting share, not one in 119


def test_an_endpoint_that_came_to_refuse_most_of_everything_is_not_ignored() -> None:
    """More than half below the cut is no chance, whatever was known before."""
    stray = known(0.2)
    stray.send(75, 5.0, ok=25, refused=40)
    stray.verdict()
    assert not stray.ignores(75)


def test_a_few_refusals_at_the_smallest_limit_are_no_verdict() -> None:
    """Four of seven may be three of ten; it takes a dozen requests to say so."""
    stray = Watched()
    stray.was_cut(3, 2, 1.0)
    stray.send(2, 2.0, ok=3, refused=4)
    assert stray.verdict() is None
    stray.send(1, 3.0, ok=6, refused=1)
    assert stray.verdict() == 3


def test_after_a_mistake_it_takes_a_much_lower_limit_to_make_another() -> None:
    """What is refused near the limit that was found to be one is no suspect; far below it, or above it, it may be."""
    for cut_to, share, verdict in [((100, 85), 85, None), ((100, 68), 68, 100), ((160, 136), 136, 160)]:
        stray = known(0.2)
        stray.send(75, 5.0, ok=60)
        stray.refused(5.0, 75, stray.total)
        stray.verdict()
        stray.was_cut(*cut_to, 6.0)
        stray.send(share, 7.0, ok=95, refused=5)
        assert stray.verdict() == verdict


def test_refusals_that_begin_all_at_once_are_no_chance() -> None:
    """Hundreds of requests below the bound without one, then one after the other: slots were taken away."""
    stray = Watched()
    stray.send(100, 1.0, ok=95, refused=5)
    stray.was_cut(100, 85, 2.0)
    stray.send(85, 3.0, ok=300)
    stray.send(85, 4.0, ok=2, refused=4)
    assert stray.verdict() is None
    assert not stray.background


def test_refusals_that_the_cuts_ended_are_no_chance() -> None:
    """Some on the way down, then none for long, then one at a time near the limit: there is one."""
    stray = Watched()
    stray.send(40, 1.0, ok=10)
    stray.was_cut(40, 30, 2.0)
    stray.send(20, 3.0, ok=8, refused=3)
    for at_s in range(4, 10):
        stray.send(10, float(at_s), ok=199, refused=1)
        assert stray.verdict() is None
    assert not stray.background


def test_chance_may_leave_a_gap() -> None:
    """One in fifty, and once none in two hundred: rare things come at uneven times."""
    stray = Watched()
    stray.send(100, 1.0, ok=98, refused=2)
    stray.was_cut(100, 80, 2.0)
    for passed in (49, 49, 199, 49):
        stray.send(80, 3.0, ok=passed, refused=1)
    assert stray.verdict() == 100
