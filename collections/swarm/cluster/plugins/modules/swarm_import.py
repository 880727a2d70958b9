#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings into a cluster what another one holds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_import
short_description: Take over what another cluster holds
description:
  - Creates the networks, configs and services that M(swarm.cluster.swarm_export_info) read, and the secrets whose
    values are given. Run it in check mode first; what it returns then is the plan.
  - What is there already and means the same stays. What is there and differs is left alone and named in RV(conflicts).
  - A service that needs a secret whose value nobody gave is not created; RV(skipped) says why.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
  - swarm.cluster.connection
options:
  export:
    description:
      - What to take over, as C(export) of M(swarm.cluster.swarm_export_info).
    type: dict
    required: true
  secrets:
    description:
      - Values of secrets by name, for those that are to be created.
    type: dict
    default: {}
  services:
    description:
      - Names of the services to take. Left out, all are taken; an empty list takes none.
    type: list
    elements: str
  keep_subnets:
    description:
      - Whether networks keep their subnets. They should while containers know addresses; they cannot when the cluster
        uses these addresses otherwise.
    type: bool
    default: false
  replicas:
    description:
      - How many tasks replicated services start with. Left out, as many as they had. V(0) brings them over without
        starting them.
    type: int
seealso:
  - module: swarm.cluster.swarm_export_info
"""

EXAMPLES = r"""
- name: Say what would be taken over
  swarm.cluster.swarm_import:
    export: "{{ old.export }}"
  check_mode: true
  register: plan

- name: Take it over
  swarm.cluster.swarm_import:
    export: "{{ old.export }}"
    secrets:
      db_password: "{{ vault_db_password }}"
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [created network back, created service web]
skipped:
  description: Services that were not created, and what they lack.
  type: list
  elements: str
  returned: always
  sample: ["service db lacks secret db_password: give its value in secrets"]
conflicts:
  description: What is there already and differs, and was left as it is.
  type: list
  elements: str
  returned: always
  sample: ["service web is there and differs"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.adoption import chosen, localized, same_service
from ansible_collections.swarm.cluster.plugins.module_utils.blobs import Blobs, Wanted
from ansible_collections.swarm.cluster.plugins.module_utils.client import CONNECTION_SPEC
from ansible_collections.swarm.cluster.plugins.module_utils.declare import Declaration, carry_out


class Import(Declaration):
    """Another cluster's objects on this manager."""

    def __init__(self, module):
        super().__init__(module)
        self.export = module.params["export"]
        self.skipped = []
        self.conflicts = []

    def work(self):
        """Networks, configs and secrets first, then the services that refer to them."""
        services, unknown = chosen(self.export.get("services") or [], self.params["services"])
        self.skipped += [f"there is no service {name} in what was exported" for name in unknown]
        for network in self.export.get("networks") or []:
            self._network(network)
        for config in self.export.get("configs") or []:
            self._config(config)
        for secret in self.export.get("secrets") or []:
            self._secret(secret)
        ids = self._ids()
        for spec in services:
            self._service(spec, ids)

    def result(self):
        """What was left out."""
        return {"skipped": self.skipped, "conflicts": self.conflicts}

    def _network(self, wanted):
        found = next((item for item in self.ask("/networks", []) if item["Name"] == wanted["Name"]), None)
        if found:
            if found.get("Driver") != wanted["Driver"] or found.get("Scope") != "swarm":
                self.conflicts.append(f"network {wanted['Name']} is there and differs")
            return
        if wanted["Driver"] != "overlay":
            self.conflicts.append(f"network {wanted['Name']} has the driver {wanted['Driver']}; only overlays go over")
            return
        body = {key: value for key, value in wanted.items() if key != "Subnets"}
        body.update(Scope="swarm", CheckDuplicate=True)
        if self.params["keep_subnets"]:
            body["IPAM"] = {"Driver": "default", "Config": [{"Subnet": subnet} for subnet in wanted["Subnets"]]}
        self.note(f"created network {wanted['Name']}", {}, {f"network {wanted['Name']}": "new"})
        if not self.check:
            self.client.post("/networks/create", body)

    def _config(self, wanted):
        found = self.named("/configs", wanted["Name"])
        if found:
            if found["Spec"].get("Data", "") != wanted["Data"]:
                self.conflicts.append(f"config {wanted['Name']} is there and holds something else")
            return
        self.note(f"created config {wanted['Name']}", {}, {f"config {wanted['Name']}": "new"})
        if not self.check:
            self.client.post("/configs/create", wanted)

    def _secret(self, wanted):
        value = self.params["secrets"].get(wanted["Name"])
        if value is None or self.named("/secrets", wanted["Name"]):
            return
        Blobs(self, "secret").present(Wanted(wanted["Name"], str(value).encode(), wanted["Labels"]))

    def _ids(self):
        """Ids by name, of what is there; in check mode also of what would be."""
        found = {
            "network": {item["Name"]: item["Id"] for item in self.ask("/networks", []) if item.get("Scope") == "swarm"},
            "secret": {item["Spec"]["Name"]: item["ID"] for item in self.ask("/secrets", [])},
            "config": {item["Spec"]["Name"]: item["ID"] for item in self.ask("/configs", [])},
        }
        if self.check:
            for action in self.actions:
                _created, kind, name = action.split(" ", 2)
                found[kind].setdefault(name, name)
        return found

    def _service(self, wanted, ids):
        name = wanted["Name"]
        spec, missing = localized(wanted, ids)
        if missing:
            hint = ": give its value in secrets" if any(item.startswith("secret") for item in missing) else ""
            self.skipped.append(f"service {name} lacks {', '.join(missing)}{hint}")
            return
        found = self.named("/services", name)
        if found:
            if not same_service(found["Spec"], spec):
                self.conflicts.append(f"service {name} is there and differs")
            return
        replicated = (spec.get("Mode") or {}).get("Replicated")
        if replicated is not None and self.params["replicas"] is not None:
            replicated["Replicas"] = self.params["replicas"]
        self.note(
            f"created service {name}", {}, {f"service {name}": spec["TaskTemplate"]["ContainerSpec"].get("Image", "")}
        )
        if not self.check:
            answer = self.client.post("/services/create", spec)
            self.warnings += (answer or {}).get("Warnings") or []


def main():
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            "export": {"type": "dict", "required": True},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "services": {"type": "list", "elements": "str"},
            "keep_subnets": {"type": "bool", "default": False},
            "replicas": {"type": "int"},
        },
        supports_check_mode=True,
    )
    declaration = Import(module)
    carry_out(module, declaration, declaration.work)


if __name__ == "__main__":
    main()
