# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A version of packages, by apt or dnf: what is there, what could be, and the commands between the two.

People name a version of the engine, "27.5" or "27.5.1"; packages have longer ones, "5:27.5.1-1~debian.12~bookworm" or
"20.10.24+dfsg1-1+deb12u1+b2". The newest package whose own version is the one that is named, or begins with it, is
meant.
"""

from __future__ import annotations

import re

# The packages whose version is the engine's, where nothing else is said.
ENGINE_PACKAGES = {"apt": ["docker.io"], "dnf": ["docker-ce", "docker-ce-cli"]}
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}


def upstream(version):
    """The program's own version in that of its package."""
    return re.split(r"[+~-]", version.partition(":")[2] or version, maxsplit=1)[0]


def matches(version, wanted):
    """Whether a package's version is the one that is named."""
    return bool(version) and (version == wanted or f"{upstream(version)}.".startswith(f"{wanted}."))


def madison(output):
    """Versions in what apt-cache madison says, newest first."""
    return [line.split("|")[1].strip() for line in output.splitlines() if line.count("|") == 2]


def dnf_versions(output, name):
    """Versions in what dnf list --showduplicates says, newest first."""
    found = [line.split() for line in output.splitlines()]
    return [words[1] for words in reversed(found) if len(words) == 3 and words[0].partition(".")[0] == name]


def choose(available, wanted):
    """The newest of the versions that is the one that is named, "" when there is none."""
    return next((version for version in available if matches(version, wanted)), "")


class Packages:
    """The host's packages. `module` is the AnsibleModule that runs commands."""

    def __init__(self, module):
        self.module = module
        self.manager = next((name for name in ("apt", "dnf") if module.get_bin_path(self._program(name))), "")

    def installed(self, name):
        """The version that is installed, "" when it is not."""
        if self.manager == "apt":
            code, output, _errors = self._run(["dpkg-query", "-W", "-f", "${Status}|${Version}", name])
            status, _bar, version = output.strip().partition("|")
            return version if code == 0 and status.endswith(" installed") else ""
        code, output, _errors = self._run(
            ["rpm", "-q", "--qf", "%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\\n", name]
        )
        return output.strip().splitlines()[-1] if code == 0 else ""

    def available(self, name):
        """The versions that could be installed, newest first."""
        if self.manager == "apt":
            return madison(self._run(["apt-cache", "madison", name])[1])
        return dnf_versions(self._run(["dnf", "--quiet", "list", "--showduplicates", name])[1], name)

    def refresh(self):
        """Learn anew what could be installed. A mirror that does not answer is told by what is missing then."""
        self._run(["apt-get", "update"] if self.manager == "apt" else ["dnf", "--quiet", "makecache"])

    def install(self, versions):
        """Have these versions, given by name, also when they are older. The module fails with the program's words."""
        if self.manager == "apt":
            command = ["apt-get", "install", "--yes", "--no-install-recommends", "--allow-downgrades"]
            command += ["--allow-change-held-packages", "--option", "Dpkg::Options::=--force-confold"]
            command += [f"{name}={version}" for name, version in versions.items()]
        else:
            command = ["dnf", "--assumeyes", "--setopt=install_weak_deps=False", "install"]
            command += [f"{name}-{version}" for name, version in versions.items()]
        code, output, errors = self._run(command)
        if code:
            said = "\n".join((errors or output).strip().splitlines()[-8:])
            self.module.fail_json(msg=f"{' '.join(command)} failed with code {code}:\n{said}")

    def _run(self, command):
        return self.module.run_command(command, environ_update=_ENVIRONMENT)

    @staticmethod
    def _program(name):
        return {"apt": "apt-get"}.get(name, name)
