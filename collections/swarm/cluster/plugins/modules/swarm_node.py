#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declares what a node of the cluster is: role, availability, labels; or that it is no more."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_node
short_description: Declare role, availability and labels of a node
description:
  - Changes a node's spec on a manager. What is left out stays as it is.
  - V(absent) removes a node's record; a manager is demoted first.
version_added: 0.1.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
  - swarm.cluster.connection
options:
  name:
    description:
      - Hostname or id of the node. Of several nodes with one hostname, the one that is not down is meant.
    type: str
    required: true
  state:
    description:
      - Whether the node shall be in the cluster.
      - A node joins by itself, with M(swarm.cluster.swarm_cluster); V(present) fails when it has not.
    type: str
    choices: [present, absent]
    default: present
  role:
    description:
      - Whether the node manages the cluster.
    type: str
    choices: [manager, worker]
  availability:
    description:
      - V(active) takes tasks, V(pause) keeps those it has, V(drain) gives them to other nodes.
    type: str
    choices: [active, pause, drain]
  labels:
    description:
      - Labels of the node. Values are text; put numbers and booleans in quotes.
    type: dict
  labels_state:
    description:
      - V(merge) adds O(labels) to those that the node has, V(replace) takes all others away.
    type: str
    choices: [merge, replace]
    default: merge
  labels_to_remove:
    description:
      - Names of labels to take away.
    type: list
    elements: str
  force:
    description:
      - With O(state=absent), remove the node although it is not down.
    type: bool
    default: false
  wait:
    description:
      - Whether to wait until a drained node has no running task, and until a new role is in effect.
    type: bool
    default: true
  wait_timeout:
    description:
      - Seconds to wait.
    type: int
    default: 120
seealso:
  - module: swarm.cluster.swarm_cluster
"""

EXAMPLES = r"""
- name: Take all tasks away from a node
  swarm.cluster.swarm_node:
    name: host2
    availability: drain

- name: Say where disks are fast
  swarm.cluster.swarm_node:
    name: host3
    labels:
      disk: ssd
"""

RETURN = r"""
node:
  description: The node as it is at the end, empty when it is absent.
  type: dict
  returned: always
  sample: {id: 8q2s1c4k0w8m3v7t5x9z2b4n6, hostname: host2, role: worker, availability: drain, state: ready, labels: {}}
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [set availability of host2 to drain]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.client import (
    CONNECTION_SPEC,
    ApiError,
    Client,
    ClientError,
    Unreachable,
)
from ansible_collections.swarm.cluster.plugins.module_utils.cluster import find_node, node_summary
from ansible_collections.swarm.cluster.plugins.module_utils.patch import Option, plan
from ansible_collections.swarm.cluster.plugins.module_utils.values import texts
from ansible_collections.swarm.cluster.plugins.module_utils.waiting import TimedOut, until

OPTIONS = (
    Option("role", "Role", default="worker"),
    Option("availability", "Availability", default="active"),
    Option("labels", "Labels", texts, {}),
)
RUNNING = ("assigned", "accepted", "preparing", "ready", "starting", "running")
ATTEMPTS = 10


def wanted_labels(params, current):
    """All labels that the node shall have, None when the user says nothing about them."""
    if params["labels"] is None and params["labels_to_remove"] is None:
        return None
    kept = {} if params["labels_state"] == "replace" else dict(current)
    kept.update(texts(params["labels"]))
    return {key: value for key, value in kept.items() if key not in (params["labels_to_remove"] or [])}


