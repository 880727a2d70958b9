#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps a host's plain Docker engine configured and running."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_engine
short_description: Install, configure and run the Docker engine of a host
description:
  - Brings a version of the engine's packages when one is named.
  - Overlays options on C(/etc/docker/daemon.json), enables and starts the engine.
  - Options of the file that are not named stay. An engine that runs is told to reload when that is enough for what
    changed, and restarted only when it is not; one that runs with the right options is left alone.
version_added: 0.1.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
options:
  version:
    description:
      - The engine's version, as C(27.5.1), or its beginning, as C(27), for the newest of these. Left out, packages stay
        as they are. The newest package of that version is installed, in place of an older or a newer one; when the
        installed one is of that version, it stays. When the lists of packages do not have it, they are fetched anew,
        also in check mode.
      - The packages' own scripts restart an engine that runs. Containers outlive that with the option C(live-restore).
    type: str
    version_added: 0.3.0
  packages:
    description:
      - The packages that have the engine's version. By default C(docker.io) with apt, C(docker-ce) and C(docker-ce-cli)
        with dnf.
    type: list
    elements: str
    version_added: 0.3.0
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

- name: Have a version of the engine, one host after the other
  swarm.cluster.swarm_engine:
    version: "27.5"
    packages: [docker-ce, docker-ce-cli]
  throttle: 1
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [wrote /etc/docker/daemon.json, restarted docker.service]
packages:
  description: The version of each of the engine's packages at the end, when O(version) is given.
  type: dict
  returned: when O(version) is given
  sample: {docker.io: 20.10.24+dfsg1-1+deb12u1}
options:
  description: All options of the file.
  type: dict
  returned: always
  sample: {live-restore: true}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils import engineconfig
from ansible_collections.swarm.cluster.plugins.module_utils.packages import ENGINE_PACKAGES, Packages, choose, matches
from ansible_collections.swarm.cluster.plugins.module_utils.systemd import Unit


def write(path, text):
    """Replace the file in one step."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
    os.replace(temporary, path)


def read(module, path):
    """The options of the file, none when it is not there."""
    try:
        with open(path) as file:
            return engineconfig.parse(file.read())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        module.fail_json(msg=f"{path} cannot be read as the engine's options: {error}. Mend it or move it away.")


def bring(module, wanted, names):
    """Have the version of the packages: what was installed before and after, by name; the same when nothing is done."""
    packages = Packages(module)
    if not packages.manager:
        module.fail_json(msg="This host has neither apt nor dnf, so a version of the engine cannot be installed.")
    names = names or ENGINE_PACKAGES[packages.manager]
    before = {name: packages.installed(name) for name in names}
    if all(matches(version, wanted) for version in before.values()):
        return before, before

    def chosen():
        return {name: choose(packages.available(name), wanted) for name in names}

    after = chosen()
    if not all(after.values()):
        packages.refresh()
        after = chosen()
    lacking = [name for name, version in after.items() if not version]
    if lacking:
        known = "; ".join(f"{name}: {', '.join(packages.available(name)) or 'none'}" for name in lacking)
        module.fail_json(
            msg=f"No version {wanted} of {', '.join(lacking)} is known to {packages.manager} on this host. It knows "
            f"{known}. Name one of these, or add the repository that has it."
        )
    if not module.check_mode:
        packages.install(after)
    return before, after


def main():
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str"},
            "packages": {"type": "list", "elements": "str"},
            "options": {"type": "dict", "default": {}},
            "config": {"type": "path", "default": "/etc/docker/daemon.json"},
            "service": {"type": "str", "default": "docker.service"},
        },
        supports_check_mode=True,
    )
    asked, path, unit = module.params, module.params["config"], Unit(module, module.params["service"])
    before = read(module, path)
    was, brought = bring(module, asked["version"], asked["packages"]) if asked["version"] else ({}, {})
    actions = [
        f"replaced {name} {was[name]} by {version}" if was[name] else f"installed {name} {version}"
        for name, version in brought.items()
        if was[name] != version
    ]
    after = {key: value for key, value in {**before, **asked["options"]}.items() if value is not None}
    keys = engineconfig.changed_keys(before, after)
    state = unit.state()
    if not state["exists"] and not module.check_mode:
        module.fail_json(msg=f"There is no unit {unit.name} on this host: install a Docker engine first (role engine).")

    verb = engineconfig.needed_action(keys) if state["active"] else "start"
    actions += [f"wrote {path}"] if keys else []
    if not state["enabled"]:
        actions.append(f"enabled {unit.name}")
    if verb:
        actions.append({"start": "started", "reload": "reloaded", "restart": "restarted"}[verb] + f" {unit.name}")
    changed_packages = [name for name in brought if was[name] != brought[name]]
    diff = {
        "before": {
            **{name: was[name] or None for name in changed_packages},
            **{key: before.get(key) for key in keys},
            **({} if state["active"] else {"running": False}),
        },
        "after": {
            **{name: brought[name] for name in changed_packages},
            **{key: after.get(key) for key in keys},
            **({} if state["active"] else {"running": True}),
        },
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
    told = {"packages": brought} if asked["version"] else {}
    module.exit_json(changed=bool(actions), actions=actions, options=after, diff=diff, **told)


if __name__ == "__main__":
    main()
