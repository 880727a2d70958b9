# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder that holds the agent's versions: one folder a version, `current` links to the one that runs."""

from __future__ import annotations

import configparser
import glob
import os
import shutil
import tarfile

COMMANDS = ("swarm-agent", "swarmctl")
MARKER = ".complete"
SCRIPT = """#!{python}
import sys
from {module} import {function}
sys.exit({function}())
"""


class Home:
    """The agent's versions on this host. `module` is the AnsibleModule that runs commands and fails."""

    def __init__(self, module, path, bin_path="/usr/local/bin"):
        self.module = module
        self.path = path
        self.link = os.path.join(path, "current")
        self.bin_path = bin_path

    def current(self):
        """Name of the version that `current` links to, "" when there is none."""
        try:
            return os.path.basename(os.readlink(self.link))
        except OSError:
            return ""

    def has(self, version):
        """True when the version is installed whole: its marker is written last."""
        return os.path.exists(os.path.join(self.path, version, MARKER))

    def install(self, version, archive):
        """Make the version's virtual environment from its archive, without any package index and without pip."""
        target = os.path.join(self.path, version)
        os.makedirs(self.path, mode=0o755, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        python = self.module.get_bin_path("python3", required=True)
        self.module.run_command([python, "-m", "venv", "--without-pip", target], check_rc=True)
        packages = glob.glob(os.path.join(target, "lib", "python*", "site-packages"))
        self._unpack(archive, packages[0])
        commands = self._entry_points(packages[0])
        if not commands:
            self.module.fail_json(msg=f"{archive} holds no agent; build it anew with agent/package.py")
        for name, (module, function) in commands.items():
            path = os.path.join(target, "bin", name)
            interpreter = os.path.join(target, "bin", "python")
            with open(path, "w") as script:
                script.write(SCRIPT.format(python=interpreter, module=module, function=function))
            os.chmod(path, 0o755)
        with open(os.path.join(target, MARKER), "w"):
            pass

    def _unpack(self, archive, folder):
        """Regular files out of the archive, below the folder and nowhere else."""
        with tarfile.open(archive) as tar:
            for member in tar:
                path = os.path.normpath(os.path.join(folder, member.name))
                if member.isfile() and path.startswith(folder + os.sep):
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with tar.extractfile(member) as source, open(path, "wb") as target:
                        shutil.copyfileobj(source, target)

    def _entry_points(self, packages):
        """The agent's commands, each with the module and function that it runs."""
        points = configparser.ConfigParser()
        points.read(glob.glob(os.path.join(packages, "swarm_agent-*.dist-info", "entry_points.txt")))
        found = points["console_scripts"] if points.has_section("console_scripts") else {}
        return {name: tuple(target.split(":")) for name, target in found.items()}

    def activate(self, version):
        """Let `current` and the commands point to the version, each in one step."""
        replace_link(version, self.link)
        for command, target in self._commands():
            replace_link(target, command)

    def activated(self, version):
        """True when all links point to the version."""
        links = [(self.link, version), *self._commands()]
        return all(os.path.islink(path) and os.readlink(path) == target for path, target in links)

    def prune(self, keep):
        """Remove versions that are neither in use nor among the newest `keep` others."""
        names = [name for name in os.listdir(self.path) if name.startswith("swarm-agent-") and name != self.current()]
        names.sort(key=lambda name: os.path.getmtime(os.path.join(self.path, name)), reverse=True)
        for name in names[keep:]:
            shutil.rmtree(os.path.join(self.path, name), ignore_errors=True)

    def commands(self):
        """Paths of the commands that this module links."""
        return [path for path, _target in self._commands()]

    def _commands(self):
        return [(os.path.join(self.bin_path, name), os.path.join(self.link, "bin", name)) for name in COMMANDS]


def replace_link(target, path):
    """Make `path` a link to `target` in one step."""
    if os.path.islink(path) and os.readlink(path) == target:
        return
    temporary = f"{path}.new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.replace(temporary, path)


def toml(settings):
    """The text of a flat settings file. Raises ValueError for values that it cannot hold."""
    lines = ["# Settings of the agent on this host. Written by the module swarm_agent."]
    for key, value in sorted(settings.items()):
        if isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, (int, float)):
            text = str(value)
        elif isinstance(value, str):
            escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            text = f'"{escaped}"'
        else:
            raise ValueError(f"setting {key}: {value!r} is neither text, number nor boolean")
        lines.append(f"{key} = {text}")
    return "\n".join(lines) + "\n"
