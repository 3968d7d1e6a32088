"""The guard against a million failed rows: failures are believed once something succeeds, or a few of them at the end.

A wrong parameter, a retired model or a broken endpoint fails every row in the same way. That is a problem of the run,
and rows must not be written off for it. So failures that the endpoint gave are held back, not journalled, until the
next success shows that the run is sound; when too many are held, the run is to stop and the held rows stay pending.
Failures that are a row's own by nature (too long, filtered, unreadable) prove nothing and pass at once.

Pure: no clock, no journal.
"""

from __future__ import annotations

from collections import Counter

from batcher.errors import BatcherError, EndpointError, EndpointRefusedError
from batcher.records import Outcome

#: failures in a row that stop a run in which nothing has ever succeeded; and one that has worked before
FIRST = 20
LATER = 200


class Guard:
    """Holds back failures between successes. `proven` says that this job has had answers before."""

    def __init__(self, *, proven: bool) -> None:
        self._proven = proven
        self._limit = LATER if proven else FIRST
        self._held: list[Outcome] = []

    def __repr__(self) -> str:
        return f"<Guard: {len(self._held)} of {self._limit} failures held>"

    def failed(self, outcome: Outcome) -> bool:
        """Hold back a failure; True if the run should stop now."""
        self._held.append(outcome)
        return len(self._held) >= self._limit

    def succeeded(self) -> list[Outcome]:
        """Note a success: the run is sound. Returns the outcomes that were held back, which count now."""
        self._proven, self._limit = True, LATER
        return self.give_up_holding()

    @property
    def may_believe(self) -> bool:
        """At the end of the rows: a few failures are the rows' own if the endpoint has worked, others prove nothing."""
        return not self._held or (self._proven and len(self._held) < FIRST)

    def give_up_holding(self) -> list[Outcome]:
        """Return the outcomes that were held back; they count now."""
        held, self._held = self._held, []
        return held

    def as_error(self) -> BatcherError:
        """Return what a run that stops for the held failures ends with."""
        error = EndpointError if self.provider_is_down() else EndpointRefusedError
        return error(f"{self.reason()}; these rows stay pending")

    def reason(self) -> str:
        """Why the run stops, in one line without the provider's words."""
        (code, count), *_ = self.causes()
        rows = (
            f"{len(self._held)} rows failed one after the other" if len(self._held) > 1 else "the only row asked failed"
        )
        return f"{rows} and none succeeded; {count} with {code}"

    def causes(self) -> list[tuple[str, int]]:
        """Error codes of what is held, the most frequent first."""
        codes = (o.error.code or "unknown" if o.error else "unknown" for o in self._held)
        return Counter(codes).most_common()

    def provider_is_down(self) -> bool:
        """Most of what is held are server-side errors or broken connections, not refused requests."""
        refused = sum(1 for o in self._held if o.error and o.error.http_status and 400 <= o.error.http_status < 500)
        return refused * 2 < len(self._held)
