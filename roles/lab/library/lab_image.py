#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)

DOCUMENTATION = r"""
module: lab_image
short_description: Have the image that lab hosts are started from
description:
  - Builds it with mmdebstrap and imports it into the machine's engine, when the engine does not have it.
options:
  root:
    description: The checkout whose lab this is; its cache keeps the tarball.
    type: path
    required: true
  source:
    description: Folder with the package list, the customising script and the files it installs.
    type: path
    required: true
  suite:
    description: Debian release.
    type: str
    required: true
  mirrors:
    description: Mirrors or sources files for mmdebstrap. Empty means its defaults.
    type: list
    elements: str
    default: []
author: swarm.cluster contributors (@swarm-cluster)
"""

EXAMPLES = r"""
- name: Have the image of the hosts
  lab_image:
    root: "{{ playbook_dir | dirname }}"
    source: "{{ role_path }}/files/host-image"
    suite: bookworm
  register: image
"""

RETURN = r"""
tag:
  description: Name of the image in the machine's engine.
  returned: always
  type: str
  sample: swarmlab/host:0123456789ab
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swarmlab import engine, image
from ansible.module_utils.swarmlab.command import LabError
from ansible.module_utils.swarmlab.state import Home


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "source": {"type": "path", "required": True},
            "suite": {"type": "str", "required": True},
            "mirrors": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    home = Home(Path(module.params["root"]))
    recipe = image.Recipe(Path(module.params["source"]), module.params["suite"], tuple(module.params["mirrors"]))
    try:
        if module.check_mode:
            changed = not (engine.answers() and image.present(recipe))
        else:
            changed = image.ensure(home, recipe)
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, tag=recipe.tag)


if __name__ == "__main__":
    main()
