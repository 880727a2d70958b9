# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stack on a manager: what a compose file declares, planned and applied kind by kind. For swarm_stack.

Networks, secrets and configs come first, then services, since services refer to them by id. With `prune`, what bears
the stack's label and is not in the file any more goes last, services first. Nothing else of the cluster is touched.
"""

from __future__ import annotations

import base64
import time

from ansible_collections.swarm.cluster.plugins.module_utils import networks
from ansible_collections.swarm.cluster.plugins.module_utils.blobs import Blobs, Wanted, users_of
from ansible_collections.swarm.cluster.plugins.module_utils.client import ClientError
from ansible_collections.swarm.cluster.plugins.module_utils.compose import NAMESPACE
from ansible_collections.swarm.cluster.plugins.module_utils.declare import Declaration
from ansible_collections.swarm.cluster.plugins.module_utils.fields import defaults
from ansible_collections.swarm.cluster.plugins.module_utils.reading import labels_of
from ansible_collections.swarm.cluster.plugins.module_utils.service import Services, force, service_plan
from ansible_collections.swarm.cluster.plugins.module_utils.service_table import FIELDS

KINDS = ("secret", "config")


def full_params(service, given, names):
    """Parameters of swarm_service from a compose file's, with the names that secrets and configs really have.
    Raises ClientError."""
    params = dict(given)
    for kind in ("secrets", "configs"):
        params[kind] = [
            {**{key: value for key, value in entry.items() if key != "key"}, "name": names[kind][entry["key"]]}
            for entry in given.get(kind) or []
        ]
    try:
        return defaults(FIELDS, params)
    except ValueError as error:
        raise ClientError(f"service {service}: {error}") from None


class Stack(Declaration):
    """One stack on a manager."""

    def __init__(self, module):
        super().__init__(module)
        self.name = module.params["name"]
        self.services = Services(self.client, self.check)
        self.changed_services = []
        self.rolled_out = []

    def present(self):
        """Have all that the file declares, and wait until the services run."""
        desired = self.params["desired"]
        for entry in desired["networks"].values():
            self._network(entry)
        names = {f"{kind}s": self._blobs(f"{kind}s", desired[f"{kind}s"]) for kind in KINDS}
        for short, given in desired["services"].items():
            self.retry(lambda short=short, given=given: self._service(f"{self.name}_{short}", given, names))
        if self.params["prune"]:
            self._prune(desired, names)
        if self.params["wait"] and not self.check:
            deadline = time.monotonic() + self.params["wait_timeout"]
            for short in desired["services"]:
                name = f"{self.name}_{short}"
                left = max(deadline - time.monotonic(), 0)
                verdict = self.services.wait(name, name in self.changed_services, left)
                self.rolled_out.append({"name": name, "running": verdict.running, "desired": verdict.desired})

    def absent(self):
        """Have nothing of it left."""
        for service in self._mine("/services"):
            self._remove_service(service)
        self._remove_rest(lambda kind, item: True)

    def result(self):
        """How the services run."""
        return {"services": self.rolled_out}

    # --- parts ----------------------------------------------------------------------------------------------------

    def _mine(self, path):
        found = self.ask(path, [], filters={"label": {f"{NAMESPACE}={self.name}": True}})
        return [item for item in found if labels_of(item).get(NAMESPACE) == self.name]

    def _network(self, entry):
        if entry["external"]:
            if networks.find(self, entry["name"]) is None and not self.check:
                raise ClientError(
                    f"network {entry['name']} is declared as external, but the cluster has none of that name. "
                    f"Create it first (swarm_network)."
                )
            return
        params = {key: value for key, value in entry.items() if key not in ("name", "external")}
        networks.declare(self, entry["name"], {**dict.fromkeys(field.name for field in networks.FIELDS), **params})

    def _blobs(self, kind, entries):
        """The names that the objects really have, by their key in the file."""
        names, blobs = {}, Blobs(self, kind[:-1])
        for key, entry in entries.items():
            if entry["external"]:
                names[key] = entry["name"]
                continue
            data = base64.b64decode(self.params["contents"][f"{kind}/{key}"])
            template = "golang" if entry["template"] else ""
            wanted = Wanted(entry["name"], data, entry["labels"], self.params["versioned"], templating=template)
            names[key] = self.retry(lambda wanted=wanted: blobs.present(wanted))
        return names

    def _service(self, name, given, names):
        params = self.services.resolved(name, full_params(name, given, names))
        service = self.services.find(name)
        change = service_plan(name, params, service["Spec"] if service else None, whole=True)
        state = ((service or {}).get("UpdateStatus") or {}).get("State")
        if service is None:
            self.note(f"created service {name}", {}, {f"service {name}": change.after})
        elif change.changed:
            self.note(
                f"changed {', '.join(sorted(change.after))} of service {name}",
                {f"service {name}": change.before},
                {f"service {name}": change.after},
            )
        elif state in ("paused", "rollback_paused"):
            force(change)
            self.note(f"took up the paused update of service {name} again", {f"service {name}": state}, {})
        else:
            return
        self.changed_services.append(name)
        if not self.check:
            self.warnings += self.services.send(service, change.wanted)

    def _prune(self, desired, names):
        wanted = {f"{self.name}_{short}" for short in desired["services"]}
        for service in self._mine("/services"):
            if service["Spec"]["Name"] not in wanted:
                self._remove_service(service)
        kept = {
            "network": {entry["name"] for entry in desired["networks"].values()},
            **{kind: set(names[f"{kind}s"].values()) for kind in KINDS},
        }
        self._remove_rest(lambda kind, item: self._name(item) not in kept[kind], tolerant=True)

    def _name(self, item):
        return (item.get("Spec") or item)["Name"]

    def _remove_service(self, service):
        name = service["Spec"]["Name"]
        self.note(f"removed service {name}", {f"service {name}": "present"}, {f"service {name}": None})
        if not self.check:
            self.services.remove(service, self.params["wait"], self.params["wait_timeout"])

    def _remove_rest(self, condition, tolerant=False):
        """Remove secrets, configs and networks. With `tolerant` what services still use stays, with a warning."""
        services = self.ask("/services", [])
        for kind in (*KINDS, "network"):
            for item in self._mine(f"/{kind}s"):
                if not condition(kind, item):
                    continue
                users = (
                    networks.users_of(item["Id"], services)
                    if kind == "network"
                    else users_of(kind, item["ID"], services)
                )
                if users and tolerant:
                    self.warnings.append(f"{kind} {self._name(item)} stays: {', '.join(users)} uses it")
                    continue
                self._remove(kind, item)

    def _remove(self, kind, item):
        name = f"{kind} {self._name(item)}"
        self.note(f"removed {name}", {name: "present"}, {name: None})
        if self.check:
            return
        if kind == "network":
            networks.remove(self, item)
        else:
            self.client.delete(f"/{kind}s/{item['ID']}")
