"""Changes of the members, as functions from one membership to the next. What may be changed when is decided by
leader.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from .errors import ChangeRefused
from .messages import Member, Membership


def with_learner(before: Membership, id_: int, address: str) -> Membership:
    """A new member that gets the log and does not vote yet. Raises ChangeRefused if the id is taken."""
    if before.get(id_) is not None:
        raise ChangeRefused(f"raft: member {id_:x} is a member already")
    return _sorted([*before.members, Member(id_, address, False)])


def promoted(before: Membership, id_: int) -> Membership:
    """A learner becomes a voter. Raises ChangeRefused if it is not a member."""
    member = _known(before, id_)
    return _replaced(before, Member(id_, member.address, True))


def without(before: Membership, id_: int) -> Membership:
    """A member is gone. Raises ChangeRefused if it is not one."""
    _known(before, id_)
    return _sorted(member for member in before.members if member.id != id_)


def moved(before: Membership, id_: int, address: str) -> Membership:
    """A member has another address. Raises ChangeRefused if it is not a member."""
    return _replaced(before, Member(id_, address, _known(before, id_).voter))


def _known(membership: Membership, id_: int) -> Member:
    member = membership.get(id_)
    if member is None:
        raise ChangeRefused(f"raft: there is no member {id_:x}")
    return member


def _replaced(before: Membership, new: Member) -> Membership:
    return _sorted(new if member.id == new.id else member for member in before.members)


def _sorted(members: Iterable[Member]) -> Membership:
    return Membership(tuple(sorted(members, key=lambda member: member.id)))
