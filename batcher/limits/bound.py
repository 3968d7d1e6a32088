"""What kept a run from going faster, by the share of its time: server, account, job file, input, disk or CPU.

Whoever runs the rows looks a few times a second and says what holds the run back at that moment; this adds it up and
finds the words for the end. Time is an argument, in seconds of a monotonic clock.
"""

from __future__ import annotations

from math import inf

RATE_LIMIT = "the server's rate limit (429)"
OVERLOAD = "the server's overload"
QUEUE = "the server's queue"
PLATEAU = "the server's throughput, which more did not raise"
QUOTA = "the account's quota"
CEILING = "limits.concurrency"
#: these do not hold the limit down, they leave it unused
INPUT = "the input"
DISK = "the disk"
CPU = "this machine's CPU"
_OUTSIDE = (INPUT, DISK, CPU)

#: a thread that computes for this share of the time is what the others wait for; measured over so many seconds
BUSY = 0.9
MEASURED_S = 2.0
#: a look counts for no longer than this: the machine may have slept
LONGEST_LOOK_S = 5.0
#: a bound that holds for this share of the time needs no second one beside it, one below the other is not worth a word
CLEAR = 0.8
LITTLE = 0.1


class Bounds:
    """The time a run spent under each bound."""

    __slots__ = ("_at_s", "_cpu_s", "_is_busy", "_measured_at_s", "_seconds")

    def __init__(self) -> None:
        #: by bound, a noun; "" is for no bound
        self._seconds: dict[str, float] = {}
        self._at_s = inf
        #: the latest measurement of the CPU
        self._measured_at_s, self._cpu_s, self._is_busy = -inf, 0.0, False

    def is_busy(self, cpu_s: float, now_s: float) -> bool:
        """Whether the thread that has computed for `cpu_s` seconds in all does hardly anything else of late."""
        passed_s = now_s - self._measured_at_s
        if passed_s >= MEASURED_S:
            self._is_busy = cpu_s - self._cpu_s >= BUSY * passed_s
            self._measured_at_s, self._cpu_s = now_s, cpu_s
        return self._is_busy

    def note(self, bound: str | None, now_s: float) -> None:
        """Count the time since the last look for `bound`, a noun; "" for none, None to leave it out."""
        passed_s = min(max(0.0, now_s - self._at_s), LONGEST_LOOK_S)
        self._at_s = now_s
        if bound is not None:
            self._seconds[bound] = self._seconds.get(bound, 0.0) + passed_s

    def shares(self) -> list[tuple[str, float]]:
        """Return the bounds and their shares of the time that counts, the largest first."""
        total_s = sum(self._seconds.values())
        ranked = sorted(self._seconds.items(), key=lambda item: -item[1])
        return [(bound, seconds / total_s) for bound, seconds in ranked if seconds]

    def said(self, limit: int) -> str | None:
        """Say how a run went that ended with `limit`; None if there is too little to say."""
        shares = self.shares()
        if not shares:
            return None
        (bound, share), *others = shares
        if not bound:
            return f"{limit} requests at once, no bound was met"
        words = f"held back by {bound}" if bound in _OUTSIDE else f"held there by {bound}"
        if share >= CLEAR:
            return f"{limit} requests at once, {words}"
        more = [f"{other} {_percent(part)}" for other, part in others if other and part >= LITTLE]
        return ", ".join([f"{limit} requests at once", f"{words} {_percent(share)} of the time", *more[:2]])


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
