#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)

DOCUMENTATION = r"""
module: lab_engine
short_description: Have a container engine running on this machine
description:
  - Starts the machine's engine when it does not answer. As a service under systemd, else as a process of its own.
options:
  root:
    description: The checkout whose lab this is.
    type: path
    required: true
  state:
    description: With V(absent), stop the engine if this lab started it and nothing runs on it, and forget the lab.
    type: str
    choices: [present, absent]
    default: present
author: swarm.cluster contributors (@swarm-cluster)
"""

EXAMPLES = r"""
- name: Have a container engine running
  swarm.lab.lab_engine:
    root: "{{ playbook_dir | dirname }}"
"""

RETURN = r""" # """

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.lab.plugins.module_utils import engine
from ansible_collections.swarm.lab.plugins.module_utils.command import LabError
from ansible_collections.swarm.lab.plugins.module_utils.state import Home


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    home = Home(Path(module.params["root"]))
    wanted = module.params["state"] == "present"
    try:
        if wanted:
            changed = not engine.answers() if module.check_mode else engine.start(home)
        else:
            changed = home.directory.exists()
            if not module.check_mode:
                engine.stop(home)
                home.forget(keep="engine." if engine.owned(home) else "")
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
