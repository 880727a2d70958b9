# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a cluster as an inventory. Several managers are asked, one after the other, until one answers."""

from __future__ import annotations

DOCUMENTATION = r"""
name: nodes
short_description: The nodes of a cluster, as its managers tell them
description:
  - Asks a manager for the cluster's nodes. The managers that are named are asked in order until one answers, so that an
    inventory comes also while some of them are down.
  - The file's name has to end in C(swarm.yml) or C(swarm.yaml).
  - Hosts are in the groups C(managers) and C(workers), and the leader also in C(leader). Nodes that are down are in the
    group C(down). Each host has the variable C(swarm_node) with its id, hostname, address, role, availability, state,
    labels and engine, and C(ansible_host), unless that is turned off.
version_added: 0.2.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: Says that the file is for this plugin.
    required: true
    choices: [swarm.cluster.nodes]
  managers:
    description:
      - Where to ask, in order. C(ssh://[USER@]HOST[:PORT]) runs the host's Python by ssh and asks its socket;
        C(unix:///PATH) is a socket on this machine.
    type: list
    elements: str
    required: true
  socket:
    description: Path of the agent's socket on hosts that are asked by ssh.
    type: str
    default: /run/swarm-agent/docker.sock
  ssh_args:
    description: Further arguments for ssh, such as V(-i KEY).
    type: str
    default: ""
  become:
    description: Ask with sudo on hosts where the user may not use the socket.
    type: bool
    default: false
  timeout:
    description: Seconds after which one manager is given up.
    type: int
    default: 10
  set_ansible_host:
    description: Whether C(ansible_host) is the address that the node has in the cluster.
    type: bool
    default: true
  include_down:
    description: Whether nodes that are down are in the inventory.
    type: bool
    default: true
"""

EXAMPLES = r"""
# mine.swarm.yml, then: ansible-inventory -i mine.swarm.yml --graph
plugin: swarm.cluster.nodes
managers:
  - ssh://root@192.0.2.11
  - ssh://root@192.0.2.12
  - ssh://root@192.0.2.13
keyed_groups:
  - key: swarm_node.labels.disk
    prefix: disk
compose:
  ansible_user: "'root'"
"""

import json
import subprocess

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible_collections.swarm.cluster.plugins.module_utils.asking import ASK, ssh_command
from ansible_collections.swarm.cluster.plugins.module_utils.client import Client, ClientError
from ansible_collections.swarm.cluster.plugins.module_utils.cluster import node_summary


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """What Ansible asks for."""

    NAME = "swarm.cluster.nodes"

    def verify_file(self, path):
        """Files whose names say so."""
        return super().verify_file(path) and path.endswith(("swarm.yml", "swarm.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        """Read the file, ask, fill the inventory."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        self.load_cache_plugin()
        key = self.get_cache_key(path)
        use = self.get_option("cache") and cache
        nodes = None
        if use:
            nodes = self._cache.get(key)
        if nodes is None:
            nodes = self._ask_managers()
            if self.get_option("cache"):
                self._cache[key] = nodes
        self._fill(nodes)

    def _ask_managers(self):
        failures = []
        for manager in self.get_option("managers"):
            try:
                return self._ask(manager)
            except (ClientError, OSError, ValueError, subprocess.TimeoutExpired) as error:
                failures.append(f"{manager}: {error}")
                self.display.vvv(f"swarm.cluster.nodes: {failures[-1]}")
        raise AnsibleParserError("no manager told the cluster's nodes. " + "; ".join(failures))

    def _ask(self, manager):
        timeout = self.get_option("timeout")
        if manager.startswith("unix://"):
            return Client(manager.removeprefix("unix://"), timeout).get("/nodes")
        if not manager.startswith("ssh://"):
            raise ValueError(f"{manager!r} is not ssh://[USER@]HOST[:PORT] or unix:///PATH")
        command = ssh_command(
            manager, self.get_option("socket"), self.get_option("ssh_args"), self.get_option("become"), timeout
        )
        done = subprocess.run(command, input=ASK, capture_output=True, text=True, timeout=2 * timeout, check=False)
        if done.returncode:
            raise ClientError((done.stderr.strip() or f"ssh ended with code {done.returncode}").splitlines()[-1])
        return json.loads(done.stdout)

    def _fill(self, nodes):
        summaries = [node_summary(node) for node in nodes]
        names = [summary["hostname"] for summary in summaries]
        for group in ("managers", "workers", "leader", "down"):
            self.inventory.add_group(group)
        strict = self.get_option("strict")
        for summary in sorted(summaries, key=lambda item: (item["hostname"], item["state"] == "down")):
            down = summary["state"] == "down"
            if down and not self.get_option("include_down"):
                continue
            # A host that was made anew leaves its old node behind, under the same hostname.
            twin = names.count(summary["hostname"]) > 1 and (down or not summary["hostname"])
            host = f"{summary['hostname']}-{summary['id']}" if twin or not summary["hostname"] else summary["hostname"]
            self.inventory.add_host(host, "managers" if summary["role"] == "manager" else "workers")
            for group, member in (("leader", summary["leader"]), ("down", down)):
                if member:
                    self.inventory.add_host(host, group)
            self.inventory.set_variable(host, "swarm_node", summary)
            if self.get_option("set_ansible_host") and summary["address"]:
                self.inventory.set_variable(host, "ansible_host", summary["address"])
            variables = self.inventory.get_host(host).get_vars()
            self._set_composite_vars(self.get_option("compose"), variables, host, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict=strict)
