#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads secrets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_secret_info
short_description: Read secrets of the cluster
description:
  - Returns names, labels and dates of secrets. Nobody can read what they hold.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes.info
  - swarm.cluster.connection
  - swarm.cluster.listing
seealso:
  - module: swarm.cluster.swarm_secret
"""

EXAMPLES = r"""
- name: Read which secrets there are
  swarm.cluster.swarm_secret_info:
  register: secrets
"""

RETURN = r"""
secrets:
  description: The secrets, sorted by name, without their content.
  type: list
  elements: dict
  returned: always
  sample:
    - ID: 3k5m7p9r1t3v5x7z9b1d3f5h7
      Spec: {Name: db_password, Labels: {}}
"""

from ansible_collections.swarm.cluster.plugins.module_utils.reading import answer


def secrets(client, _params):
    """All secrets."""
    return client.get("/secrets")


def main():
    answer("secrets", secrets, order=lambda secret: secret["Spec"]["Name"])


if __name__ == "__main__":
    main()
