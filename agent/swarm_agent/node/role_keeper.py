"""Keeps the raft members what the nodes' specs say, and tells in the nodes' objects who leads and who is reachable.

Runs on the leader. A promoted node joins raft itself (it has to start its parts first, see membership.py); here members
are *removed*: a demoted node's, a removed node's. A leader that is demoted hands over first; its successor removes it.
Level-triggered: each pass compares store and members and takes one step; raft allows one change at a time anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from swarm_agent.model.errors import ClusterError
from swarm_agent.model.objects import ManagerStatus, Node
from swarm_agent.raft.driver import RaftNode
from swarm_agent.raft.settings import MemberStatus, Status
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import Change

log = logging.getLogger(__name__)

PERIOD = 1.0  # seconds between looks at who is reachable
REACHABLE, UNREACHABLE = "reachable", "unreachable"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pass has to do: at most one membership change, and node objects to write."""

    remove: int = 0  # raft id of a member that must go; 0: none
    hand_over: bool = False  # this member must go itself, so another has to lead first
    nodes: tuple[Node, ...] = ()


def plan(nodes: list[Node], status: Status) -> Plan:
    """Compare the nodes with the raft members, from the leader's view. Pure."""
    members = {member.id: member for member in status.members}
    by_raft_id = {node.raft_id: node for node in nodes if node.raft_id}
    remove, hand_over = 0, False
    for member in status.members:
        node = by_raft_id.get(member.id)
        wanted = node is not None and node.spec.role == "manager"
        # A learner without a node is one that is just joining: its node object follows when it has caught up.
        if wanted or not member.voter:
            continue
        if not _quorum_without(member, status):
            continue
        if member.id == status.id:
            hand_over = any(other.voter and other.active for other in status.members if other.id != member.id)
        else:
            remove = member.id
            break
    changed = tuple(fresh for node in nodes if (fresh := _described(node, members, status)) != node)
    return Plan(remove, hand_over and not remove, changed)


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


class RoleKeeper:
    """The loop around `plan`."""

    def __init__(self, store: Store, raft: RaftNode) -> None:
        self._store = store
        self._raft = raft
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    async def start(self) -> None:
        self._unsubscribe = self._store.subscribe(self._changed)
        self._raft.on_membership(lambda membership: self._wake.set())
        self._task = asyncio.create_task(self._run(), name="role-keeper")

    async def stop(self) -> None:
        self._unsubscribe()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _changed(self, changes: list[Change]) -> None:
        if any(change.kind is Node for change in changes):
            self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._pass()
            except ClusterError as error:
                log.info("roles cannot be settled now: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD):
                    await self._wake.wait()

    async def _pass(self) -> None:
        wanted = plan(self._store.view().all(Node), self._raft.status())
        if wanted.remove:
            await self._raft.remove(wanted.remove)
            log.info("raft member %x removed", wanted.remove)
        if wanted.nodes:
            await self._store.update(lambda tx: _write(tx, wanted.nodes))
        if wanted.hand_over:
            await self._raft.transfer_leadership()


def _write(tx: Tx, nodes: tuple[Node, ...]) -> None:
    for node in nodes:
        present = tx.get(Node, node.id)
        if present is not None:
            tx.update(replace(present, manager_status=node.manager_status, raft_id=node.raft_id))
