"""The cluster's part of GET /info (swarm.md §1.2)."""

from __future__ import annotations

from typing import Any

import msgspec

from swarm_agent.manager.control.cluster import get_cluster
from swarm_agent.model.base import encode
from swarm_agent.model.errors import ClusterError
from swarm_agent.model.objects import Node

from .control_protocol import NodeControl
from .swarm import cluster_info

TWO_MANAGERS = (
    "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n"
    "         no fault tolerance, and poses a high risk to lose control over the cluster.\n"
    "         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n"
    "         Swarm for fault-tolerance."
)


async def swarm_section(node: NodeControl) -> dict[str, Any]:
    """What /info shows under "Swarm". Without a quorum it tells what this manager knows, and the error."""
    peers = [{"NodeID": peer.node_id, "Addr": peer.addr} for peer in node.remote_managers()]
    section: dict[str, Any] = {
        "NodeID": node.node_id,
        "NodeAddr": node.node_addr,
        "LocalNodeState": str(node.local_state),
        "ControlAvailable": False,
        "Error": node.error,
        "RemoteManagers": peers or None,
    }
    if not node.is_manager:
        return section
    try:
        manager = node.manager()
    except ClusterError:
        return section
    section["ControlAvailable"] = True
    try:
        view = await manager.store.read()
    except ClusterError as error:
        section["Error"] = str(error)
        view = manager.store.view()
    nodes = view.all(Node)
    managers = sum(item.manager_status is not None for item in nodes)
    section |= {"Nodes": len(nodes), "Managers": managers}
    try:
        section["Cluster"] = msgspec.Raw(encode(cluster_info(get_cluster(view))))
    except ClusterError as error:
        section["Error"] = str(error)
    if managers == 2:
        section["Warnings"] = [TWO_MANAGERS]
    return section


def ping_word(node: NodeControl) -> str:
    """The `Swarm` header of /_ping: inactive, pending, error, locked, active/worker or active/manager."""
    state = str(node.local_state)
    if state != "active":
        return state
    return "active/manager" if node.is_manager else "active/worker"
