# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a cluster is whole: nodes ready, managers heard, services with all their tasks. Pure."""

from __future__ import annotations

from ansible_collections.swarm.cluster.plugins.module_utils.cluster import node_summary, service_summary
from ansible_collections.swarm.cluster.plugins.module_utils.patch import read


def problems(nodes, services, names=None, ignore_services=()):
    """What is not as it should be, a sentence each; nothing when the cluster is whole.

    `names` limits the nodes that have to be ready (hostnames or ids); without, all have to be. Managers are looked at
    in any case, because they decide together. A service that is being updated is not as it should be, and a job counts
    no longer once it ran.
    """
    found = []
    for node in map(node_summary, nodes):
        called = node["hostname"] or node["id"]
        if node["state"] != "ready" and (names is None or {node["hostname"], node["id"]} & set(names)):
            found.append(f"node {called} is {node['state']}")
        if node["role"] == "manager" and node["reachability"] != "reachable":
            found.append(f"manager {called} is {node['reachability'] or 'not yet a manager'}")
    if names is not None:
        known = {text for node in map(node_summary, nodes) for text in (node["hostname"], node["id"])}
        found += [f"there is no node {name}" for name in names if name not in known]
    if not any(node_summary(node)["leader"] for node in nodes):
        found.append("there is no leader")
    for service in services:
        brief = service_summary(service)
        if brief["name"] in ignore_services or brief["mode"].endswith("-job"):
            continue
        state = read(service, "UpdateStatus.State") or ""
        if brief["running"] < brief["desired"]:
            found.append(f"service {brief['name']} has {brief['running']} of {brief['desired']} tasks running")
        elif state in ("updating", "rollback_started"):
            found.append(f"service {brief['name']} is being changed ({state})")
    return found
