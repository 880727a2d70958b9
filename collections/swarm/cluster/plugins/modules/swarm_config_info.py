#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads configs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_config_info
short_description: Read configs of the cluster
description:
  - Returns configs with their content, in C(Spec.Data) as the API tells it (base64) and in C(Text) as text.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes.info
  - swarm.cluster.connection
  - swarm.cluster.listing
seealso:
  - module: swarm.cluster.swarm_config
"""

EXAMPLES = r"""
- name: Read one config
  swarm.cluster.swarm_config_info:
    name: web_settings
  register: settings

- name: Show it
  ansible.builtin.debug:
    msg: "{{ settings.configs[0].Text }}"
  when: settings.configs | length > 0
"""

RETURN = r"""
configs:
  description: The configs, sorted by name, each with C(Text); that is V(null) when the content is not text.
  type: list
  elements: dict
  returned: always
  sample:
    - ID: 3k5m7p9r1t3v5x7z9b1d3f5h7
      Spec: {Name: web_settings, Labels: {}, Data: Y29sb3VyPWJsdWU=}
      Text: colour=blue
"""

import base64

from ansible_collections.swarm.cluster.plugins.module_utils.reading import answer


def text(config):
    """The content as text, None when it is none."""
    try:
        return base64.b64decode(config["Spec"].get("Data", "")).decode()
    except UnicodeDecodeError:
        return None


def configs(client, _params):
    """All configs with their text."""
    return [{**config, "Text": text(config)} for config in client.get("/configs")]


def main():
    answer("configs", configs, order=lambda config: config["Spec"]["Name"])


if __name__ == "__main__":
    main()
