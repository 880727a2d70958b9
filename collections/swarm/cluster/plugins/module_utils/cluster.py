# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API says of a cluster's objects, in few words."""

from __future__ import annotations

from ansible_collections.swarm.cluster.plugins.module_utils.client import ClientError
from ansible_collections.swarm.cluster.plugins.module_utils.patch import read


def node_summary(node):
    """A node in the words that modules return."""
    manager = node.get("ManagerStatus") or {}
    return {
        "id": node["ID"],
        "hostname": read(node, "Description.Hostname") or "",
        "address": read(node, "Status.Addr") or "",
        "role": read(node, "Spec.Role") or "worker",
        "availability": read(node, "Spec.Availability") or "active",
        "state": read(node, "Status.State") or "unknown",
        "leader": bool(manager.get("Leader")),
        "reachability": manager.get("Reachability", ""),
        "labels": read(node, "Spec.Labels") or {},
        "engine": read(node, "Description.Engine.EngineVersion") or "",
    }


def find_node(nodes, name):
    """The one node with this id or hostname, None when there is none.

    A host that was made anew leaves its old node behind under the same hostname, down; the one that is not down is
    meant then. Raises ClientError when that does not settle it.
    """
    for node in nodes:
        if node["ID"] == name:
            return node
    named = [node for node in nodes if read(node, "Description.Hostname") == name]
    living = [node for node in named if read(node, "Status.State") != "down"]
    if len(living) == 1 or len(named) == 1:
        return (living or named)[0]
    if named:
        listed = ", ".join(f"{node['ID']} ({read(node, 'Status.State')})" for node in named)
        raise ClientError(f"{len(named)} nodes have the hostname {name}: {listed}. Name the one you mean by its id.")
    return None


def service_summary(service):
    """A service in the words that modules return."""
    spec = service["Spec"]
    mode = next(iter(spec.get("Mode") or {"Replicated": {}}))
    status = service.get("ServiceStatus") or {}
    ports = [
        f"{port.get('PublishedPort', 0)}->{port.get('TargetPort', 0)}/{port.get('Protocol', 'tcp')}"
        for port in read(service, "Endpoint.Ports") or []
    ]
    return {
        "id": service["ID"],
        "name": spec.get("Name", ""),
        "mode": {"ReplicatedJob": "replicated-job", "GlobalJob": "global-job"}.get(mode, mode.lower()),
        "running": status.get("RunningTasks", 0),
        "desired": status.get("DesiredTasks", 0),
        "image": read(spec, "TaskTemplate.ContainerSpec.Image") or "",
        "ports": ports,
    }


def task_summary(task, services, nodes):
    """A task in the words that modules return. `services` and `nodes` map ids to names."""
    service = services.get(task.get("ServiceID"), task.get("ServiceID") or "")
    node = nodes.get(task.get("NodeID"), task.get("NodeID") or "")
    status = task.get("Status") or {}
    return {
        "id": task["ID"],
        "name": f"{service}.{task.get('Slot') or task.get('NodeID') or task['ID']}",
        "service": service,
        "node": node,
        "image": read(task, "Spec.ContainerSpec.Image") or "",
        "state": status.get("State", ""),
        "desired": task.get("DesiredState", ""),
        "error": status.get("Err", ""),
        "message": status.get("Message", ""),
    }
