#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts of a host, and what on it stands in the way of a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_host_facts
short_description: Learn what a cluster needs to know of a host
description:
  - Gathers in one trip what the roles need to know of a host, and lists what stands in the way of a cluster there.
  - It changes nothing and needs nothing installed but Python.
version_added: 0.1.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes.info
options:
  address:
    description:
      - The address or interface that the user chose for the cluster. Empty means that it has to be found.
    type: str
    default: ""
  reached_by:
    description:
      - The address by which Ansible reaches the host; it is chosen when the host has it and O(address) is empty.
    type: str
    default: ""
  alone:
    description:
      - Whether it is the only host, so that any of its addresses will do.
    type: bool
    default: false
  manager:
    description:
      - Whether the host shall be a manager, which needs port 2377.
    type: bool
    default: false
  controller_time:
    description:
      - The controller's clock in seconds since 1970, for P(swarm.cluster.all_findings#filter) to compare with the
        host's. V(0) means not to.
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: Learn about the host
  swarm.cluster.swarm_host_facts:
    reached_by: "{{ ansible_host | default('') }}"
    manager: "{{ 'managers' in group_names }}"

- name: Show its address in the cluster
  ansible.builtin.debug:
    var: ansible_facts.swarm_host.address
"""

RETURN = r"""
ansible_facts:
  description: The facts, under one name.
  type: dict
  returned: always
  contains:
    swarm_host:
      description: Facts of the host.
      type: dict
      returned: always
      contains:
        address:
          description: The address by which other hosts reach it, empty when none could be chosen.
          type: str
          returned: always
          sample: 10.77.0.11
        findings:
          description: What stands in the way, each with RV(ignore:check), found, wanted and fix.
          type: list
          elements: dict
          returned: always
          sample:
            - check: port
              found: 7946/tcp is taken by nginx
              wanted: that port free for the cluster
              fix: "stop nginx, or give it another port: ss -lnp sport = :7946"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils import hostfacts, preflight
from ansible_collections.swarm.cluster.plugins.module_utils.client import Client

PORTS = [("tcp", 7946), ("udp", 7946), ("udp", 4789), ("udp", 4790)]
MANAGER_PORTS = [("tcp", 2377)]


def main():
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "default": ""},
            "reached_by": {"type": "str", "default": ""},
            "alone": {"type": "bool", "default": False},
            "manager": {"type": "bool", "default": False},
            "controller_time": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    ports = PORTS + (MANAGER_PORTS if module.params["manager"] else [])
    facts = hostfacts.gather(ports, module.params["controller_time"], Client)
    facts["address"], facts["address_finding"] = preflight.choose_address(
        facts["addresses"],
        module.params["address"],
        module.params["reached_by"],
        module.params["alone"],
        facts["default_route_address"],
    )
    facts["findings"] = preflight.host_findings(facts, ports)
    module.exit_json(changed=False, ansible_facts={"swarm_host": facts})


if __name__ == "__main__":
    main()
