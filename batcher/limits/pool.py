"""A limit that several processes share: divided among them by what they want, and divided again as that changes.

A member may use what it was granted until it says that it holds less, since it learns of a smaller grant only later.
Therefore nothing is granted that anybody may still hold, and all of them together never go beyond the whole, however
slow the messages are. What a member needs, since it is in flight or used up, can not be taken from it.

Pure: knows no process, no message and no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, inf

#: shares that differ by less than this part of an equal share stay as they are
_STEADY = 0.05
#: what fits is not to fail by a rounding error
_ROUNDING = 1.000001


def fair(total: float, wants: Sequence[float]) -> list[float]:
    """Divide so that who wants less than an equal share gets what he wants; what nobody wants is divided equally."""
    shares, left = [0.0] * len(wants), max(0.0, total)
    ascending = sorted(range(len(wants)), key=lambda member: wants[member])
    for position, member in enumerate(ascending):
        shares[member] = min(max(0.0, wants[member]), left / (len(wants) - position))
        left -= shares[member]
    return [share + left / len(wants) for share in shares]


def _whole(shares: Sequence[float]) -> list[float]:
    """Round to whole numbers of the same sum."""
    over = floor(sum(shares) + 1e-9) - sum(map(floor, shares))
    return [float(floor(share) + (place < over)) for place, share in enumerate(shares)]


@dataclass(slots=True)
class _Member:
    #: the latest grant, its number, and whether the member has said that it knows of it
    granted: float = 0.0
    number: int = 0
    knows: bool = True
    #: what it may use at most for all one knows
    holds: float = 0.0
    needs: float = 0.0
    wants: float = inf


class Pool:
    """The whole of a limit and what each member has of it."""

    def __init__(self, total: float, *, whole: bool = False) -> None:
        """`whole`: it comes in units that are needed and given back, as slots are; else it is used up, as money is."""
        self._total, self._whole = total, whole
        self._members: dict[int, _Member] = {}

    def __repr__(self) -> str:
        held = ", ".join(f"{number}: {member.holds:g}" for number, member in self._members.items())
        return f"<Pool of {self._total:g}: {held}>"

    def join(self, member: int) -> None:
        """Take in a member, which wants as much as it can get."""
        self._members[member] = _Member()

    def leave(self, member: int, used: float = 0.0) -> None:
        """Let a member go that is gone for certain; `used` of what it held does not come back."""
        del self._members[member]
        self._total -= used

    def told(self, member: int, number: int, holds: float, needs: float, wants: float) -> None:
        """Take in what a member says that has received the grant of this number: what it may use, needs and wants.

        `needs` are part of `holds`, and `wants` are all it would like to hold.
        """
        known = self._members[member]
        known.needs, known.wants = needs, max(needs, wants)
        if number >= known.number:
            known.holds, known.knows = holds, True

    def absent(self, member: int, needs: float) -> None:
        """Note that nobody can use what a member has, for the time being; `needs` of it are used up."""
        known = self._members[member]
        self.told(member, known.number, max(known.granted, needs), needs, inf)

    def returned(self, member: int, needs: float, number: int) -> None:
        """Note that a member was gone and begins anew with its latest grant, which it learns as the one of `number`."""
        self.absent(member, needs)
        known = self._members[member]
        known.number, known.knows = number, False

    @property
    def needed(self) -> float:
        """What all members need."""
        return sum(member.needs for member in self._members.values())

    @property
    def used_up(self) -> bool:
        """Nobody can get anything any more."""
        return self.needed >= self._total

    def divide(self, number: int) -> dict[int, float]:
        """Return the new grants of those whose share changes; `number` is theirs, larger than all before."""
        return self._grant(self._targets(), number, _STEADY)

    def give_all_to(self, one: int, at_least: float, number: int) -> dict[int, float]:
        """Let one member have all that the others do not need; return the new grants.

        Once they hold no more than that, it gets `at_least` beyond what it needs even if less is left.
        """
        targets = {name: member.needs for name, member in self._members.items()}
        mine, others = self._members[one], [member for name, member in self._members.items() if name != one]
        targets[one] = max(mine.needs, self._total - sum(member.needs for member in others))
        changed = self._grant(targets, number, 0.0)
        if all(member.knows and member.holds <= member.needs for member in others) and not self.used_up:
            enough = mine.needs + at_least * _ROUNDING
            if mine.holds < enough:
                changed[one] = self._note(one, enough, number)
        return changed

    def _targets(self) -> dict[int, float]:
        members = list(self._members.values())
        if not members:
            return {}
        if self._whole:
            shares = _whole(fair(self._total, [member.wants for member in members]))
            shares = [max(share, member.needs) for share, member in zip(shares, members, strict=True)]
        else:  # what is used up is no advantage
            extra = fair(self._total - self.needed, [member.wants - member.needs for member in members])
            shares = [member.needs + more for member, more in zip(members, extra, strict=True)]
        return dict(zip(self._members, shares, strict=True))

    def _grant(self, targets: dict[int, float], number: int, steady: float) -> dict[int, float]:
        changed: dict[int, float] = {}
        matters = steady * self._total / max(1, len(targets))
        for name, target in targets.items():
            member = self._members[name]
            if (
                member.knows
                and target < member.granted
                and (member.granted - target >= matters or target <= member.needs)
            ):
                changed[name] = self._note(name, target, number)
        free = self._total - sum(member.holds for member in self._members.values())
        for name, target in targets.items():
            member = self._members[name]
            more = min(target - member.granted, free - max(0.0, member.granted - member.holds))
            if self._whole:
                more = floor(more)
            if member.knows and more > 0 and (more >= matters or member.granted <= member.needs):
                free -= more
                changed[name] = self._note(name, member.granted + more, number)
        return changed

    def _note(self, name: int, granted: float, number: int) -> float:
        member = self._members[name]
        member.holds = max(member.holds, granted)
        member.granted, member.number, member.knows = granted, number, False
        return granted
