#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)

DOCUMENTATION = r"""
module: lab_hosts
short_description: Have the hosts of a lab up and ready
description:
  - Makes the lab's network and its hosts, starts hosts that are down, makes anew those whose settings changed, removes
    those beyond the number asked for, and waits until systemd and sshd of each are ready.
options:
  root:
    description: The checkout whose lab this is.
    type: path
    required: true
  image:
    description: Image to start hosts from. Needed with O(state=present).
    type: str
  count:
    description: How many hosts, named C(host1) and on.
    type: int
    default: 3
  subnet:
    description: A /24 for the lab's network. Empty means one derived from the checkout's path.
    type: str
    default: ""
  state:
    description: With V(absent), remove hosts, volumes and network.
    type: str
    choices: [present, absent]
    default: present
author: swarm.cluster contributors (@swarm-cluster)
"""

EXAMPLES = r"""
- name: Have three hosts
  swarm.lab.lab_hosts:
    root: "{{ playbook_dir | dirname }}"
    image: "{{ image.tag }}"
"""

RETURN = r"""
hosts:
  description: Address of each host by its name.
  returned: always
  type: dict
  sample: {host1: 10.77.0.11}
actions:
  description: What was done, or would be, a sentence each.
  returned: always
  type: list
  elements: str
  sample: [created host1]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.lab.plugins.module_utils import engine, hosts
from ansible_collections.swarm.lab.plugins.module_utils.command import LabError
from ansible_collections.swarm.lab.plugins.module_utils.state import Home


def actions_of(plan):
    """The plan in words."""
    words = [f"removed {name}" for name in plan.remove]
    words += ["made the network"] if plan.network else []
    return words + [f"created {name}" for name in plan.create] + [f"started {name}" for name in plan.start]


def apply(home, params, check_mode):
    """Carry out what was asked and return the module's result."""
    if params["state"] == "absent":
        there = engine.answers() and bool(hosts.machines(home))
        changed = there if check_mode else engine.answers() and hosts.remove_all(home)
        return {"changed": changed, "hosts": {}, "actions": ["removed the lab"] if changed else []}
    if check_mode and not engine.answers():
        return {"changed": True, "hosts": {}, "actions": ["created all hosts"]}
    if check_mode:
        key = home.key.with_suffix(".pub")
        plan = hosts.plan(
            home, params["count"], params["subnet"], params["image"], key.read_text().strip() if key.exists() else ""
        )
    else:
        plan = hosts.ensure(home, params["count"], params["subnet"], params["image"])
    return {"changed": not plan.empty, "hosts": home.load().hosts, "actions": actions_of(plan)}


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "image": {"type": "str"},
            "count": {"type": "int", "default": 3},
            "subnet": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["image"])],
        supports_check_mode=True,
    )
    try:
        result = apply(Home(Path(module.params["root"])), module.params, module.check_mode)
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
