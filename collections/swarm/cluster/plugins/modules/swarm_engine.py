#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps a host's plain Docker engine configured and running."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_engine
short_description: Configure and run the Docker engine of a host
description:
  - Overlays options on C(/etc/docker/daemon.json), enables and starts the engine.
  - Options of the file that are not named stay. An engine that runs is told to reload when that is enough for what
    changed, and restarted only when it is not; one that runs with the right options is left alone.
version_added: 0.1.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
options:
  options:
    description:
      - Options of C(daemon.json) by name. An option with the value V(null) is taken out of the file.
    type: dict
    default: {}
  config:
    description:
      - Path of the file.
    type: path
    default: /etc/docker/daemon.json
  service:
    description:
      - Name of the engine's unit.
    type: str
    default: docker.service
seealso:
  - module: swarm.cluster.swarm_agent
"""

EXAMPLES = r"""
- name: Let containers survive a restart of the engine
  swarm.cluster.swarm_engine:
    options:
      live-restore: true
      insecure-registries: [registry.lab:5000]
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [wrote /etc/docker/daemon.json, restarted docker.service]
options:
  description: All options of the file.
  type: dict
  returned: always
  sample: {live-restore: true}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils import engineconfig
from ansible_collections.swarm.cluster.plugins.module_utils.systemd import Unit


def write(path, text):
    """Replace the file in one step."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
    os.replace(temporary, path)


def main():
    module = AnsibleModule(
        argument_spec={
            "options": {"type": "dict", "default": {}},
            "config": {"type": "path", "default": "/etc/docker/daemon.json"},
            "service": {"type": "str", "default": "docker.service"},
        },
        supports_check_mode=True,
    )
    path, unit = module.params["config"], Unit(module, module.params["service"])
    try:
        with open(path) as file:
            before = engineconfig.parse(file.read())
    except FileNotFoundError:
        before = {}
    except ValueError as error:
        module.fail_json(msg=f"{path} cannot be read as the engine's options: {error}. Mend it or move it away.")
    after = {key: value for key, value in {**before, **module.params["options"]}.items() if value is not None}
    keys = engineconfig.changed_keys(before, after)
    state = unit.state()
    if not state["exists"] and not module.check_mode:
        module.fail_json(msg=f"There is no unit {unit.name} on this host: install a Docker engine first (role engine).")

    verb = engineconfig.needed_action(keys) if state["active"] else "start"
    actions = [f"wrote {path}"] if keys else []
    if not state["enabled"]:
        actions.append(f"enabled {unit.name}")
    if verb:
        actions.append({"start": "started", "reload": "reloaded", "restart": "restarted"}[verb] + f" {unit.name}")
    diff = {
        "before": {**{key: before.get(key) for key in keys}, **({} if state["active"] else {"running": False})},
        "after": {**{key: after.get(key) for key in keys}, **({} if state["active"] else {"running": True})},
        "before_header": path,
        "after_header": path,
    }
    if actions and not module.check_mode:
        if keys:
            write(path, engineconfig.render(after))
        if not state["enabled"]:
            unit.do("enable")
        if verb:
            unit.do(verb)
    module.exit_json(changed=bool(actions), actions=actions, options=after, diff=diff)


if __name__ == "__main__":
    main()
