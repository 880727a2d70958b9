#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits until a cluster is whole."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_ready
short_description: Wait until the cluster is whole
description:
  - Waits until nodes are ready, all managers are heard, there is a leader, and each service has all its tasks running.
  - Between two steps of a change of hosts it is the gate. What was not as it should be when the time was over is in the
    failure. It changes nothing.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes.info
  - swarm.cluster.connection
options:
  nodes:
    description:
      - Hostnames or ids of nodes that have to be ready. Left out, all nodes have to be.
    type: list
    elements: str
  services:
    description:
      - Whether services have to have all their tasks.
    type: bool
    default: true
  ignore_services:
    description:
      - Names of services that do not count.
    type: list
    elements: str
    default: []
  wait_timeout:
    description:
      - Seconds to wait. V(0) looks once.
    type: int
    default: 120
seealso:
  - module: swarm.cluster.swarm_info
"""

EXAMPLES = r"""
- name: Go on when host2 is back and nothing is missing
  swarm.cluster.swarm_ready:
    nodes: [host2]
    wait_timeout: 300
"""

RETURN = r"""
nodes:
  description: How many nodes there are.
  type: int
  returned: success
  sample: 3
problems:
  description: What was not as it should be, when it was in vain.
  type: list
  elements: str
  returned: failure
  sample: [node host2 is down, "service web has 2 of 3 tasks running"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.client import CONNECTION_SPEC, Client, ClientError
from ansible_collections.swarm.cluster.plugins.module_utils.health import problems
from ansible_collections.swarm.cluster.plugins.module_utils.waiting import TimedOut, until


def look(client, params):
    """(whole, (number of nodes, problems)). A manager that does not answer for a moment is a problem like others."""
    try:
        nodes = client.get("/nodes")
        services = client.get("/services", status=True) if params["services"] else []
    except ClientError as error:
        return False, (0, [str(error)])
    found = problems(nodes, services, params["nodes"], params["ignore_services"])
    return not found, (len(nodes), found)


def main():
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            "nodes": {"type": "list", "elements": "str"},
            "services": {"type": "bool", "default": True},
            "ignore_services": {"type": "list", "elements": "str", "default": []},
            "wait_timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    client = Client(module.params["socket"], module.params["timeout"])
    timeout = 0 if module.check_mode else module.params["wait_timeout"]
    try:
        count, _none = until(lambda: look(client, module.params), timeout)
    except TimedOut as error:
        count, found = error.last
        if not module.check_mode:
            module.fail_json(msg=f"the cluster is not whole after {timeout} s: {'; '.join(found)}", problems=found)
    module.exit_json(changed=False, nodes=count)


if __name__ == "__main__":
    main()
