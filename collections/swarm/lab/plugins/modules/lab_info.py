#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)

DOCUMENTATION = r"""
module: lab_info
short_description: Tell which packages the machine lacks to run a lab
description:
  - Looks for the programs that the lab calls and names the Debian packages of those that are missing.
options:
  programs:
    description: Program names, each with the package that brings it.
    type: dict
    required: true
author: swarm.cluster contributors (@swarm-cluster)
"""

EXAMPLES = r"""
- name: Look for the programs that the lab calls
  swarm.lab.lab_info:
    programs: {dockerd: docker.io}
"""

RETURN = r"""
missing:
  description: Packages to install, sorted, each once.
  returned: always
  type: list
  elements: str
  sample: [docker.io]
"""

import os
import shutil

from ansible.module_utils.basic import AnsibleModule


def main():
    module = AnsibleModule(argument_spec={"programs": {"type": "dict", "required": True}}, supports_check_mode=True)
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    lacking = {package for name, package in module.params["programs"].items() if not shutil.which(name, path=path)}
    module.exit_json(changed=False, missing=sorted(lacking))


if __name__ == "__main__":
    main()
