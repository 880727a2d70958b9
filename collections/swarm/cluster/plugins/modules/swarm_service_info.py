#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads services."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_service_info
short_description: Read services of the cluster
description:
  - Returns services as the API tells them, with the numbers of their tasks and, in C(Summary), the same in few words.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes.info
  - swarm.cluster.connection
  - swarm.cluster.listing
seealso:
  - module: swarm.cluster.swarm_service
  - module: swarm.cluster.swarm_task_info
"""

EXAMPLES = r"""
- name: Read all services of the stack shop
  swarm.cluster.swarm_service_info:
    labels:
      com.docker.stack.namespace: shop
  register: shop

- name: Show those that do not run as they should
  ansible.builtin.debug:
    msg: "{{ shop.services | map(attribute='Summary') | rejectattr('running', 'eq', 'desired') }}"
  # Numbers differ while a service is being updated, too.
"""

RETURN = r"""
services:
  description: The services, sorted by name, each with C(ServiceStatus) and C(Summary).
  type: list
  elements: dict
  returned: always
  sample:
    - ID: 5t7v9x1z3b5d7f9h2j4l6n8p0
      Spec: {Name: web}
      Summary: {name: web, mode: replicated, running: 3, desired: 3, image: "nginx:1.27", ports: ["8080->80/tcp"]}
"""

from ansible_collections.swarm.cluster.plugins.module_utils.cluster import service_summary
from ansible_collections.swarm.cluster.plugins.module_utils.reading import answer


def services(client, _params):
    """Services with their numbers of tasks."""
    return [{**item, "Summary": service_summary(item)} for item in client.get("/services", status=True)]


def main():
    answer("services", services, order=lambda item: item["Spec"]["Name"])


if __name__ == "__main__":
    main()
