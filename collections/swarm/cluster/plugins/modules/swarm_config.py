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

from ansible_collections.swarm.cluster.plugins.module_utils.blob_module import run


def main():
    run("config")


if __name__ == "__main__":
    main()
