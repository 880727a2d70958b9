#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declares an overlay network."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_network
short_description: Declare an overlay network of the cluster
description:
  - Creates a network, or keeps it. Options that are left out are not compared.
  - A network cannot be changed. When what is declared differs, the module says in what and fails, unless
    O(recreate=true) and no service uses it.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
  - swarm.cluster.connection
  - swarm.cluster.network
options:
  name:
    description:
      - Name of the network.
    type: str
    required: true
  state:
    description:
      - Whether it shall be there. A network that services use is not removed.
    type: str
    choices: [present, absent]
    default: present
  recreate:
    description:
      - Remove a network that differs and that nothing uses, and make it anew.
    type: bool
    default: false
  wait_timeout:
    description:
      - Seconds to wait until tasks that are on their way out are off a network that is removed.
    type: int
    default: 60
seealso:
  - module: swarm.cluster.swarm_network_info
"""

EXAMPLES = r"""
- name: Have a network that plain containers can use, too
  swarm.cluster.swarm_network:
    name: back
    subnets:
      - subnet: 10.20.0.0/24
    attachable: true

- name: Remove it
  swarm.cluster.swarm_network:
    name: back
    state: absent
"""

RETURN = r"""
network:
  description: The network as the API returns it, empty when it is absent.
  type: dict
  returned: always
  sample: {Id: 4l6n8p0r2t4v6x8z0b2d4f6h8, Name: back, Driver: overlay, Scope: swarm, Attachable: true}
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [created network back]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils import networks
from ansible_collections.swarm.cluster.plugins.module_utils.client import CONNECTION_SPEC
from ansible_collections.swarm.cluster.plugins.module_utils.declare import Declaration, carry_out
from ansible_collections.swarm.cluster.plugins.module_utils.fields import argument_spec


class Network(Declaration):
    """One network on a manager."""

    def present(self):
        """Have it."""
        networks.declare(self, self.params["name"], self.params, self.params["recreate"])

    def absent(self):
        """Have it gone."""
        found = networks.find(self, self.params["name"])
        if found is None:
            return
        name = f"network {found['Name']}"
        self.note(f"removed {name}", {name: "present"}, {name: None})
        if not self.check:
            networks.remove(self, found)

    def result(self):
        """The network as it is now."""
        return {"network": networks.find(self, self.params["name"]) or {}}


def main():
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            **argument_spec(networks.FIELDS),
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "recreate": {"type": "bool", "default": False},
            "wait_timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    network = Network(module)
    carry_out(module, network, getattr(network, module.params["state"]))


if __name__ == "__main__":
    main()
