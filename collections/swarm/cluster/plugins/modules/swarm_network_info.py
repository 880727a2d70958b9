#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads networks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_network_info
short_description: Read networks of the cluster
description:
  - Returns networks as the API tells them.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes.info
  - swarm.cluster.connection
  - swarm.cluster.listing
options:
  scope:
    description:
      - Whether to return networks of the cluster or those of the host alone.
    type: str
    choices: [swarm, local]
    default: swarm
  verbose:
    description:
      - Whether to return services and tasks on each network, too, as far as the host knows them.
    type: bool
    default: false
seealso:
  - module: swarm.cluster.swarm_network
"""

EXAMPLES = r"""
- name: Read what is known of the network back, with the tasks on it
  swarm.cluster.swarm_network_info:
    name: back
    verbose: true
  register: back
"""

RETURN = r"""
networks:
  description: The networks, sorted by name.
  type: list
  elements: dict
  returned: always
  sample:
    - Id: 4l6n8p0r2t4v6x8z0b2d4f6h8
      Name: back
      Driver: overlay
      Scope: swarm
      IPAM: {Driver: default, Config: [{Subnet: 10.20.0.0/24, Gateway: 10.20.0.1}]}
"""

from ansible_collections.swarm.cluster.plugins.module_utils.reading import answer


def names(network):
    """What a network is called by."""
    return [network["Id"], network["Name"]]


def networks(client, params):
    """Networks of the scope; with their tasks when that is asked for."""
    found = client.get("/networks", filters={"scope": {params["scope"]: True}})
    if params["verbose"]:
        wanted = [item for item in found if not params["name"] or set(names(item)) & set(params["name"])]
        found = [client.get(f"/networks/{item['Id']}", verbose=True, scope=params["scope"]) for item in wanted]
    return found


def main():
    extra = {
        "scope": {"type": "str", "choices": ["swarm", "local"], "default": "swarm"},
        "verbose": {"type": "bool", "default": False},
    }
    answer("networks", networks, names, extra, order=lambda network: network["Name"])


if __name__ == "__main__":
    main()
