#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes a context of the docker CLI, so that `docker --context NAME` talks to the cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_context
short_description: Have a context of the docker CLI
description:
  - Writes the file by which the docker CLI knows an endpoint by name, in the home of the user the module runs as.
version_added: 0.1.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
options:
  name:
    description:
      - Name of the context.
    type: str
    default: swarm
  endpoint:
    description:
      - What it stands for. Needed with O(state=present).
    type: str
    default: unix:///run/swarm-agent/docker.sock
  description:
    description:
      - What C(docker context ls) shows.
    type: str
    default: The cluster this host belongs to
  config:
    description:
      - Folder of the CLI's configuration.
    type: path
    default: ~/.docker
  state:
    description:
      - Whether the context shall be there.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Let `docker --context swarm` talk to the cluster
  swarm.cluster.swarm_context:
    name: swarm
"""

RETURN = r"""
path:
  description: The file that holds the context.
  type: str
  returned: always
  sample: /root/.docker/contexts/meta/6f6d…/meta.json
"""

import hashlib
import json
import os
import shutil

from ansible.module_utils.basic import AnsibleModule


def read(path):
    """The context in the file, None when there is none that can be used."""
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "swarm"},
            "endpoint": {"type": "str", "default": "unix:///run/swarm-agent/docker.sock"},
            "description": {"type": "str", "default": "The cluster this host belongs to"},
            "config": {"type": "path", "default": "~/.docker"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    # The CLI names a context's folder by the hash of its name.
    digest = hashlib.sha256(module.params["name"].encode()).hexdigest()
    folder = os.path.join(module.params["config"], "contexts", "meta", digest)
    path = os.path.join(folder, "meta.json")
    before = read(path)
    after = None
    if module.params["state"] == "present":
        after = {
            "Name": module.params["name"],
            "Metadata": {"Description": module.params["description"]},
            "Endpoints": {"docker": {"Host": module.params["endpoint"], "SkipTLSVerify": False}},
        }
    if before != after and not module.check_mode:
        if after is None:
            shutil.rmtree(folder)
        else:
            os.makedirs(folder, mode=0o755, exist_ok=True)
            temporary = f"{path}.{os.getpid()}"
            with open(temporary, "w") as file:
                json.dump(after, file)
            os.replace(temporary, path)
    module.exit_json(
        changed=before != after, path=path, diff={"before": before or {}, "after": after or {}, "before_header": path}
    )


if __name__ == "__main__":
    main()
