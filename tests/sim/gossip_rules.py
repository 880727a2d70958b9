"""What must hold in a gossip world, whatever happens: looked at after each event of the node concerned.

Only a member itself raises its incarnation; what a node stores of it only grows; nobody dies unaccused or leaves
without a farewell; queues and scores stay in bounds; a stored row is one that its owner wrote.

A node with few members is looked at whole. In a large world that would cost more than the protocol: there, the members
that the event touched are looked at, and all that this node ever touched every FULL_EACH events.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from swarm_agent.gossip.core import Core
from swarm_agent.gossip.members import Peer
from swarm_agent.gossip.types import State

from .gossip_shared import SharedMembers

if TYPE_CHECKING:
    from .gossip_world import Node, World

FEW = 24
FULL_EACH = 512


def own_records(node: Node) -> Iterable[Peer]:
    """What the node knows of others, apart from what is still as it was given to all at the start."""
    members = node.core.kernel.members
    return members.changed() if isinstance(members, SharedMembers) else members


class Touched:
    """Which members a core has looked up since the last check: all that an event can change."""

    def __init__(self, core: Core) -> None:
        self.ids: set[str] = set()
        self.events = 0
        members = core.kernel.members
        get = members.get

        def watched(id: str) -> Peer | None:
            self.ids.add(id)
            return get(id)

        members.get = watched  # type: ignore[method-assign]


def witness(world: World, node: Node, subject: str, old: State | None, new: State) -> None:
    """That node's observer was told of this change."""
    peer = node.core.kernel.members.get(subject)
    if new is State.SUSPECT and peer is not None:
        world.accused[subject] = max(world.accused.get(subject, 0), peer.incarnation)
    if new is State.DEAD and old is not None:
        world.deaths.append((world.now, node.id, subject))
        if peer is not None:
            world.verdicts.setdefault((subject, peer.incarnation), world.now)
        if world.check:
            assert subject in world.accused, f"{subject} died at {node.id} though nobody suspected it"
    if new is State.LEFT and world.check and old is not None:
        assert subject in world.said_farewell, f"{subject} left without a farewell"


def check(world: World, node: Node) -> None:
    """After an event of that node."""
    kernel = node.core.kernel
    world.true_incarnation[node.id] = max(world.true_incarnation.get(node.id, 0), kernel.me.incarnation)
    assert max(kernel.queue.lengths()) <= world.config.queue_limit
    assert 0 <= kernel.awareness.score < world.config.awareness_max
    touched = node.touched
    touched.events += 1
    whole = kernel.members.live_count <= FEW or touched.events % FULL_EACH == 0
    ids, touched.ids = touched.ids, set()
    peers: Iterable[Peer | None] = own_records(node) if whole else [kernel.members.get(id) for id in ids]
    for peer in peers:
        if peer is not None:
            _check_peer(world, node, peer)
    touched.ids.clear()
    rows = node.core.rows
    for log in rows.logs() if whole else [rows.log(id) for id in ids if id in world.history]:
        if log is not None and log.owner != node.id and log.owner in world.history:
            truth = world.history[log.owner]
            for (table, key), entry in log.entries.items():
                if table:
                    assert truth[(entry.epoch, entry.sequence)] == (table, key, entry.value)


def _check_peer(world: World, node: Node, peer: Peer) -> None:
    assert peer.incarnation >= node.highest.get(peer.id, 0), f"{node.id} lowered the incarnation of {peer.id}"
    assert peer.incarnation <= world.true_incarnation[peer.id], f"{node.id} raised that of {peer.id}"
    assert peer.info <= peer.incarnation
    assert (peer.suspicion is not None) == (peer.state is State.SUSPECT)
    node.highest[peer.id] = peer.incarnation


def check_complete(world: World, node: Node) -> None:
    """What a watermark promises: every row is there as of that change, or newer."""
    for log in node.core.rows.logs():
        told = world.history.get(log.owner, {})
        for (epoch, sequence), (table, key, _) in told.items():
            if epoch == log.epoch and sequence <= log.watermark:
                entry = log.entries.get((table, key))
                if entry is None:  # a withdrawal whose tombstone is not kept
                    last = max(n for (e, n), (t, k, _) in told.items() if (e, t, k) == (epoch, table, key))
                    assert told[(epoch, last)][2] is None
                else:
                    assert (entry.epoch, entry.sequence) >= (epoch, sequence)
