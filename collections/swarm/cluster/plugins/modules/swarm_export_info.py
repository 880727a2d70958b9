#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what a cluster holds, for another one to take."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_export_info
short_description: Read what a Docker Swarm holds, for another cluster to take
description:
  - Reads networks, configs, the names of secrets, and services from a manager, in a form that
    M(swarm.cluster.swarm_import) takes on a manager of another cluster. It changes nothing.
  - By default it asks the engine's own socket, where a Docker Swarm answers; with the agent's it reads a cluster of
    this project.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes.info
options:
  socket:
    description:
      - Path of the unix socket on the host that answers the Engine API.
    type: path
    default: /run/docker.sock
  timeout:
    description:
      - Seconds after which one call is given up.
    type: int
    default: 60
seealso:
  - module: swarm.cluster.swarm_import
"""

EXAMPLES = r"""
- name: Read a running Docker Swarm
  swarm.cluster.swarm_export_info:
  delegate_to: old-manager
  register: old
"""

RETURN = r"""
export:
  description: What the cluster holds, with names instead of ids. Configs have their content, secrets have none.
  type: dict
  returned: always
  sample:
    networks: [{Name: back, Driver: overlay, Subnets: [10.0.1.0/24]}]
    secrets: [{Name: db_password, Labels: {}}]
    configs: []
    services: [{Name: web}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.adoption import export
from ansible_collections.swarm.cluster.plugins.module_utils.client import Client, ClientError


def main():
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "default": "/run/docker.sock"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    client = Client(module.params["socket"], module.params["timeout"])
    try:
        found = export(client)
    except ClientError as error:
        module.fail_json(msg=f"this host cannot tell what its cluster holds: {error}")
    module.exit_json(changed=False, export=found)


if __name__ == "__main__":
    main()
