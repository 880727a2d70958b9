#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declares a secret."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_secret
short_description: Declare a secret of the cluster
description:
  - Creates a secret, or keeps it. Its content never shows in a diff, in what is returned, or in a log.
  - Nobody can read a secret back. The module knows its content again by a salted, slow hash in the label
    C(swarm.cluster.content). A secret without that label is left as it is, with a warning.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
  - swarm.cluster.connection
  - swarm.cluster.content
options:
  force:
    description:
      - Treat a secret whose content is not known as one with another content.
    type: bool
    default: false
seealso:
  - module: swarm.cluster.swarm_secret_info
  - module: swarm.cluster.swarm_config
"""

EXAMPLES = r"""
- name: Have the password of the database, and a new version whenever it changes
  swarm.cluster.swarm_secret:
    name: db_password
    data: "{{ vault_db_password }}"
    versioned: true
  register: db_password

- name: Let the service use the newest version under the same file name
  swarm.cluster.swarm_service:
    name: db
    image: postgres:17
    secrets:
      - name: "{{ db_password.secret_name }}"
        target: db_password
"""

RETURN = r"""
secret_name:
  description: Name of the secret that holds the content, with its version; empty when it is absent.
  type: str
  returned: always
  sample: db_password_v2
secret_id:
  description: Its id; empty when it is absent, and in check mode when it would be new.
  type: str
  returned: always
  sample: 3k5m7p9r1t3v5x7z9b1d3f5h7
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [created secret db_password_v2]
"""

from ansible_collections.swarm.cluster.plugins.module_utils.blob_module import run


def main():
    run("secret", {"force": {"type": "bool", "default": False}})


if __name__ == "__main__":
    main()
