#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declares what a node of the cluster is: role, availability, labels; or that it is no more."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_node
short_description: Declare a node of the cluster - there or not, role, availability, labels
description:
  - V(present) and V(absent) work on a manager, on any node. What is left out stays as it is.
  - V(joined) and V(left) work on the host itself.
  - A manager that stops being one is demoted first. That is refused when the managers that are left could decide
    nothing.
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
      - Needed with O(state=present) and O(state=absent); the others mean the host that the module runs on.
    type: str
  state:
    description:
      - V(present) says what a node that has joined shall be; it fails when there is none.
      - V(absent) removes the node's record. A host that is up should have left before, see O(force).
      - V(joined) brings this host into the cluster in the O(role) that is given, V(left) takes it out.
    type: str
    choices: [present, absent, joined, left]
    default: present
  role:
    description:
      - Whether the node manages the cluster. With O(state=joined) it says which of the O(tokens) to join by.
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
  tokens:
    description:
      - With O(state=joined), what M(swarm.cluster.swarm_join_token_info) returned on a manager - C(worker), C(manager)
        and C(remote_addrs).
    type: dict
  remote_addrs:
    description:
      - With O(state=joined), managers to join, V(HOST:PORT) each, instead of those in O(tokens).
    type: list
    elements: str
  advertise_addr:
    description:
      - With O(state=joined), address or interface by which other nodes reach this one.
    type: str
  listen_addr:
    description:
      - With O(state=joined), address and port that the host listens on as a manager.
    type: str
    default: 0.0.0.0:2377
  data_path_addr:
    description:
      - With O(state=joined), address or interface for the traffic between containers, when it is another one.
    type: str
  cluster_id:
    description:
      - When the host manages a cluster with another id, the module fails instead of changing anything.
    type: str
  force:
    description:
      - With O(state=absent), remove the node although it is not down; with O(state=left), leave also as the last
        manager, which ends the cluster.
    type: bool
    default: false
  wait:
    description:
      - Whether to wait until a drained node has no running task, and until a new role is in effect.
    type: bool
    default: true
  wait_timeout:
    description:
      - Seconds to wait. A failure lists what is still there.
    type: int
    default: 120
seealso:
  - module: swarm.cluster.swarm_cluster
  - module: swarm.cluster.swarm_node_info
  - module: swarm.cluster.swarm_join_token_info
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

- name: Learn how to join
  swarm.cluster.swarm_join_token_info:
  delegate_to: host1
  no_log: true
  register: tokens

- name: Join as a worker
  swarm.cluster.swarm_node:
    state: joined
    role: worker
    tokens: "{{ tokens }}"

- name: Take this host out of the cluster
  swarm.cluster.swarm_node:
    state: left

- name: Forget a host that is gone for good
  swarm.cluster.swarm_node:
    name: host3
    state: absent
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
from ansible_collections.swarm.cluster.plugins.module_utils.client import CONNECTION_SPEC, ClientError
from ansible_collections.swarm.cluster.plugins.module_utils.cluster import find_node, node_summary
from ansible_collections.swarm.cluster.plugins.module_utils.declare import carry_out
from ansible_collections.swarm.cluster.plugins.module_utils.patch import Option, plan
from ansible_collections.swarm.cluster.plugins.module_utils.place import PLACE_SPEC, Place, removal_problem
from ansible_collections.swarm.cluster.plugins.module_utils.values import texts

OPTIONS = (
    Option("role", "Role", default="worker"),
    Option("availability", "Availability", default="active"),
    Option("labels", "Labels", texts, {}),
)
RUNNING = ("assigned", "accepted", "preparing", "ready", "starting", "running")


def wanted_labels(params, current):
    """All labels that the node shall have, None when the user says nothing about them."""
    if params["labels"] is None and params["labels_to_remove"] is None:
        return None
    kept = {} if params["labels_state"] == "replace" else dict(current)
    kept.update(texts(params["labels"]))
    return {key: value for key, value in kept.items() if key not in (params["labels_to_remove"] or [])}


def left_running(tasks, services):
    """What still runs, a line each, for the failure of a drain."""
    left = [task for task in tasks if task["Status"]["State"] in RUNNING]
    return [
        f"{services.get(task.get('ServiceID'), task.get('ServiceID') or 'container')}.{task.get('Slot', task['ID'])} "
        f"{task['Status']['State']}"
        for task in left
    ]


