#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads tasks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_task_info
short_description: Read tasks of the cluster
description:
  - Returns tasks as the API tells them, with the names that people know them by in C(Summary).
  - O(name) chooses by id, by name such as V(web.1), or by the name of the service. O(labels) are those of the task.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes.info
  - swarm.cluster.connection
  - swarm.cluster.listing
options:
  service:
    description:
      - Only tasks of this service, by name or id.
    type: str
  node:
    description:
      - Only tasks on this node, by hostname or id.
    type: str
  desired_state:
    description:
      - Only tasks that shall be in this state.
    type: str
    choices: [running, shutdown, accepted]
seealso:
  - module: swarm.cluster.swarm_service_info
"""

EXAMPLES = r"""
- name: Read what does not run on host2, and why
  swarm.cluster.swarm_task_info:
    node: host2
  register: host2

- name: Show it
  ansible.builtin.debug:
    msg: "{{ host2.tasks | map(attribute='Summary') | rejectattr('state', 'eq', 'running') }}"
"""

RETURN = r"""
tasks:
  description: The tasks, sorted by name, newest first, each with C(Summary).
  type: list
  elements: dict
  returned: always
  sample:
    - ID: 7b9d1f3h5j7l9n1p3r5t7v9x1
      ServiceID: 5t7v9x1z3b5d7f9h2j4l6n8p0
      Summary: {name: web.1, service: web, node: host2, image: "nginx:1.27", state: running, desired: running}
"""

from ansible_collections.swarm.cluster.plugins.module_utils.cluster import task_summary
from ansible_collections.swarm.cluster.plugins.module_utils.reading import answer


def names(task):
    """What a task is called by."""
    return [task["ID"], task["Summary"]["name"], task["Summary"]["service"]]


def tasks(client, params):
    """Tasks that the filters leave, with a summary each, the newest of a place first."""
    filters = {key: {params[key]: True} for key in ("service", "node") if params[key]}
    if params["desired_state"]:
        filters["desired-state"] = {params["desired_state"]: True}
    services = {item["ID"]: item["Spec"]["Name"] for item in client.get("/services")}
    nodes = {item["ID"]: (item.get("Description") or {}).get("Hostname", "") for item in client.get("/nodes")}
    found = client.get("/tasks", filters=filters)
    found.sort(key=lambda task: task.get("CreatedAt", ""), reverse=True)
    return [{**task, "Summary": task_summary(task, services, nodes)} for task in found]


def main():
    extra = {
        "service": {"type": "str"},
        "node": {"type": "str"},
        "desired_state": {"type": "str", "choices": ["running", "shutdown", "accepted"]},
    }
    answer("tasks", tasks, names, extra, order=lambda task: task["Summary"]["name"])


if __name__ == "__main__":
    main()
