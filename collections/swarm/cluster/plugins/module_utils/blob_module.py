# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All of swarm_secret and swarm_config but their documentation: they differ in the kind, and in what may be shown."""

from __future__ import annotations

import base64

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.blobs import Blobs, Wanted
from ansible_collections.swarm.cluster.plugins.module_utils.client import CONNECTION_SPEC
from ansible_collections.swarm.cluster.plugins.module_utils.declare import Declaration, carry_out

BLOB_SPEC = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "labels": {"type": "dict"},
    "versioned": {"type": "bool", "default": False},
    "versions_to_keep": {"type": "int", "default": 3},
    "template": {"type": "bool", "default": False},
}


class Blob(Declaration):
    """One secret or config on a manager."""

    def __init__(self, module, kind):
        super().__init__(module)
        self.kind = kind
        self.name = ""

    def work(self):
        """Bring it to its state."""
        self.name = declare(self, self.kind)

    def result(self):
        """Which object holds the content."""
        found = self.named(f"/{self.kind}s", self.name) if self.name else None
        return {f"{self.kind}_name": self.name, f"{self.kind}_id": found["ID"] if found else ""}


def run(kind, extra_spec=None):
    """The whole of a module. The content of a secret is never shown."""
    shown = {"type": "str"} if kind == "config" else {"type": "str", "no_log": True}
    module = AnsibleModule(
        argument_spec={**CONNECTION_SPEC, **BLOB_SPEC, "data": shown, "data_base64": shown, **(extra_spec or {})},
        required_if=[("state", "present", ("data", "data_base64"), True)],
        mutually_exclusive=[("data", "data_base64")],
        supports_check_mode=True,
    )
    declaration = Blob(module, kind)
    carry_out(module, declaration, declaration.work)


def content(params, name):
    """The declared content as bytes. Raises ValueError."""
    if params["data"] is not None:
        return params["data"].encode()
    try:
        return base64.b64decode(params["data_base64"], validate=True)
    except ValueError:
        raise ValueError(f"data_base64 of {name} is not base64") from None


def declare(declaration, kind):
    """What swarm_secret and swarm_config do. Returns the name of the object that holds the content, "" when absent."""
    params = declaration.params
    blobs = Blobs(declaration, kind)
    if params["state"] == "absent":
        blobs.absent(params["name"], params["versioned"])
        return ""
    wanted = Wanted(
        params["name"], content(params, params["name"]), params["labels"], params["versioned"],
        params.get("force", False),
        "golang" if params["template"] else "",
    )  # fmt: skip
    name = declaration.retry(lambda: blobs.present(wanted))
    if params["versioned"]:
        blobs.prune(params["name"], params["versions_to_keep"])
    return name
