# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a stack's compose file on the controller, where it is, and hands what it means to the module on the host."""

from __future__ import annotations

import os

import yaml
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.swarm.cluster.plugins.module_utils.compose import Reader, interpolate, merge
from ansible_collections.swarm.cluster.plugins.module_utils.compose_parts import ComposeError, mapping


class ActionModule(ActionBase):
    """Runs on the controller."""

    def run(self, tmp=None, task_vars=None):
        """Read the files, then call the module."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state", "present") == "present":
            arguments.update(self._read(arguments))
        return self._execute_module(module_args=arguments, task_vars=task_vars)

    def _read(self, arguments):
        files = arguments.get("file") or []
        environment = {key: str(value) for key, value in (arguments.get("env") or {}).items()}
        folder, document = os.getcwd(), {}
        try:
            for name in [files] if isinstance(files, str) else files:
                path = self._find_needle("files", name)
                document = merge(document, interpolate(mapping(self._load(path), name), environment, name))
                folder = os.path.dirname(path)
            if arguments.get("definition"):
                document = merge(document, interpolate(arguments["definition"], environment, "definition"))
            reader = Reader(str(arguments.get("name")), document, self._bytes, folder, environment)
            desired = reader.read()
        except (ComposeError, OSError, yaml.YAMLError) as error:
            raise AnsibleActionFail(f"stack {arguments.get('name')}: {error}") from None
        for warning in reader.warnings:
            self._display.warning(warning)
        return {"desired": desired, "contents": reader.contents}

    def _load(self, path):
        return yaml.safe_load(self._bytes(path))

    def _bytes(self, path):
        """A file's content; files in a vault are opened."""
        if not os.path.isfile(path):
            raise ComposeError(f"there is no file {path}")
        with open(self._loader.get_real_file(path), "rb") as file:
            return file.read()
