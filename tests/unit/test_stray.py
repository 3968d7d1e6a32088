"""Which refusals come of sending too much, and which at any load."""

from __future__ import annotations

from batcher.limits.stray import Stray


def send(stray: Stray, limit: int, at_s: float, *, ok: int = 0, refused: int = 0) -> None:
    """Send requests under a limit and get their results."""
    for number in range(ok + refused):
        stray.sent(limit)
        if number < refused:
            stray.refused(at_s)


def test_refusals_well_below_the_limit_at_which_they_began_are_stray() -> None:
    """One in twenty is refused at 100 and at 50: the limit goes back to 100 and the next one is ignored."""
    stray = Stray()
    send(stray, 100, 1.0, ok=95, refused=5)
    stray.was_cut(100, 50, 2.0)
    send(stray, 50, 3.0, ok=76, refused=4)
    assert stray.verdict() == 100
    assert stray.ignores(100)


def test_refusals_that_end_with_the_cut_are_the_endpoints_limit() -> None:
    """What is refused at 100 and not at 85 is no chance; a few more refusals above the bound change nothing."""
    stray = Stray()
    send(stray, 100, 1.0, ok=80, refused=20)
    stray.was_cut(100, 85, 2.0)
    send(stray, 85, 3.0, ok=500)
    send(stray, 95, 4.0, ok=10, refused=4)
    assert stray.verdict() is None
    assert not stray.ignores(100)


def test_a_limit_that_was_lowered_is_not_taken_for_chance() -> None:
    """After an hour without a refusal nearly everything is refused at any limit: that is not the same trouble."""
    stray = Stray()
    send(stray, 500, 1.0, ok=2000)
    stray.was_cut(500, 425, 2.0)
    send(stray, 425, 3.0, ok=2, refused=20)
    assert stray.verdict() is None


def test_an_endpoint_that_refuses_everything_is_never_ignored() -> None:
    """Where nothing succeeds there is nothing to gain by going on as before."""
    stray = Stray()
    send(stray, 8, 1.0, refused=8)
    stray.was_cut(8, 6, 2.0)
    send(stray, 6, 3.0, refused=8)
    assert stray.verdict() is None


def test_a_clear_rise_of_the_share_counts_again() -> None:
    """Once 5 % are known to be stray, refusals at 40 % are not."""
    stray = Stray()
    send(stray, 100, 1.0, ok=95, refused=5)
    stray.was_cut(100, 50, 2.0)
    send(stray, 50, 3.0, ok=76, refused=4)
    stray.verdict()
    send(stray, 100, 4.0, ok=50, refused=40)
    assert not stray.ignores(100)
