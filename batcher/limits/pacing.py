"""Keeping to so many requests or tokens a minute: buckets that refill evenly, and the endpoint's own quota headers.

A bucket holds at most one second's worth, or one request where that is more, so a minute's allowance is never spent in
its first seconds: providers enforce their limits on slices far shorter than a minute. It may go into debt; a request
larger than the bucket therefore passes alone, and what follows waits until the debt is paid.

Knows nothing of concurrency, failures or the event loop. Time is an argument, in seconds of a monotonic clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf, isfinite

#: added to the time a bucket is ready, so that rounding cannot make it short by a hair at that very moment
_SLACK_S = 0.001
#: weight of the newest request in the mean sizes
_NEWEST = 1 / 32
#: a header alone never holds the run longer: its window is a guess, a 429 with Retry-After is the server's word
MAX_HEADER_WAIT_S = 60.0


class Bucket:
    """So many units a minute; `size` is what one request takes, on average."""

    __slots__ = ("_at_s", "_level", "_rate", "size")

    def __init__(self, per_minute: float, size: float = 1.0) -> None:
        #: units per second, and what the bucket holds when full
        self._rate = per_minute / 60
        self._level = self._rate
        self._at_s = 0.0
        self.size = size

    def pace(self, per_minute: float) -> None:
        """Let so many units a minute pass from now on."""
        self._rate = per_minute / 60
        self._level = min(self._level, self._rate)

    def _refill(self, now_s: float) -> float:
        level = self._level + (now_s - self._at_s) * self._rate
        self._level = min(level, self._rate)
        self._at_s = now_s
        return self._level

    def room(self, now_s: float) -> int:
        """Return how many requests of average size may pass now; a full bucket lets one of any size pass."""
        level = self._refill(now_s)
        if level >= self.size:
            return int(level / self.size)
        return int(level >= self._rate)

    def ready_at(self, now_s: float) -> float:
        """Return when a request may pass, `now_s` if one may at once."""
        missing = min(self.size, self._rate) - self._refill(now_s)
        return now_s if missing <= 0 else now_s + missing / self._rate + _SLACK_S

    def take(self, units: float, now_s: float) -> None:
        """Take what one request needs, into debt if need be."""
        self._level = self._refill(now_s) - units

    def correct(self, units: float) -> None:
        """Give back what was taken too much (positive) or take the rest (negative)."""
        self._level += units


class TokenBucket(Bucket):
    """Tokens per minute: what a request needs is reserved when it is sent and put right when its usage is known.

    An estimate has to allow for the longest answer, so it is often many times what is used. The ratio of the means of
    usage and estimate scales each reservation; otherwise the rate would creep up over many answers.
    """

    __slots__ = ("_estimated", "_used")

    def __init__(self, per_minute: float) -> None:
        super().__init__(per_minute, size=inf)  # one request first, to see how large they are
        self._estimated: float | None = None
        self._used: float | None = None

    def reserve(self, estimate: float, now_s: float) -> float:
        """Take what a request of this estimate is likely to use and return it, to be handed back to `settle`."""
        estimate = max(1.0, estimate)
        self._estimated = _mean(self._estimated, estimate)
        if self._used is None:
            self.size = self._estimated
        reserved = estimate / self._estimated * self.size
        self.take(reserved, now_s)
        return reserved

    def settle(self, reserved: float | None, used: float) -> None:
        """Replace a reservation, None for one of the usual size, by what the request did use."""
        self.correct((self.size if reserved is None else reserved) - used)
        if used > 0:  # what was refused says nothing about the size
            self.size = self._used = _mean(self._used, used)


def _mean(mean: float | None, newest: float) -> float:
    return newest if mean is None else mean + (newest - mean) * _NEWEST


_GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)")
_GO_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_IETF_REMAINING_AND_RESET = re.compile(r";\s*r=(\d{1,15})\s*;\s*t=(\d{1,15})\b")
#: a quota header is this short; a longer one is not read to its end
_HEADER_CHARACTERS = 256


def header_wait_s(headers: Mapping[str, str], tokens: float) -> float:
    """Return how long the quota headers of an answer advise to wait before a request of so many tokens, or 0.

    Understands `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` and the `RateLimit` field of the IETF draft;
    whatever is missing or malformed counts as absent. `reset` means the time until the quota is full again, so what is
    missing comes back at the rate `(limit - remaining) / reset`.
    """
    wait_s = 0.0
    if "x-ratelimit-remaining-requests" in headers:
        wait_s = _quota_wait_s(headers, "requests", 1.0)
    if "x-ratelimit-remaining-tokens" in headers:
        wait_s = max(wait_s, _quota_wait_s(headers, "tokens", tokens))
    if "ratelimit" in headers:
        policies = _IETF_REMAINING_AND_RESET.findall(headers["ratelimit"][:_HEADER_CHARACTERS])
        wait_s = max([wait_s, *(float(reset_s) for remaining, reset_s in policies if int(remaining) < 1)])
    return min(wait_s, MAX_HEADER_WAIT_S)


def _quota_wait_s(headers: Mapping[str, str], what: str, need: float) -> float:
    limit = _number(headers.get(f"x-ratelimit-limit-{what}", ""))
    remaining = _number(headers[f"x-ratelimit-remaining-{what}"])
    reset_s = _duration_s(headers.get(f"x-ratelimit-reset-{what}", ""))
    if limit is None or remaining is None or reset_s is None or remaining >= min(need, limit):
        return 0.0
    return min(reset_s, (need - remaining) * reset_s / (limit - remaining))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and value >= 0 else None


def _duration_s(text: str) -> float | None:
    """Return the seconds of a Go duration (`6m0s`, `12ms`) or of a plain number."""
    parts = _GO_DURATION.findall(text[:_HEADER_CHARACTERS])
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _GO_UNITS_S[unit] for number, unit in parts)
    return _number(text)
