#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declares a stack: all that a compose file names."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_stack
short_description: Declare a stack by its compose file
description:
  - Creates, changes and removes what a compose file names, as C(docker stack deploy) does, with check mode and a diff.
    The file is read on the controller. Objects get the names and labels that Docker gives them, so C(docker stack) and
    this module can be used on the same stack.
  - Waits until all its services run. An update that is paused or rolled back is a failure.
  - What the file does not say about a service goes back to its default; only the number of tasks stays when
    C(deploy.replicas) is left out.
  - Images are used as they are named; no registry is asked for a digest.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
  - swarm.cluster.connection
options:
  name:
    description:
      - Name of the stack.
    type: str
    required: true
  state:
    description:
      - Whether the stack shall be there. V(absent) needs no compose file; it goes by the stack's label.
    type: str
    choices: [present, absent]
    default: present
  file:
    description:
      - Compose files on the controller, looked for as C(copy) does. Later ones are laid over earlier ones.
    type: list
    elements: path
  definition:
    description:
      - The content of a compose file, instead of or over O(file).
    type: dict
  env:
    description:
      - Values for C(${NAME}) in the file, and for variables that are named without a value.
    type: dict
  versioned:
    description:
      - What to do with another content of a secret or config. V(false) refuses it while a service uses the old one, as
        Docker does. V(true) makes C(NAME_v1), C(NAME_v2) and on, and lets services use the newest; O(prune=true)
        removes old ones.
    type: bool
    default: false
  prune:
    description:
      - Remove what bears the stack's label and is not in the file any more.
    type: bool
    default: false
  wait:
    description:
      - Whether to wait until all services are what was declared, and until tasks of removed ones are gone.
    type: bool
    default: true
  wait_timeout:
    description:
      - Seconds to wait, for all services together.
    type: int
    default: 300
  desired:
    description:
      - What was read from the files. Filled in on the controller; do not use it.
    type: dict
  contents:
    description:
      - Contents of secrets and configs. Filled in on the controller; do not use it.
    type: dict
seealso:
  - module: swarm.cluster.swarm_service
  - module: swarm.cluster.swarm_secret
"""

EXAMPLES = r"""
- name: Run the shop as its compose file says
  swarm.cluster.swarm_stack:
    name: shop
    file: [shop.yml]
    env:
      TAG: "1.4"
    prune: true

- name: Run a stack that stands in the playbook
  swarm.cluster.swarm_stack:
    name: web
    definition:
      services:
        front:
          image: nginx:1.27
          ports: ["8080:80"]
          deploy:
            replicas: 3

- name: Remove it
  swarm.cluster.swarm_stack:
    name: web
    state: absent
"""

RETURN = r"""
services:
  description: The services and how many of their tasks run, when it waited.
  type: list
  elements: dict
  returned: always
  sample:
    - name: shop_web
      running: 3
      desired: 3
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [created network shop_default, created service shop_web]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.client import CONNECTION_SPEC
from ansible_collections.swarm.cluster.plugins.module_utils.declare import carry_out
from ansible_collections.swarm.cluster.plugins.module_utils.stack import Stack


def main():
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "file": {"type": "list", "elements": "path"},
            "definition": {"type": "dict"},
            "env": {"type": "dict"},
            "versioned": {"type": "bool", "default": False},
            "prune": {"type": "bool", "default": False},
            "wait": {"type": "bool", "default": True},
            "wait_timeout": {"type": "int", "default": 300},
            "desired": {"type": "dict"},
            "contents": {"type": "dict", "no_log": True},
        },
        required_if=[("state", "present", ("file", "definition"), True)],
        supports_check_mode=True,
    )
    if module.params["state"] == "present" and module.params["desired"] is None:
        module.fail_json(msg="swarm_stack is run by its action plugin, which reads the file on the controller")
    stack = Stack(module)
    carry_out(module, stack, getattr(stack, module.params["state"]))


if __name__ == "__main__":
    main()
