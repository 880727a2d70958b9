# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A unit of systemd: its state and verbs, with systemctl."""

from __future__ import annotations


class Unit:
    """One unit. `module` is the AnsibleModule that runs commands."""

    def __init__(self, module, name):
        self.module = module
        self.name = name

    def state(self):
        """Whether the unit exists, runs, and comes back after a reboot."""
        command = ["systemctl", "show", self.name, "--property=LoadState,ActiveState,UnitFileState"]
        code, output, _errors = self.module.run_command(command)
        values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line) if code == 0 else {}
        return {
            "exists": values.get("LoadState") == "loaded",
            "active": values.get("ActiveState") == "active",
            "enabled": values.get("UnitFileState") in ("enabled", "alias", "static", "indirect"),
        }

    def do(self, verb):
        """systemctl VERB UNIT; on failure the module fails with the unit's last log lines."""
        code, output, errors = self.module.run_command(["systemctl", verb, self.name])
        if code:
            _code, log, _errors = self.module.run_command(
                ["journalctl", "--unit", self.name, "--lines=15", "--no-pager", "--output=cat"]
            )
            self.module.fail_json(
                msg=f"systemctl {verb} {self.name} failed: {(errors or output).strip()}\nIts log:\n{log.strip()}",
                log=log.splitlines(),
            )

    def reload_units(self):
        """Let systemd read changed unit files."""
        self.module.run_command(["systemctl", "daemon-reload"], check_rc=True)