class NodeState:
    """One node on a manager, and how to change it."""

    def __init__(self, module):
        self.module = module
        self.params = module.params
        self.name = module.params["name"]
        self.client = Client(module.params["socket"], module.params["timeout"])
        self.actions = []
        self.before = {}
        self.after = {}

    def find(self):
        """The node's object, None when there is none. In check mode there may be no cluster yet."""
        try:
            return find_node(self.client.get("/nodes"), self.name)
        except Unreachable:
            if self.module.check_mode:
                return None
            raise
        except ApiError as error:
            if self.module.check_mode and error.status == 503:
                return None
            raise

    def present(self):
        """Change the spec until it says what is wanted, then wait until it is so."""
        for attempt in range(ATTEMPTS):
            node = self.find()
            if node is None and not self.module.check_mode:
                raise ClientError(f"no node has the hostname or id {self.name}; it has to join the cluster first")
            spec = node["Spec"] if node else {}
            params = dict(self.params, labels=wanted_labels(self.params, spec.get("Labels") or {}))
            change = plan(OPTIONS, params, spec)
            if change.changed and not self.module.check_mode:
                try:
                    self.client.post(f"/nodes/{node['ID']}/update", change.wanted, version=node["Version"]["Index"])
                except ApiError as error:
                    if error.conflict and attempt + 1 < ATTEMPTS:
                        continue
                    raise
            self.before, self.after = change.before, change.after
            self.actions = [f"set {key} of {self.name} to {value}" for key, value in change.after.items()]
            break
        if self.params["wait"] and not self.module.check_mode:
            self._wait_for_role()
            self._wait_for_drain()

    def absent(self):
        """Remove the node's record."""
        node = self.find()
        if node is None:
            return
        self.before, self.after = {"node": node_summary(node)}, {"node": None}
        if node["Spec"].get("Role") == "manager":
            self.actions.append(f"demoted {self.name}")
            if not self.module.check_mode:
                spec = dict(node["Spec"], Role="worker")
                self.client.post(f"/nodes/{node['ID']}/update", spec, version=node["Version"]["Index"])
                self._until(
                    lambda: (not (self.client.get(f"/nodes/{node['ID']}").get("ManagerStatus")), "a manager"), "demoted"
                )
        self.actions.append(f"removed {self.name}")
        if not self.module.check_mode:
            self.client.delete(f"/nodes/{node['ID']}", force=1 if self.params["force"] else None)

    def _wait_for_role(self):
        role = self.params["role"]
        if not role:
            return

        def ask():
            status = (self.find() or {}).get("ManagerStatus")
            return bool(status) == (role == "manager"), status or "no manager"

        self._until(ask, f"a {role}")

    def _wait_for_drain(self):
        if self.params["availability"] != "drain":
            return
        node = self.find()

        def ask():
            tasks = self.client.get("/tasks", filters={"node": {node["ID"]: True}})
            left = [task for task in tasks if task["Status"]["State"] in RUNNING]
            return not left, [
                f"{task['ID']} of service {task['ServiceID']}: {task['Status']['State']}" for task in left
            ]

        if (node.get("Status") or {}).get("State") != "down":
            self._until(ask, "drained")

    def _until(self, ask, wanted):
        try:
            until(ask, self.params["wait_timeout"])
        except TimedOut as error:
            raise ClientError(
                f"{self.name} is not {wanted} after {self.params['wait_timeout']} s; last seen: {error.last}"
            ) from None


def main():
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "role": {"type": "str", "choices": ["manager", "worker"]},
            "availability": {"type": "str", "choices": ["active", "pause", "drain"]},
            "labels": {"type": "dict"},
            "labels_state": {"type": "str", "choices": ["merge", "replace"], "default": "merge"},
            "labels_to_remove": {"type": "list", "elements": "str"},
            "force": {"type": "bool", "default": False},
            "wait": {"type": "bool", "default": True},
            "wait_timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    state = NodeState(module)
    try:
        getattr(state, module.params["state"])()
        node = state.find()
    except (ClientError, ValueError) as error:
        module.fail_json(msg=str(error), actions=state.actions)
    module.exit_json(
        changed=bool(state.actions),
        actions=state.actions,
        node=node_summary(node) if node else {},
        diff={"before": state.before, "after": state.after},
    )


if __name__ == "__main__":
    main()
