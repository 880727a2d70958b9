#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)

DOCUMENTATION = r"""
module: lab_vms
short_description: Have virtual machines as hosts of a lab
description:
  - Makes the VMs, starts those that are off, makes anew those whose settings changed, removes those beyond the number
    asked for, and waits until sshd of each answers.
options:
  directory:
    description: Folder of these VMs, with their disks, keys and logs.
    type: path
    required: true
  image:
    description: Folder of the image, from M(swarm.lab.lab_vm_image). Needed with O(state=present).
    type: path
  count:
    description: How many VMs, named C(host1) and on.
    type: int
    default: 3
  memory:
    description: MiB of each.
    type: int
    default: 1024
  subnet:
    description: A /24 for the network between the VMs. Empty means one derived from the folder's path.
    type: str
    default: ""
  names:
    description: The VMs to power on or off.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(present) has all of them running, V(absent) removes them with their disks.
      - V(off) pulls the plug of O(names), V(on) starts them again with the disk they had.
    type: str
    choices: [present, absent, "on", "off"]
    default: present
author: swarm.cluster contributors (@swarm-cluster)
"""

EXAMPLES = r"""
- name: Have three VMs
  swarm.lab.lab_vms:
    directory: "{{ lab_root }}/.lab/vms"
    image: "{{ image.directory }}"

- name: Let one lose its power
  swarm.lab.lab_vms:
    directory: "{{ lab_root }}/.lab/vms"
    state: "off"
    names: [host3]
"""

RETURN = r"""
hosts:
  description: How Ansible reaches each VM, by its name.
  returned: always
  type: dict
  sample: {host1: {ansible_host: 127.0.0.1, ansible_port: 16001, cluster_address: 10.77.0.11}}
accelerator:
  description: How the guests' processor is made, C(kvm) or C(tcg) (emulation).
  returned: when the VMs are there
  type: str
  sample: tcg
actions:
  description: What was done, or would be, a sentence each.
  returned: always
  type: list
  elements: str
  sample: [created host1]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.lab.plugins.module_utils import vm_image, vms
from ansible_collections.swarm.lab.plugins.module_utils.command import LabError


def reach(settings):
    """The inventory's variables of each VM."""
    if settings is None:
        return {}
    return {
        name: {
            "ansible_host": "127.0.0.1",
            "ansible_port": settings.ssh_port(name),
            "cluster_address": settings.address(name),
        }
        for name in settings.names
    }


def apply(params, check_mode):
    """Carry out what was asked and return the module's result."""
    fleet, state = vms.Fleet(Path(params["directory"]).resolve()), params["state"]
    if state == "absent":
        changed = fleet.directory.is_dir() if check_mode else vms.remove_all(fleet)
        return {"changed": changed, "hosts": {}, "actions": ["removed the VMs"] if changed else []}
    if state in ("on", "off"):
        if check_mode:
            different = [name for name in params["names"] if (fleet.pid(name) is not None) != (state == "on")]
        else:
            different = vms.power(fleet, params["names"], on=state == "on")
        actions = [f"powered {state} {name}" for name in different]
        return {"changed": bool(actions), "hosts": reach(fleet.load()), "actions": actions}
    image = vm_image.VmImage(Path(params["image"]))
    if check_mode:
        settings = vms.settle(fleet, image, params["count"], params["memory"], params["subnet"])
        todo = vms.plan(fleet, settings)
        return {"changed": bool(todo.actions), "hosts": reach(settings), "actions": todo.actions}
    todo = vms.ensure(fleet, image, params["count"], params["memory"], params["subnet"])
    return {
        "changed": bool(todo.actions),
        "hosts": reach(fleet.load()),
        "accelerator": vm_image.accelerator(image).name,
        "actions": todo.actions,
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "image": {"type": "path"},
            "count": {"type": "int", "default": 3},
            "memory": {"type": "int", "default": 1024},
            "subnet": {"type": "str", "default": ""},
            "names": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent", "on", "off"], "default": "present"},
        },
        required_if=[("state", "present", ["image"])],
        supports_check_mode=True,
    )
    try:
        result = apply(module.params, module.check_mode)
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
