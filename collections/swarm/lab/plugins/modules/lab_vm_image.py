#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)

DOCUMENTATION = r"""
module: lab_vm_image
short_description: Have the disk and kernel that lab VMs are started from
description:
  - Builds them from Debian packages, as root, when they are not in the cache.
extends_documentation_fragment: swarm.lab.recipe
options:
  cache:
    description: Folder to keep them in.
    type: path
    required: true
  base:
    description: Folder of another image, whose packages this one has as well.
    type: path
    required: true
author: swarm.cluster contributors (@swarm-cluster)
"""

EXAMPLES = r"""
- name: Have the image of the VMs
  swarm.lab.lab_vm_image:
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
from ansible_collections.swarm.lab.plugins.module_utils import vm_image
from ansible_collections.swarm.lab.plugins.module_utils.command import LabError
from ansible_collections.swarm.lab.plugins.module_utils.image import RECIPE_SPEC, recipe_of


def main():
    module = AnsibleModule(
        argument_spec={
            "cache": {"type": "path", "required": True},
            **RECIPE_SPEC,
            "base": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    cache, recipe = Path(module.params["cache"]), recipe_of(module.params, base=Path(module.params["base"]))
    image = vm_image.image_of(cache, recipe)
    try:
        changed = not image.present if module.check_mode else vm_image.ensure(cache, recipe)
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, directory=str(image.directory))


if __name__ == "__main__":
    main()
