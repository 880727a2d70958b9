"""Changes of who is a member and who leads, as calls that return when they are done.

One change at a time, by one voter at most; the core refuses the rest (changes.py, core.py). Ids must never be given
twice: a member that lost its disk is a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from .changes import moved, promoted, with_learner, without
from .core import Core
from .errors import ChangeRefused, NotLeader, RequestTimeout
from .messages import NOBODY, Membership
from .settings import Settings


class Node(Protocol):
    """What this needs of the driver."""

    settings: Settings

    @property
    def leader_id(self) -> int: ...

    @property
    def membership(self) -> Membership: ...

    @property
    def stopping(self) -> bool: ...

    def input(self, call: Callable[..., object], *arguments: Any) -> None: ...

    async def proposed(self, append: Callable[[], int]) -> int: ...

    async def changed(self, seconds: float) -> None: ...


class Members:
    """All of these are the leader's to do. They raise NotLeader elsewhere, ChangeRefused for what cannot be or not now,
    and LeadershipLost when it is unknown whether the change takes effect.
    """

    def __init__(self, node: Node, core: Core) -> None:
        self._node = node
        self._core = core
        self._loop = asyncio.get_running_loop()

    async def add_learner(self, member_id: int, address: str) -> int:
        """Add a member that gets the log and does not vote yet."""
        return await self._change(lambda before: with_learner(before, member_id, address))

    async def promote(self, member_id: int, timeout: float = 20.0) -> int:
        """Make a learner a voter, once it has nearly the whole log: before that it would only endanger the quorum.

        Raises also RequestTimeout when it does not catch up.
        """
        deadline = self._loop.time() + timeout
        while not self._caught_up(member_id):
            if self._loop.time() >= deadline:
                raise RequestTimeout
            if self._node.stopping or self._core.leadership is None:
                raise NotLeader(self._node.leader_id)
            await self._node.changed(deadline - self._loop.time())
        return await self._change(lambda before: promoted(before, member_id))

    async def remove(self, member_id: int) -> int:
        """Remove a member for good. Hand leadership over before removing oneself."""
        return await self._change(lambda before: without(before, member_id))

    async def set_address(self, member_id: int, address: str) -> int:
        """A member can now be reached elsewhere."""
        return await self._change(lambda before: moved(before, member_id, address))

    async def transfer_leadership(self, to: int = NOBODY) -> None:
        """Hand leadership to a voter (the most complete one if not said) and return when another member leads.

        Raises RequestTimeout if it was not taken over within two election timeouts.
        """
        core, leadership = self._core, self._core.leadership
        if leadership is None:
            raise NotLeader(self._node.leader_id)
        if to == NOBODY:
            others = [id_ for id_ in self._node.membership.voters if id_ != core.id]
            reachable = [id_ for id_ in others if leadership.progress[id_].active]
            if not reachable:
                raise ChangeRefused("raft: no other voter is reachable that could lead")
            to = max(reachable, key=lambda id_: leadership.progress[id_].match)
        self._node.input(core.transfer, to)
        settings = self._node.settings
        deadline = self._loop.time() + settings.tick * settings.election_ticks * 2
        while core.leader in (core.id, NOBODY):
            left = deadline - self._loop.time()
            if left <= 0 or (core.leadership is not None and not core.leadership.transferee):
                raise RequestTimeout
            await self._node.changed(left)

    async def _change(self, edit: Callable[[Membership], Membership]) -> int:
        return await self._node.proposed(lambda: self._core.propose_membership(edit(self._node.membership)))

    def _caught_up(self, member_id: int) -> bool:
        leadership = self._core.leadership
        progress = leadership.progress.get(member_id) if leadership is not None else None
        # A short log is no proof: the member must have answered before its vote can be needed.
        behind = self._core.log.committed - self._node.settings.keep_entries // 10
        return progress is not None and progress.match >= max(1, behind)
