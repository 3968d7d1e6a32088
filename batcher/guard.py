"""The guard against a million failed rows: failures are believed once something succeeds, or a few of them at the end.

A wrong parameter, a retired model or a broken endpoint fails every row in the same way. That is a problem of the run,
and rows must not be written off for it. So failures that the endpoint gave are held back, not journalled, until the
next success shows that the run is sound; when too many are held, the run is to stop and the held rows stay pending.
Failures that are a row's own by nature (too long, filtered, unreadable) prove nothing and pass at once.

A row may also run out of attempts while nothing succeeds. When something does at last, such a row is *excused*: the
endpoint was down, so it is asked again instead of written off.

Pure: no clock, no journal.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from batcher.errors import BatcherError, EndpointError, EndpointRefusedError
from batcher.pending import Pending
from batcher.records import Outcome

#: failures in a row that stop a run in which nothing has ever succeeded; and one that has worked before
FIRST = 20
LATER = 200
#: statuses that blame the request; 408 blames the network
_REFUSED = frozenset(range(400, 500)) - {408}

#: what an error code may look like to be repeated in a message
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(slots=True)
class Held:
    """A failure that is held back."""

    pending: Pending
    outcome: Outcome
    #: nothing succeeded since the row first failed, so the next success excuses it
    excusable: bool = False


class Guard:
    """Holds back failures between successes. `proven` says that this job has had answers before."""

    def __init__(self, *, proven: bool) -> None:
        #: this job has had answers
        self.proven = proven
        self._limit = LATER if proven else FIRST
        self.held: list[Held] = []

    def __repr__(self) -> str:
        return f"<Guard: {len(self.held)} of {self._limit} failures held>"

    def failed(self, held: Held) -> bool:
        """Hold back a failure; True if that are too many now."""
        self.held.append(held)
        return len(self.held) >= self._limit

    def prove(self) -> None:
        """Note that this job has had answers, here or in another process."""
        self.proven, self._limit = True, LATER

    def succeeded(self, sent_at_s: float) -> list[Held]:
        """Note the success of a request: the run is sound, or was when that was sent.

        Returns what was held back of requests that were sent earlier: about others it says nothing.
        """
        self.prove()
        if not self.held:
            return []
        older = [held for held in self.held if held.pending.sent_at_s < sent_at_s]
        self.held = [held for held in self.held if held.pending.sent_at_s >= sent_at_s]
        return older

    @property
    def is_outage(self) -> bool:
        """What is held tells of an endpoint that is down, and will work again: it has worked before."""
        return self.proven and self.provider_is_down()

    @property
    def may_believe(self) -> bool:
        """At the end of the rows: a few failures are the rows' own if the endpoint has worked, others prove nothing."""
        return not self.held or (self.proven and len(self.held) < FIRST)

    def give_up_holding(self) -> list[Held]:
        """Return what was held back."""
        held, self.held = self.held, []
        return held

    def as_error(self) -> BatcherError:
        """Return what a run that stops for the held failures ends with."""
        error = EndpointError if self.provider_is_down() else EndpointRefusedError
        return error(f"{self.reason()}; these rows stay pending")

    def reason(self) -> str:
        """Why the run stops, in one line without the provider's words."""
        (code, count), *_ = self.causes()
        rows = (
            f"{len(self.held)} rows failed one after the other" if len(self.held) > 1 else "the only row asked failed"
        )
        named = code if _NAME.fullmatch(code) else "a code that is no name"  # some servers put the request there
        return f"{rows} and none succeeded; {count} with {named}"

    def causes(self) -> list[tuple[str, int]]:
        """Error codes of what is held, the most frequent first."""
        errors = (held.outcome.error for held in self.held)
        codes = (error.code or "unknown" if error else "unknown" for error in errors)
        return Counter(codes).most_common()

    def provider_is_down(self) -> bool:
        """Most of what is held are server-side errors or broken connections, not refused requests."""
        errors = (held.outcome.error for held in self.held)
        refused = sum(1 for error in errors if error and error.http_status in _REFUSED)
        return refused * 2 < len(self.held)
