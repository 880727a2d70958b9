#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what a host needs to join a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_join_token_info
short_description: Read the tokens by which hosts join
description:
  - Returns the cluster's join tokens and the addresses of its managers. Run it on a manager, in a task with
    C(no_log).
  - In check mode, where there may be no cluster yet, tokens are empty then.
version_added: 0.1.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes.info
  - swarm.cluster.connection
seealso:
  - module: swarm.cluster.swarm_cluster
"""

EXAMPLES = r"""
- name: Learn how to join
  swarm.cluster.swarm_join_token_info:
  delegate_to: "{{ groups['managers'][0] }}"
  run_once: true
  no_log: true
  register: token
"""

RETURN = r"""
worker:
  description: Token by which a host joins as a worker.
  type: str
  returned: always
  sample: SWMTKN-1-…
manager:
  description: Token by which a host joins as a manager.
  type: str
  returned: always
  sample: SWMTKN-1-…
remote_addrs:
  description: Addresses of the managers that can be reached, the asked one first.
  type: list
  elements: str
  returned: always
  sample: ["10.77.0.11:2377"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.client import (
    CONNECTION_SPEC,
    ApiError,
    Client,
    ClientError,
    Unreachable,
)


def gather(client):
    """Tokens and managers' addresses."""
    info = client.get("/info").get("Swarm") or {}
    tokens = client.get("/swarm")["JoinTokens"]
    managers = [node for node in client.get("/nodes") if node.get("ManagerStatus")]
    managers.sort(key=lambda node: node["ID"] != info.get("NodeID"))
    addresses = [node["ManagerStatus"]["Addr"] for node in managers if node["ManagerStatus"].get("Addr")]
    return {"worker": tokens["Worker"], "manager": tokens["Manager"], "remote_addrs": addresses}


def main():
    module = AnsibleModule(argument_spec=dict(CONNECTION_SPEC), supports_check_mode=True)
    client = Client(module.params["socket"], module.params["timeout"])
    try:
        result = gather(client)
    except (Unreachable, ApiError) as error:
        if not module.check_mode:
            module.fail_json(msg=str(error))
        result = {"worker": "", "manager": "", "remote_addrs": []}
    except ClientError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
