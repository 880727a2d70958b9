#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)

DOCUMENTATION = r"""
module: lab_vm_image
short_description: Have the disk and kernel that lab VMs are started from
description:
  - Builds them from Debian packages, as root, when they are not in the cache.
options:
  cache:
    description: Folder to keep them in.
    type: path
    required: true
  source:
    description: Folder with the package list, the customising scripts and the files they install.
    type: path
    required: true
  base:
    description: Folder of another image, whose packages this one has as well.
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
- name: Have the image of the VMs
  lab_vm_image:
    cache: "{{ lab_root }}/.cache/lab"
    source: "{{ role_path }}/files/vm-image"
    base: "{{ role_path }}/files/host-image"
    suite: bookworm
  register: image
"""

RETURN = r"""
directory:
  description: Folder of the image.
  returned: always
  type: str
  sample: /srv/swarm/.cache/lab/vm-0123456789ab
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swarmlab import vm_image
from ansible.module_utils.swarmlab.command import LabError
from ansible.module_utils.swarmlab.image import Recipe


def main():
    module = AnsibleModule(
        argument_spec={
            "cache": {"type": "path", "required": True},
            "source": {"type": "path", "required": True},
            "base": {"type": "path", "required": True},
            "suite": {"type": "str", "required": True},
            "mirrors": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    asked = module.params
    recipe = Recipe(Path(asked["source"]), asked["suite"], tuple(asked["mirrors"]), Path(asked["base"]))
    image = vm_image.image_of(Path(asked["cache"]), recipe)
    try:
        changed = not image.present if module.check_mode else vm_image.ensure(Path(asked["cache"]), recipe)
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, directory=str(image.directory))


if __name__ == "__main__":
    main()
