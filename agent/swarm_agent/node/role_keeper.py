"""Keeps the raft members what the nodes' specs say, and tells in the nodes' objects who leads and who is reachable.

Runs on the leader. A promoted node joins raft itself (it has to start its parts first, see membership.py); here members
are *removed*: a demoted node's, a removed node's. A leader that is demoted hands over first; its successor removes it.
One whose node is drained hands over to a manager that is not.
Level-triggered: each pass compares store and members and takes one step; raft allows one change at a time anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from swarm_agent.manager.keeper import Keeper
from swarm_agent.model.objects import ManagerStatus, Node
from swarm_agent.raft.driver import RaftNode
from swarm_agent.raft.settings import MemberStatus, Status
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx

log = logging.getLogger(__name__)

PERIOD = 1.0  # seconds between looks at who is reachable
REACHABLE, UNREACHABLE = "reachable", "unreachable"
DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pass has to do: at most one membership change, and node objects to write."""

    remove: int = 0  # raft id of a member that must go; 0: none
    successor: int = 0  # raft id of a member that shall lead from now on; 0: this one goes on
    nodes: tuple[Node, ...] = ()


def plan(nodes: list[Node], status: Status) -> Plan:
    """Compare the nodes with the raft members, from the leader's view. Pure."""
    members = {member.id: member for member in status.members}
    by_raft_id = {node.raft_id: node for node in nodes if node.raft_id}
    surplus = [
        member
        for member in status.members
        # A learner without a node is one that is just joining: its node object follows when it has caught up.
        if member.voter and not _shall_manage(by_raft_id.get(member.id)) and _quorum_without(member, status)
    ]
    remove = next((member.id for member in surplus if member.id != status.id), 0)
    must_go = any(member.id == status.id for member in surplus)
    changed = tuple(fresh for node in nodes if (fresh := _described(node, members, status)) != node)
    return Plan(remove, 0 if remove else _successor(by_raft_id, status, must_go=must_go), changed)


def _shall_manage(node: Node | None) -> bool:
    return node is not None and node.spec.role == "manager"


def _successor(nodes: Mapping[int, Node], status: Status, *, must_go: bool) -> int:
    """Who should lead in place of this member: it must go itself, or its node is drained, so that it may be switched
    off soon, and there is one that is not. The one with the longest log, which takes over soonest.
    """
    others = [member for member in status.members if member.voter and member.active and member.id != status.id]
    staying = [member for member in others if _shall_manage(nodes.get(member.id))]
    undrained = [member for member in staying if nodes[member.id].spec.availability != DRAIN]
    own = nodes.get(status.id)
    drained = own is not None and own.spec.availability == DRAIN
    candidates = (undrained or staying or others) if must_go else undrained if drained else []
    return max(candidates, key=lambda member: member.match).id if candidates else 0


def _quorum_without(member: MemberStatus, status: Status) -> bool:
    """Whether the others that answer are a majority of the others."""
    others = [other for other in status.members if other.voter and other.id != member.id]
    alive = sum(other.active or other.id == status.id for other in others)
    return bool(others) and alive > len(others) // 2


def can_remove(raft_id: int, status: Status) -> bool:
    """Whether the group keeps a majority that answers without this member, from the leader's view."""
    member = next((member for member in status.members if member.id == raft_id), None)
    return member is None or not member.voter or _quorum_without(member, status)


def _described(node: Node, members: dict[int, MemberStatus], status: Status) -> Node:
    """The node as its object should be: manager status present exactly while it is a member."""
    member = members.get(node.raft_id) if node.raft_id else None
    if member is None or not member.voter:
        if node.manager_status is None and not node.raft_id:
            return node
        if member is not None:
            return node
        return replace(node, manager_status=None, raft_id=0)
    reachable = member.active or member.id == status.id
    return replace(
        node,
        manager_status=ManagerStatus(
            leader=member.id == status.leader,
            reachability=REACHABLE if reachable else UNREACHABLE,
            addr=member.address,
        ),
    )


class RoleKeeper(Keeper):
    """The loop around `plan`."""

    NAME = "role-keeper"
    KINDS = (Node,)

    def __init__(self, store: Store, raft: RaftNode) -> None:
        super().__init__(store, every=PERIOD, retry=PERIOD)
        self._raft = raft
        self._deaf: Callable[[], None] = lambda: None

    async def start(self) -> None:
        self._deaf = self._raft.on_membership(lambda membership: self.wake())
        await super().start()

    async def stop(self) -> None:
        self._deaf()
        await super().stop()

    async def look(self) -> None:
        wanted = plan(self._store.view().all(Node), self._raft.status())
        if wanted.remove:
            await self._raft.members.remove(wanted.remove)
            log.info("raft member %x removed", wanted.remove)
        if wanted.nodes:
            await self._store.update(lambda tx: _describe(tx, self._raft.status()))
        if wanted.successor:
            log.info("handing leadership over to raft member %x", wanted.successor)
            await self._raft.members.transfer_leadership(wanted.successor)


def _describe(tx: Tx, status: Status) -> None:
    """Anew from what the transaction sees: a node that was looked at before may have become another member meanwhile,
    and one whose object has no raft id takes itself for removed.
    """
    members = {member.id: member for member in status.members}
    for node in tx.all(Node):
        fresh = _described(node, members, status)
        if fresh != node:
            tx.update(fresh)
