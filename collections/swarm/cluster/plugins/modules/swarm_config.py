#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declares a config."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_config
short_description: Declare a config of the cluster
description:
  - Creates a config, or keeps it. A diff shows its content, so passwords belong into a secret.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
  - swarm.cluster.connection
  - swarm.cluster.content
seealso:
  - module: swarm.cluster.swarm_config_info
  - module: swarm.cluster.swarm_secret
"""

EXAMPLES = r"""
- name: Have the settings of the web server, and a new version whenever they change
  swarm.cluster.swarm_config:
    name: web_settings
    data: "{{ lookup('ansible.builtin.file', 'web.conf') }}"
    versioned: true
  register: web_settings

- name: Let the service use the newest version
  swarm.cluster.swarm_service:
    name: web
    image: nginx:1.27
    configs:
      - name: "{{ web_settings.config_name }}"
        target: /etc/nginx/nginx.conf
"""

RETURN = r"""
config_name:
  description: Name of the config that holds the content, with its version; empty when it is absent.
  type: str
  returned: always
  sample: web_settings_v2
config_id:
  description: Its id; empty when it is absent, and in check mode when it would be new.
  type: str
  returned: always
  sample: 3k5m7p9r1t3v5x7z9b1d3f5h7
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [created config web_settings_v2]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.blobs import BLOB_SPEC, declare_blob
from ansible_collections.swarm.cluster.plugins.module_utils.client import CONNECTION_SPEC
from ansible_collections.swarm.cluster.plugins.module_utils.declare import Declaration, carry_out


class Config(Declaration):
    """One config on a manager."""

    name = ""

    def work(self):
        """Bring it to its state."""
        self.name = declare_blob(self, "config")

    def result(self):
        """Which object holds the content."""
        found = self.named("/configs", self.name) if self.name else None
        return {"config_name": self.name, "config_id": found["ID"] if found else ""}


def main():
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            **BLOB_SPEC,
            "data": {"type": "str"},
            "data_base64": {"type": "str"},
        },
        required_if=[("state", "present", ("data", "data_base64"), True)],
        mutually_exclusive=[("data", "data_base64")],
        supports_check_mode=True,
    )
    declaration = Config(module)
    carry_out(module, declaration, declaration.work)


if __name__ == "__main__":
    main()
