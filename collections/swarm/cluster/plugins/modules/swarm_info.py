#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what a node and its cluster hold."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_info
short_description: Read the state of a node and its cluster
description:
  - Tells whether the host is in a cluster and as what. On a manager it also returns the cluster, its nodes and, when
    asked for, its services.
  - In check mode a host without an agent counts as one in no cluster, so that playbooks can be tried on bare hosts.
version_added: 0.1.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes.info
  - swarm.cluster.connection
options:
  services:
    description:
      - Whether to return the services with the numbers of their tasks. Only a manager can.
    type: bool
    default: false
seealso:
  - module: swarm.cluster.swarm_cluster
  - module: swarm.cluster.swarm_node
"""

EXAMPLES = r"""
- name: Ask a manager about the cluster
  swarm.cluster.swarm_info:
    services: true
  register: cluster

- name: Show nodes that are not ready
  ansible.builtin.debug:
    msg: "{{ cluster.nodes | rejectattr('state', 'eq', 'ready') | map(attribute='hostname') }}"
"""

RETURN = r"""
local_state:
  description: V(inactive), V(pending), V(active), V(error) or V(locked); V(absent) without an agent in check mode.
  type: str
  returned: always
  sample: active
control_available:
  description: Whether the host is a manager that can be asked about the cluster.
  type: bool
  returned: always
  sample: true
node_id:
  description: The host's own node id, empty outside of a cluster.
  type: str
  returned: always
  sample: 8q2s1c4k0w8m3v7t5x9z2b4n6
node_addr:
  description: The address that the host uses in the cluster.
  type: str
  returned: always
  sample: 10.77.0.11
cluster_id:
  description: The cluster's id, empty when the host is no manager.
  type: str
  returned: always
  sample: 1n7m9p3r5t2v4x6z8b0d1f3h5
node_ids:
  description: Ids of all nodes, empty when the host is no manager.
  type: list
  elements: str
  returned: always
  sample: [8q2s1c4k0w8m3v7t5x9z2b4n6]
nodes:
  description: The nodes, sorted by hostname, empty when the host is no manager.
  type: list
  elements: dict
  returned: always
  sample:
    - id: 8q2s1c4k0w8m3v7t5x9z2b4n6
      hostname: host1
      address: 10.77.0.11
      role: manager
      availability: active
      state: ready
      leader: true
      reachability: reachable
      labels: {}
      engine: 20.10.24
services:
  description: The services, sorted by name.
  type: list
  elements: dict
  returned: when O(services=true)
  sample:
    - id: 5t7v9x1z3b5d7f9h2j4l6n8p0
      name: web
      mode: replicated
      running: 3
      desired: 3
      image: nginx:1.27
      ports: ["8080->80/tcp"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.client import (
    CONNECTION_SPEC,
    Client,
    ClientError,
    Unreachable,
)
from ansible_collections.swarm.cluster.plugins.module_utils.cluster import node_summary, service_summary

OUTSIDE = {
    "local_state": "absent",
    "control_available": False,
    "node_id": "",
    "node_addr": "",
    "cluster_id": "",
    "node_ids": [],
    "nodes": [],
}


def gather(client, services):
    """What the node and, when it is a manager, the cluster hold."""
    info = client.get("/info").get("Swarm") or {}
    manager = bool(info.get("ControlAvailable"))
    nodes = [node_summary(node) for node in client.get("/nodes")] if manager else []
    result = {
        "local_state": info.get("LocalNodeState") or "inactive",
        "control_available": manager,
        "node_id": info.get("NodeID") or "",
        "node_addr": info.get("NodeAddr") or "",
        "cluster_id": (info.get("Cluster") or {}).get("ID", ""),
        "node_ids": [node["id"] for node in nodes],
        "nodes": sorted(nodes, key=lambda node: (node["hostname"], node["id"])),
    }
    if services:
        found = [service_summary(service) for service in client.get("/services", status=True)] if manager else []
        result["services"] = sorted(found, key=lambda service: service["name"])
    return result


def main():
    module = AnsibleModule(
        argument_spec={**CONNECTION_SPEC, "services": {"type": "bool", "default": False}}, supports_check_mode=True
    )
    client = Client(module.params["socket"], module.params["timeout"])
    try:
        result = gather(client, module.params["services"])
    except Unreachable as error:
        if not module.check_mode:
            module.fail_json(msg=str(error))
        result = dict(OUTSIDE, **({"services": []} if module.params["services"] else {}))
    except ClientError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
