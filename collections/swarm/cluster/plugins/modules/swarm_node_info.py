#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads nodes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_node_info
short_description: Read nodes of the cluster
description:
  - Returns nodes as the API tells them and, in C(Summary), the same in few words.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes.info
  - swarm.cluster.connection
  - swarm.cluster.listing
seealso:
  - module: swarm.cluster.swarm_node
  - plugin: swarm.cluster.nodes
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Read one node
  swarm.cluster.swarm_node_info:
    name: host2
  register: host2
"""

RETURN = r"""
nodes:
  description: The nodes, sorted by hostname, each with C(Summary).
  type: list
  elements: dict
  returned: always
  sample:
    - ID: 8q2s1c4k0w8m3v7t5x9z2b4n6
      Spec: {Role: worker, Availability: active, Labels: {}}
      Summary: {hostname: host2, role: worker, availability: active, state: ready, address: 10.77.0.12}
"""

from ansible_collections.swarm.cluster.plugins.module_utils.cluster import node_summary
from ansible_collections.swarm.cluster.plugins.module_utils.reading import answer


def nodes(client, _params):
    """Nodes with a summary each."""
    return [{**node, "Summary": node_summary(node)} for node in client.get("/nodes")]


def names(node):
    """What a node is called by."""
    return [node["ID"], node["Summary"]["hostname"]]


def main():
    answer("nodes", nodes, names, order=lambda node: (node["Summary"]["hostname"], node["ID"]))


if __name__ == "__main__":
    main()
