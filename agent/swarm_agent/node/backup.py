"""Saving a running cluster's state to a file, and founding a cluster again from such a file.

A snapshot is what this manager's store holds after a round that proves it current: everything that was acknowledged
before is in it. A restored cluster keeps its id, root, tokens, services, secrets and the nodes' objects; its raft group
is new, with the restoring host as its only member, as after --force-new-cluster. The host takes over the node object
that has its host name, if one does, so labels and what depended on them survive the loss of all machines.

Workers of the old cluster that still run find the restored manager if it has the address of one that they know.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Iterable, Iterator
from pathlib import Path

from msgspec.structs import replace

from swarm_agent.model import times
from swarm_agent.model.errors import BadRequest, FailedPrecondition
from swarm_agent.model.objects import Cluster, ManagerStatus, Node, NodeDescription, NodeStatus
from swarm_agent.model.specs import NodeSpec
from swarm_agent.raft.files import OsFiles
from swarm_agent.raft.messages import Member, Membership, SnapshotMeta
from swarm_agent.raft.snapshots import Snapshots
from swarm_agent.store import archive
from swarm_agent.store.archive import ArchiveError, Head
from swarm_agent.store.snapshot import SnapshotError
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import View

from .founding import sole_manager
from .manager_role import ManagerRole
from .state import SavedState, StateFolder

MIN_SECRET = 8  # bytes; scrypt slows guessing down, but does not make up for a word of four letters


async def save(manager: ManagerRole, secret: bytes) -> AsyncGenerator[bytes, None]:
    """The file's pieces. Raises BadRequest for a weak secret, a ClusterError without quorum, before the first piece."""
    check_secret(secret)
    view = await manager.store.read()
    clusters = view.all(Cluster)
    if not clusters:
        raise FailedPrecondition("there is no cluster to save yet")
    # In one go: the state and the entry it stands for.
    status, parts = manager.raft.status(), manager.store.snapshot()
    head = archive.new_head(
        created=times.now(),
        cluster_id=clusters[0].id,
        node_id=manager.node_id,
        hostname=socket.gethostname(),
        index=status.applied,
        term=status.term,
    )
    return _threaded(archive.write(head, parts, secret))


async def _threaded(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


def check_secret(secret: bytes) -> None:
    """Raises BadRequest for a secret that would protect nothing."""
    if len(secret) < MIN_SECRET:
        raise BadRequest(f"the passphrase or key must have at least {MIN_SECRET} bytes")


def load(path: Path, secret: bytes) -> tuple[Head, View, list[bytes]]:
    """Read and check a whole backup. Raises BadRequest. Blocks."""
    try:
        with path.open("rb") as file:
            head, parts = archive.read(file, secret)
            kept = list(parts)
            store = Store()
            store.install(store.load(kept))
    except (OSError, ArchiveError, SnapshotError) as error:
        raise BadRequest(f"the snapshot {path} cannot be restored: {error}") from None
    view = store.view()
    if not view.all(Cluster):
        raise BadRequest(f"the snapshot {path} holds no cluster")
    return head, view, kept


def lay_down(folder: StateFolder, keys: list[bytes], head: Head, parts: Iterable[bytes], state: SavedState) -> None:
    """Put the state where raft starts from: a snapshot, with this host as the only member. Blocks."""
    only = Membership((Member(state.raft_id, state.advertise_addr),))
    files = OsFiles(folder.raft)
    try:
        writer = Snapshots(files, keys).writer(SnapshotMeta(head.index, head.term, only), "restored")
        for part in parts:
            writer.add(part)
        writer.finish()
    finally:
        files.close()


def identity_for(view: View, hostname: str, fresh: str) -> str:
    """The node id that a restoring host takes: the one of the only node with its name, or a fresh one."""
    namesakes = [node for node in view.all(Node) if node.description.hostname == hostname]
    return namesakes[0].id if len(namesakes) == 1 else fresh


def take_over(tx: Tx, state: SavedState, hostname: str) -> None:
    """In the restored state: this host is a manager, the only one, and welcome."""
    present = tx.get(Node, state.node_id)
    node = present or Node(id=state.node_id, description=NodeDescription(hostname=hostname))
    node = replace(
        node,
        spec=replace(node.spec, role="manager") if present else NodeSpec(role="manager", availability="active"),
        status=NodeStatus(state="unknown", addr=state.advertise),
        manager_status=ManagerStatus(leader=True, reachability="reachable", addr=state.advertise_addr),
        raft_id=state.raft_id,
    )
    if present is None:
        tx.create(node)
    else:
        tx.update(node)
    sole_manager(tx, state.node_id)
    for cluster in tx.all(Cluster):
        if state.node_id in cluster.blacklisted:
            kept = {id_: until for id_, until in cluster.blacklisted.items() if id_ != state.node_id}
            tx.update(replace(cluster, blacklisted=kept))
