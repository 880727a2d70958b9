#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks the network between this host and the others of a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_netcheck
short_description: Check the network between hosts
description:
  - Sends probes to all other hosts and hears theirs, TCP to ports 2377 and 7946, UDP to 7946 and 4790, and real VXLAN
    frames to 4789, and learns the largest packet that arrives, the difference of clocks, and the address that others
    are seen by.
  - All hosts have to run it at the same time, in one task with as many forks as hosts. It tells what this host saw. The
    filters P(swarm.cluster.netcheck_findings#filter) and P(swarm.cluster.netcheck_text#filter) make sense of all.
  - It gives the same answers before a cluster is installed and while it runs, changes nothing and needs root.
version_added: 0.1.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes.info
options:
  name:
    description:
      - This host's name in O(peers).
    type: str
    required: true
  peers:
    description:
      - Address in the cluster of each host by its name, this one included.
    type: dict
    required: true
  managers:
    description:
      - Names of the hosts that are or will be managers, which others reach on port 2377.
    type: list
    elements: str
    required: true
  run:
    description:
      - A text that is the same on all hosts of a run and differs between runs, so that late probes of another one are
        not taken for this one's.
    type: str
    required: true
  wait_timeout:
    description:
      - Seconds to wait for what does not arrive. Where all is well it takes about two.
    type: float
    default: 15
"""

EXAMPLES = r"""
- name: Probe the network between all hosts
  swarm.cluster.swarm_netcheck:
    name: "{{ inventory_hostname }}"
    peers: {node1: 192.0.2.11, node2: 192.0.2.12, node3: 192.0.2.13}
    managers: "{{ groups['managers'] }}"
    run: "{{ now(utc=true).timestamp() }}"
  register: probed
"""

RETURN = r"""
report:
  description: What this host saw.
  type: dict
  returned: always
  contains:
    name:
      description: The host's name.
      type: str
      returned: always
      sample: node1
    address:
      description: Its address in the cluster.
      type: str
      returned: always
      sample: 192.0.2.11
    machine_id:
      description: What /etc/machine-id says.
      type: str
      returned: always
      sample: 6f1c2b7a9d3e4f5082a1b3c4d5e6f708
    mtu:
      description: MTU of the interface that has the address.
      type: int
      returned: always
      sample: 1500
    heard:
      description: For each other host, which of its probes arrived, from which addresses, and how large.
      type: dict
      returned: always
      sample: {node2: {gossip: true, vxlan: true, encrypted: true, mtu: 1500, sources: [192.0.2.12], one_way: 0.0004}}
    tcp:
      description: For each other host and port, V(open) or why not.
      type: dict
      returned: always
      sample: {node2: {"7946": open}}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.netprobe import Prober, interface_mtu


def machine_id():
    """The host's identity; empty when it has none."""
    try:
        with open("/etc/machine-id") as file:
            return file.read().strip()
    except OSError:
        return ""


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "peers": {"type": "dict", "required": True},
            "managers": {"type": "list", "elements": "str", "required": True},
            "run": {"type": "str", "required": True},
            "wait_timeout": {"type": "float", "default": 15},
        },
        supports_check_mode=True,
    )
    asked = module.params
    if asked["name"] not in asked["peers"]:
        module.fail_json(msg=f"peers has no {asked['name']}, only {', '.join(sorted(asked['peers'])) or 'nobody'}")
    address = asked["peers"][asked["name"]]
    try:
        prober = Prober(asked["name"], asked["peers"], asked["managers"], asked["run"], interface_mtu(address))
        report = prober.check(asked["wait_timeout"])
    except LookupError as error:
        module.fail_json(msg=f"{error}; set cluster_address of {asked['name']}")
    except PermissionError as error:
        module.fail_json(msg=f"cannot hear probes on {asked['name']}: {error}; the check needs root there")
    except OSError as error:
        module.fail_json(msg=f"cannot send or hear probes by {address} on {asked['name']}: {error}")
    module.exit_json(changed=False, report={**report, "machine_id": machine_id()})


if __name__ == "__main__":
    main()