class NodeState(Place):
    """One node, and how to change it; a method for each state."""

    def __init__(self, module):
        super().__init__(module)
        self.name = module.params["name"]

    def find(self):
        """The node's object, None when there is none."""
        return find_node(self.ask("/nodes", []), self.name)

    def present(self):
        """Change the spec until it says what is wanted, then wait until it is so."""
        self.guard_cluster(self.params["cluster_id"])
        self.retry(self._declare)
        if self.params["wait"] and not self.check:
            self._wait_for_role(self.params["role"])
            self._wait_for_drain()

    def absent(self):
        """Remove the node's record."""
        self.guard_cluster(self.params["cluster_id"])
        node = self.find()
        if node is None:
            return
        if node["Spec"].get("Role") == "manager":
            self.retry(lambda: self._demote(self.find()))
        self.note(f"removed {self.name}", {"node": node_summary(node)}, {"node": None})
        if not self.check:
            self.client.delete(f"/nodes/{node['ID']}", force=1 if self.params["force"] else None)

    def joined(self):
        """Bring this host into the cluster."""
        tokens = self.params["tokens"] or {}
        if self.params["remote_addrs"] is None:
            self.params["remote_addrs"] = tokens.get("remote_addrs")
        self.join(tokens.get(self.params["role"] or "worker"))

    def left(self):
        """Take this host out of the cluster; a manager hands its office over before."""
        swarm = self.swarm()
        if swarm.get("ControlAvailable"):
            self.check_cluster(swarm)
            self.name = swarm["NodeID"]
            if not (self.params["force"] and len(self._managers()) == 1):
                self.retry(lambda: self._demote(self.find()))
        if not self.check and self.actions:
            self.wait_until(lambda: (not self.swarm().get("ControlAvailable"), "a manager"), "this host is not demoted")
        self.leave(self.params["force"])

    def result(self):
        """The node at the end; of a host that is no manager only what it knows itself."""
        if self.params["state"] in ("present", "absent"):
            node = self.find()
            return {"node": node_summary(node) if node else {}}
        swarm = self.swarm()
        known = {"id": swarm.get("NodeID") or "", "address": swarm.get("NodeAddr") or "", "state": self.state(swarm)}
        return {"node": known if known["id"] else {}}

    def _managers(self):
        return [node for node in self.client.get("/nodes") if node["Spec"].get("Role") == "manager"]

    def _declare(self):
        node = self.find()
        if node is None and not self.check:
            raise ClientError(f"no node has the hostname or id {self.name}; it has to join the cluster first")
        spec = node["Spec"] if node else {}
        params = dict(self.params, labels=wanted_labels(self.params, spec.get("Labels") or {}))
        change = plan(OPTIONS, params, spec)
        if node and change.after.get("role") == "worker":
            self._guard(node)
        for key, value in change.after.items():
            self.note(f"set {key} of {self.name} to {value}", {key: change.before[key]}, {key: value})
        if change.changed and not self.check:
            self.client.post(f"/nodes/{node['ID']}/update", change.wanted, version=node["Version"]["Index"])

    def _guard(self, node):
        problem = removal_problem(self.client.get("/nodes"), node["ID"])
        if problem and not self.params["force"]:
            raise ClientError(f"{self.name} stays a manager: {problem}")

    def _demote(self, node):
        if node["Spec"].get("Role") != "manager":
            return
        self._guard(node)
        self.note(f"demoted {node_summary(node)['hostname'] or self.name}", {"role": "manager"}, {"role": "worker"})
        if self.check:
            return
        spec = dict(node["Spec"], Role="worker")
        self.client.post(f"/nodes/{node['ID']}/update", spec, version=node["Version"]["Index"])
        if self.params["state"] == "absent":
            self._wait_for_role("worker")

    def _wait_for_role(self, role):
        if not role:
            return

        def ask():
            status = (self.find() or {}).get("ManagerStatus")
            return bool(status) == (role == "manager"), f"manager, {status['Reachability']}" if status else "no manager"

        self.wait_until(ask, f"{self.name} is not a {role}")

    def _wait_for_drain(self):
        if self.params["availability"] != "drain":
            return
        node = self.find()

        def ask():
            tasks = self.client.get("/tasks", filters={"node": {node["ID"]: True}})
            services = {item["ID"]: item["Spec"]["Name"] for item in self.client.get("/services")}
            left = left_running(tasks, services)
            return not left, left

        if (node.get("Status") or {}).get("State") != "down":
            self.wait_until(ask, f"{self.name} is not drained")


def main():
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            **PLACE_SPEC,
            "name": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent", "joined", "left"], "default": "present"},
            "role": {"type": "str", "choices": ["manager", "worker"]},
            "availability": {"type": "str", "choices": ["active", "pause", "drain"]},
            "labels": {"type": "dict"},
            "labels_state": {"type": "str", "choices": ["merge", "replace"], "default": "merge"},
            "labels_to_remove": {"type": "list", "elements": "str"},
            "tokens": {"type": "dict", "no_log": True},
            "force": {"type": "bool", "default": False},
            "wait": {"type": "bool", "default": True},
            "wait_timeout": {"type": "int", "default": 120},
        },
        required_if=[("state", "present", ("name",)), ("state", "absent", ("name",)), ("state", "joined", ("tokens",))],
        supports_check_mode=True,
    )
    state = NodeState(module)
    carry_out(module, state, getattr(state, module.params["state"]))


if __name__ == "__main__":
    main()
