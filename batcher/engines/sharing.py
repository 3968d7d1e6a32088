"""The limits of a run, shared among worker processes: how many requests at once, the rates, the budgets.

Each is a pool of its own. What is special about a budget is its end: when so little is left that every process has a
part too small for a request, one of them gets all of it as soon as nothing is in flight, and one request more is let
through while anything is left, as in a run of one process.

Pure: knows no process, no message and no time.
"""

from __future__ import annotations

from collections.abc import Iterator

from batcher.engines.messages import Shares, State
from batcher.job import Job
from batcher.limits.pool import Pool

AT_ONCE, REQUESTS, TOKENS = "concurrency", "requests_per_minute", "tokens_per_minute"
TOKENS_LEFT, USD_LEFT = "max_total_tokens", "max_cost_usd"
BUDGETS = (TOKENS_LEFT, USD_LEFT)


class Sharing:
    """Who has which part of the limits. Members are the numbers of the processes."""

    def __init__(self, job: Job, left: tuple[float | None, float | None], members: int) -> None:
        """`left` are the tokens and US dollars that the budgets still hold; None where there is none."""
        limits = job.limits
        wholes: dict[str, float | None] = dict(zip(BUDGETS, left, strict=True))
        wholes |= {REQUESTS: limits.requests_per_minute, TOKENS: limits.tokens_per_minute}
        self._pools = {name: Pool(max(0.0, whole)) for name, whole in wholes.items() if whole is not None}
        self._pools[AT_ONCE] = Pool(limits.concurrency, whole=True)
        self._shares: dict[int, Shares] = {}
        self._states: dict[int, State] = {}
        #: used up by earlier processes of the same number
        self._before: dict[int, Shares] = {}
        self._number = 0
        #: members that may use what they have; the others can be given less at once
        self._begun: set[int] = set()
        for member in range(members):
            self._shares[member] = {}
            self._before[member] = {}
            for pool in self._pools.values():
                pool.join(member)
        self.divide()

    @property
    def number(self) -> int:
        """Of the latest grants."""
        return self._number

    def shares(self, member: int) -> Shares:
        """Return what a member may use now, of budgets from its process's beginning on."""
        before = self._before[member]
        return {name: share - before.get(name, 0.0) for name, share in self._shares[member].items()}

    def told(self, member: int, state: State) -> None:
        """Take in what a member says."""
        self._states[member] = state
        for name, pool in self._pools.items():
            use, before = state.uses[name], self._before[member].get(name, 0.0)
            pool.told(member, state.grant, use.holds + before, use.needs + before, use.wants + before)

    def left(self, member: int, used: Shares) -> None:
        """Note that nobody takes a member's place; it has `used` so much of the budgets."""
        self._states.pop(member, None)
        self._begun.discard(member)
        for name, pool in self._pools.items():
            pool.leave(member, used.get(name, 0.0) if name in BUDGETS else 0.0)
        del self._shares[member], self._before[member]

    def died(self, member: int) -> None:
        """Note that a member's process is gone; what it had of the budgets counts as used until `replaced`."""
        self._states.pop(member, None)
        self._begun.discard(member)
        for name, pool in self._pools.items():
            pool.absent(member, self._shares[member].get(name, 0.0) if name in BUDGETS else 0.0)

    def begun(self, member: int, *, again: bool) -> None:
        """Note that a process has been told to begin with its shares of this moment, `again` without a budget yet."""
        self._begun.add(member)
        if again:
            self._before[member] = {name: self._shares[member][name] for name in self._pools if name in BUDGETS}

    def replaced(self, member: int, used: Shares) -> None:
        """Note what is gone of the budgets by the journal of a member whose process was replaced; grant it the rest."""
        self._number += 1
        self._before[member] = used
        for name, pool in self._pools.items():
            pool.returned(member, used.get(name, 0.0), self._number)

    def divide(self) -> list[int]:
        """Divide anew; return the members whose shares changed."""
        self._number += 1
        changed: set[int] = set()
        for name, pool in self._pools.items():
            one = self._last_one() if name in BUDGETS else None
            if one is None:
                grants = pool.divide(self._number)
            else:
                grants = pool.give_all_to(one, (self._states[one].asked or {}).get(name, 0.0), self._number)
            for member, share in grants.items():
                self._shares[member][name] = share
                changed.add(member)
                if member not in self._begun:
                    pool.absent(member, self._before[member].get(name, 0.0))
        return sorted(changed & self._begun)

    def _last_one(self) -> int | None:
        """Who is to have all that is left of the budgets: nothing is in flight, and its request does not fit."""
        if len(self._states) < len(self._begun) or any(state.figures.in_flight for state in self._states.values()):
            return None
        return next(self._asking(), None)

    def _asking(self) -> Iterator[int]:
        return (member for member in sorted(self._states) if self._states[member].asked)

    def used_up(self) -> Shares | None:
        """Return what is used of each budget if one of them is used up and rows wait for it; else None."""
        if self._last_one() is None:
            return None
        used = {name: pool.needed for name, pool in self._pools.items() if name in BUDGETS}
        return used if any(self._pools[name].used_up for name in used) else None
