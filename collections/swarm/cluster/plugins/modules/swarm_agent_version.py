#!/usr/bin/python
# Copyright: the cluster's authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs one version of the agent from its archive of wheels. The action plugin of the same name brings the archive."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_agent_version
short_description: Install a version of the agent from its archive
description:
  - Makes a virtual environment from the archive that C(agent/package.py) builds on the controller, without any package
    index, and links it as the one that runs.
  - The archive's name carries a hash of its content, so a version that is there already is neither copied nor
    installed again.
  - The archive is copied by the action plugin of this name, and only to hosts that lack the version.
version_added: 0.1.0
author:
  - The cluster's authors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
options:
  archive:
    description:
      - Path of the archive on the controller.
    type: path
    required: true
  home:
    description:
      - Folder that holds the agent's versions on the host.
    type: path
    default: /opt/swarm-agent
  keep:
    description:
      - How many versions to keep beside the one that runs.
    type: int
    default: 1
"""

EXAMPLES = r"""
- name: Install the agent's version
  swarm.cluster.swarm_agent_version:
    archive: .cache/swarm-agent-0123456789abcdef.tar.gz
"""

RETURN = r"""
version:
  description: Name of the installed version.
  type: str
  returned: always
  sample: swarm-agent-0123456789abcdef
previous:
  description: Name of the version that ran before, empty when there was none.
  type: str
  returned: always
  sample: swarm-agent-fedcba9876543210
"""

import os
import shutil
import tarfile
import tempfile

from ansible.module_utils.basic import AnsibleModule

COMMANDS = ("swarm-agent", "swarmctl")


class Home:
    """The folder with the agent's versions."""

    def __init__(self, module):
        self.module = module
        self.path = module.params["home"]
        self.link = os.path.join(self.path, "current")

    def current(self):
        """Name of the version that `current` links to."""
        try:
            return os.path.basename(os.readlink(self.link))
        except OSError:
            return ""

    def has(self, version):
        """True when the version is installed whole: its marker is written last."""
        return os.path.exists(os.path.join(self.path, version, ".complete"))

    def install(self, version, archive):
        """Make the version's environment from the archive."""
        target = os.path.join(self.path, version)
        os.makedirs(self.path, mode=0o755, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=self.path) as wheels:
            with tarfile.open(archive) as tar:
                tar.extractall(wheels)  # noqa: S202 - our own archive, of wheels in one flat folder
            python = self.module.get_bin_path("python3", required=True)
            self.module.run_command([python, "-m", "venv", "--without-pip", target], check_rc=True)
            pip = [name for name in os.listdir(wheels) if name.startswith("pip-")]
            if not pip:
                self.module.fail_json(msg="%s holds no wheel of pip; build it anew with agent/package.py" % archive)
            self.module.run_command(
                [
                    os.path.join(target, "bin", "python"),
                    os.path.join(wheels, pip[0], "pip"),
                    "install",
                    "--quiet",
                    "--no-index",
                    "--no-cache-dir",
                    "--find-links",
                    wheels,
                    "swarm-agent",
                ],
                check_rc=True,
            )
        with open(os.path.join(target, ".complete"), "w"):
            pass

    def activate(self, version):
        """Let `current` and the commands in /usr/local/bin point to the version."""
        replace_link(version, self.link)
        for command in COMMANDS:
            replace_link(os.path.join(self.link, "bin", command), os.path.join("/usr/local/bin", command))

    def prune(self, keep):
        """Remove versions that are neither in use nor among the newest `keep` others."""
        names = [name for name in os.listdir(self.path) if name.startswith("swarm-agent-") and name != self.current()]
        names.sort(key=lambda name: os.path.getmtime(os.path.join(self.path, name)), reverse=True)
        for name in names[keep:]:
            shutil.rmtree(os.path.join(self.path, name), ignore_errors=True)


def replace_link(target, path):
    """Make `path` a link to `target` in one step."""
    if os.path.islink(path) and os.readlink(path) == target:
        return
    temporary = path + ".new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.replace(temporary, path)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            archive=dict(type="path", required=True),
            home=dict(type="path", default="/opt/swarm-agent"),
            keep=dict(type="int", default=1),
            # Set by the action plugin: where the archive lies on this host, when it had to be brought.
            _source=dict(type="path"),
        ),
        supports_check_mode=True,
    )
    home = Home(module)
    version = os.path.basename(module.params["archive"])[: -len(".tar.gz")]
    previous = home.current()
    present = home.has(version)
    result = dict(changed=not present or previous != version, version=version, previous=previous, present=present)
    result["diff"] = dict(before=dict(version=previous), after=dict(version=version))
    if module.check_mode or not result["changed"]:
        module.exit_json(**result)
    if not present:
        if not module.params["_source"]:
            module.exit_json(**dict(result, changed=False, needs_archive=True))
        home.install(version, module.params["_source"])
    home.activate(version)
    home.prune(module.params["keep"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
