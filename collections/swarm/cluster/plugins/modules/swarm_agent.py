#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Installs, configures and runs the agent. The action plugin of the same name brings the archive to the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_agent
short_description: Have a version of the agent run on a host
description:
  - Makes a virtual environment from the archive that C(agent/package.py) builds on the controller, without any package
    index, writes the agent's settings and unit, and runs it as a service.
  - The archive's name carries a hash of its content, so a version that is there already is neither copied nor
    installed again. The archive is copied only to hosts that lack the version.
  - The agent is restarted only when its version, settings or unit changed. A restart stops no container.
version_added: 0.1.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
options:
  state:
    description:
      - Whether the agent shall be on the host. V(absent) stops it and removes its versions, unit, settings and
        commands. The host should have left its cluster before.
    type: str
    choices: [present, absent]
    default: present
  state_dir:
    description:
      - With O(state=absent), folder of certificates and state to remove, too. Left out, it stays.
    type: path
  archive:
    description:
      - Path of the archive on the controller. Needed with O(state=present). A relative path counts from where Ansible
        was started.
    type: path
  remote_archive:
    description:
      - Path of the same archive on the host, when something else brought it there. When it is left out, the archive is
        copied to the host for the time of the installation.
    type: path
  settings:
    description:
      - Settings of the agent by name, for O(config). What is left out keeps the agent's default.
    type: dict
    default: {}
  unit:
    description:
      - Text of the systemd unit. Needed with O(state=present).
    type: str
  home:
    description:
      - Folder that holds the agent's versions on the host.
    type: path
    default: /opt/swarm-agent
  config:
    description:
      - Path of the settings file.
    type: path
    default: /etc/swarm-agent/agent.toml
  keep:
    description:
      - How many versions to keep beside the one that runs.
    type: int
    default: 1
seealso:
  - module: swarm.cluster.swarm_engine
  - module: swarm.cluster.swarm_cluster
"""

EXAMPLES = r"""
- name: Run the agent
  swarm.cluster.swarm_agent:
    archive: .cache/swarm-agent-0123456789abcdef.tar.gz
    unit: "{{ lookup('ansible.builtin.template', 'swarm-agent.service.j2') }}"
    settings:
      log_level: debug

- name: Leave nothing of it
  swarm.cluster.swarm_agent:
    state: absent
    state_dir: /var/lib/swarm-agent
"""

RETURN = r"""
version:
  description: Name of the version that runs, empty when there is none.
  type: str
  returned: always
  sample: swarm-agent-0123456789abcdef
previous:
  description: Name of the version that ran before, empty when there was none.
  type: str
  returned: always
  sample: swarm-agent-fedcba9876543210
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [installed swarm-agent-0123456789abcdef, restarted swarm-agent.service]
"""

import os
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.agenthome import Home, toml
from ansible_collections.swarm.cluster.plugins.module_utils.systemd import Unit

SERVICE = "swarm-agent.service"
UNIT_FILE = f"/etc/systemd/system/{SERVICE}"


class TextFile:
    """A file that this module writes whole."""

    def __init__(self, path, text, mode):
        self.path = path
        self.text = text
        self.mode = mode
        try:
            with open(path) as file:
                self.found = file.read()
            self.differs = self.found != text or os.stat(path).st_mode & 0o777 != mode
        except FileNotFoundError:
            self.found, self.differs = "", True

    def write(self):
        """Replace the file in one step."""
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        temporary = f"{self.path}.{os.getpid()}"
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, self.mode), "w") as file:
            file.write(self.text)
            os.fchmod(file.fileno(), self.mode)
        # Not atomic_move: it gives the new file the mode of the old one, or of the umask.
        os.replace(temporary, self.path)


def plan(version, previous, installed, activated, files, state):
    """What is to be done, a sentence each."""
    actions = [] if installed else [f"installed {version}"]
    if not activated:
        actions.append(f"switched from {previous} to {version}" if previous else f"switched to {version}")
    actions += [f"wrote {file.path}" for file in files if file.differs]
    if not state["enabled"]:
        actions.append(f"enabled {SERVICE}")
    if not state["active"]:
        actions.append(f"started {SERVICE}")
    elif not installed or previous != version or any(file.differs for file in files):
        actions.append(f"restarted {SERVICE}")
    return actions


def remove(module, home, unit):
    """Leave nothing of the agent; returns what was done, or would be in check mode."""
    actions, state = [], unit.state()
    if state["active"]:
        actions.append(f"stopped {SERVICE}")
    if state["enabled"]:
        actions.append(f"disabled {SERVICE}")
    files = [UNIT_FILE, module.params["config"], *home.commands()]
    folders = [home.path, module.params["state_dir"]]
    gone = [path for path in (*files, *folders) if path and os.path.lexists(path)]
    actions += [f"removed {path}" for path in gone]
    if module.check_mode:
        return actions
    for verb, action in (("stop", "stopped"), ("disable", "disabled")):
        if f"{action} {SERVICE}" in actions:
            unit.do(verb)
    for path in gone:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    if actions:
        unit.reload_units()
    return actions


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "state_dir": {"type": "path"},
            "archive": {"type": "path"},
            "remote_archive": {"type": "path"},
            "settings": {"type": "dict", "default": {}},
            "unit": {"type": "str"},
            "home": {"type": "path", "default": "/opt/swarm-agent"},
            "config": {"type": "path", "default": "/etc/swarm-agent/agent.toml"},
            "keep": {"type": "int", "default": 1},
        },
        required_if=[("state", "present", ("archive", "unit"))],
        supports_check_mode=True,
    )
    home, unit = Home(module, module.params["home"]), Unit(module, SERVICE)
    if module.params["state"] == "absent":
        previous = home.current()
        actions = remove(module, home, unit)
        diff = {"before": {"version": previous}, "after": {"version": ""}} if previous else {}
        module.exit_json(changed=bool(actions), version="", previous=previous, actions=actions, diff=diff)
    name = os.path.basename(module.params["archive"])
    version = name[: -len(".tar.gz")]
    if not name.startswith("swarm-agent-") or not name.endswith(".tar.gz"):
        module.fail_json(msg=f"{name} is no archive of the agent; agent/package.py makes swarm-agent-HASH.tar.gz")
    try:
        settings = toml(module.params["settings"])
    except ValueError as error:
        module.fail_json(msg=str(error))
    files = [
        TextFile(module.params["config"], settings, 0o600),
        TextFile(UNIT_FILE, module.params["unit"].rstrip("\n") + "\n", 0o644),
    ]
    state, previous, installed = unit.state(), home.current(), home.has(version)
    activated = home.activated(version)
    actions = plan(version, previous, installed, activated, files, state)
    diff = [{"before": file.found, "after": file.text, "before_header": file.path, "after_header": file.path}
            for file in files if file.differs]  # fmt: skip
    if previous != version:
        diff.append({"before": {"version": previous}, "after": {"version": version}})
    result = {"changed": bool(actions), "version": version, "previous": previous, "actions": actions, "diff": diff}
    if module.check_mode or not actions:
        module.exit_json(**result)
    if not installed:
        if not module.params["remote_archive"]:
            # The action plugin brings it and calls again; nothing has been changed yet.
            module.exit_json(**{**result, "changed": False, "needs_archive": True})
        home.install(version, module.params["remote_archive"])
    if not activated:
        home.activate(version)
    for file in files:
        if file.differs:
            file.write()
    unit.reload_units()
    if not state["enabled"]:
        unit.do("enable")
    for verb in ("start", "restart"):
        if any(action.startswith(f"{verb}ed ") for action in actions):
            unit.do(verb)
    home.prune(module.params["keep"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
