# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the agent's archive to hosts that lack the version, and to no others: one call asks, the next installs."""

from __future__ import annotations

import os

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Runs on the controller, since the archive is there."""

    TRANSFERS_FILES = True

    def run(self, tmp=None, task_vars=None):
        """Ask the module; when it needs the archive, copy it and call again."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        asked = self._execute_module(module_args=arguments, task_vars=task_vars)
        if asked.get("failed") or not asked.pop("needs_archive", False):
            return asked
        self._make_tmp_path()
        try:
            folder = self._connection._shell.tmpdir
            copy = self._connection._shell.join_path(folder, "agent.tar.gz")
            # A relative path is meant as it was typed, from where one stands; Ansible would look in the role.
            archive = os.path.abspath(os.path.expanduser(arguments["archive"]))
            self._transfer_file(self._loader.get_real_file(archive), copy)
            self._fixup_perms2((folder, copy))
            return self._execute_module(module_args={**arguments, "remote_archive": copy}, task_vars=task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
