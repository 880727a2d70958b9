#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)

DOCUMENTATION = r"""
module: lab_image
short_description: Have the image that lab hosts are started from
description:
  - Builds it with mmdebstrap and imports it into the machine's engine, when the engine does not have it.
extends_documentation_fragment: swarm.lab.recipe
options:
  root:
    description: The checkout whose lab this is; its cache keeps the tarball.
    type: path
    required: true
author: swarm.cluster contributors (@swarm-cluster)
"""

EXAMPLES = r"""
- name: Have the image of the hosts
  swarm.lab.lab_image:
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
from ansible_collections.swarm.lab.plugins.module_utils import engine, image
from ansible_collections.swarm.lab.plugins.module_utils.command import LabError
from ansible_collections.swarm.lab.plugins.module_utils.image import RECIPE_SPEC, recipe_of
from ansible_collections.swarm.lab.plugins.module_utils.state import Home


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            **RECIPE_SPEC,
        },
        supports_check_mode=True,
    )
    home, recipe = Home(Path(module.params["root"])), recipe_of(module.params)
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
