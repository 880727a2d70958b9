#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declares a service: creates it, changes what differs, and tells honestly whether it came to run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_service
short_description: Declare a service of the cluster
description:
  - Creates a service or changes what differs from what is declared. Options that are left out stay as they are; lists
    and dicts that are given are taken as the whole.
  - Waits until the service is what was declared. An update that is paused or rolled back is a failure, and the message
    says what was seen last. Running it again after a paused update takes the update up again.
version_added: 0.1.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
  - swarm.cluster.connection
  - swarm.cluster.service
options:
  name:
    description:
      - Name of the service.
    type: str
    required: true
  state:
    description:
      - V(present) and V(absent) say whether the service shall be there.
      - V(scaled) changes nothing but O(replicas) of a service that is there.
      - V(restarted) replaces all its tasks, in the way that its update config says. This is a change each time.
      - V(rolled_back) goes back to the spec before the last update, and is done when all tasks run by it. A service
        whose last change was a finished rollback stays as it is.
    type: str
    choices: [present, absent, scaled, restarted, rolled_back]
    default: present
  force_update:
    description:
      - With O(state=present), replace all tasks although nothing changed. This is a change each time.
    type: bool
    default: false
  wait:
    description:
      - Whether to wait until the service is what was declared. A paused update and a rollback are failures then.
    type: bool
    default: true
  wait_timeout:
    description:
      - Seconds to wait.
    type: int
    default: 300
seealso:
  - module: swarm.cluster.swarm_service_info
  - module: swarm.cluster.swarm_stack
"""

EXAMPLES = r"""
- name: Run three web servers, reached on port 8080 of every host
  swarm.cluster.swarm_service:
    name: web
    image: nginx:1.27
    replicas: 3
    publish:
      - published_port: 8080
        target_port: 80
    update_config:
      parallelism: 1
      order: start-first
      failure_action: rollback

- name: Change only its image
  swarm.cluster.swarm_service:
    name: web
    image: nginx:1.28

- name: Let five run
  swarm.cluster.swarm_service:
    name: web
    state: scaled
    replicas: 5

- name: Go back to what it was before the last update
  swarm.cluster.swarm_service:
    name: web
    state: rolled_back

- name: Remove it
  swarm.cluster.swarm_service:
    name: web
    state: absent
"""

RETURN = r"""
service:
  description: The service as the API returns it, empty when it is absent.
  type: dict
  returned: always
  sample: {ID: 5t7v9x1z3b5d7f9h2j4l6n8p0, Spec: {Name: web}}
running:
  description: How many tasks run (of a job, how many completed).
  type: int
  returned: when it waited
  sample: 3
desired:
  description: How many should.
  type: int
  returned: when it waited
  sample: 3
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [changed image of web]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.client import CONNECTION_SPEC, ClientError
from ansible_collections.swarm.cluster.plugins.module_utils.declare import Declaration, carry_out
from ansible_collections.swarm.cluster.plugins.module_utils.fields import argument_spec
from ansible_collections.swarm.cluster.plugins.module_utils.patch import differences, read
from ansible_collections.swarm.cluster.plugins.module_utils.service import Services, force, service_plan
from ansible_collections.swarm.cluster.plugins.module_utils.service_table import FIELDS, OPTIONS

STATES = ("present", "absent", "scaled", "restarted", "rolled_back")
PAUSED = ("paused", "rollback_paused")


class Service(Declaration):
    """One service on a manager; a method for each state."""

    def __init__(self, module):
        super().__init__(module)
        self.name = module.params["name"]
        self.services = Services(self.client, self.check)
        self.verdict = None

    def present(self):
        """Create the service or change what differs, then wait."""
        self.retry(self._declare)
        self._wait()

    def scaled(self):
        """Change the number of tasks and nothing else."""
        self.retry(lambda: self._declare_only({"replicas": self.params["replicas"]}))
        self._wait()

    def restarted(self):
        """Replace all tasks."""
        self.retry(lambda: self._declare_only({}, forced=True))
        self._wait()

    def rolled_back(self):
        """Take the last update back."""
        service = self._existing()
        if service is None:
            return
        state = read(service, "UpdateStatus.State") or ""
        # A second rollback would bring back what the first one took away.
        if state.startswith("rollback"):
            if self.params["wait"] and not self.check:
                self.verdict = self.services.wait(self.name, False, self.params["wait_timeout"], rolled_back=True)
            return
        if not service.get("PreviousSpec"):
            raise ClientError(f"service {self.name} has no spec to go back to: it was not updated since it was created")
        before, after = differences(OPTIONS, service["Spec"], service["PreviousSpec"])
        self.note(f"rolled {self.name} back", before, after)
        if self.check:
            return
        version = service["Version"]["Index"]
        self.client.post(f"/services/{service['ID']}/update", service["Spec"], version=version, rollback="previous")
        if self.params["wait"]:
            self.verdict = self.services.wait(self.name, True, self.params["wait_timeout"], rolled_back=True)

    def absent(self):
        """Remove the service, and wait until its tasks are gone."""
        service = self.services.find(self.name)
        if service is None:
            return
        self.note(f"removed {self.name}", {"service": self.name}, {"service": None})
        if not self.check:
            self.services.remove(service, self.params["wait"], self.params["wait_timeout"])

    def result(self):
        """The service as it is now."""
        found = {"service": self.services.find(self.name) or {}}
        if self.verdict:
            found.update(running=self.verdict.running, desired=self.verdict.desired)
        return found

    def _existing(self):
        service = self.services.find(self.name)
        if service is None and not self.check:
            raise ClientError(f"there is no service {self.name}; state: present creates it")
        return service

    def _declare_only(self, params, forced=False):
        service = self._existing()
        if service is None:
            self.note(f"{self.params['state']} {self.name}")
            return
        self._declare({**dict.fromkeys(self.params), **params}, forced, service)

    def _declare(self, params=None, forced=False, service=None):
        """One attempt: read, plan, apply."""
        service = service or self.services.find(self.name)
        params = self.params if params is None else params
        current = service["Spec"] if service else None
        change = service_plan(self.name, self.services.resolved(self.name, params), current)
        if service and (forced or params.get("force_update")):
            force(change)
        state = read(service or {}, "UpdateStatus.State") or ""
        if service is None:
            self.note(f"created {self.name}", change.before, change.after)
        elif change.changed:
            self.note(f"changed {', '.join(sorted(change.after))} of {self.name}", change.before, change.after)
        elif state in PAUSED:
            self.note(f"took up the paused update of {self.name} again", {"update": state}, {"update": "updating"})
        if self.actions and not self.check:
            self.warnings += self.services.send(service, change.wanted)

    def _wait(self):
        if self.params["wait"] and not self.check:
            self.verdict = self.services.wait(self.name, bool(self.actions), self.params["wait_timeout"])


def main():
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            **argument_spec(FIELDS),
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": list(STATES), "default": "present"},
            "force_update": {"type": "bool", "default": False},
            "wait": {"type": "bool", "default": True},
            "wait_timeout": {"type": "int", "default": 300},
        },
        required_if=[("state", "scaled", ("replicas",))],
        supports_check_mode=True,
    )
    service = Service(module)
    carry_out(module, service, getattr(service, module.params["state"]))


if __name__ == "__main__":
    main()
