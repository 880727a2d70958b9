#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Founds, joins and leaves a cluster, and declares its settings."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_cluster
short_description: Found, join or leave a cluster, and declare its settings
description:
  - V(present) founds a cluster on a host that is in none, and keeps the cluster's settings when the host manages one.
  - V(joined) brings a host into a cluster by a token; V(left) takes it out.
  - Settings that are left out stay as they are.
version_added: 0.1.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
  - swarm.cluster.connection
options:
  state:
    description:
      - What the host shall be.
    type: str
    choices: [present, joined, left]
    default: present
  advertise_addr:
    description:
      - Address or interface, optionally with a port, by which other nodes reach this one.
    type: str
  listen_addr:
    description:
      - Address and port that managers listen on.
    type: str
    default: 0.0.0.0:2377
  data_path_addr:
    description:
      - Address or interface for the traffic between containers, when it differs from O(advertise_addr).
    type: str
  data_path_port:
    description:
      - UDP port of the traffic between containers. Only for founding.
    type: int
  default_addr_pool:
    description:
      - Subnets from which overlay networks get theirs. Only for founding.
    type: list
    elements: str
  subnet_size:
    description:
      - Prefix length of the subnets taken from O(default_addr_pool). Only for founding.
    type: int
  availability:
    description:
      - Availability with which the host enters the cluster; M(swarm.cluster.swarm_node) changes it later.
    type: str
    choices: [active, pause, drain]
  join_token:
    description:
      - Token by which to join. Needed with O(state=joined).
    type: str
  remote_addrs:
    description:
      - Managers to join, V(HOST:PORT) each. They are tried in order. Needed with O(state=joined).
    type: list
    elements: str
  cluster_id:
    description:
      - When the host manages a cluster with another id, the module fails instead of changing anything.
    type: str
  force:
    description:
      - With O(state=left), leave also as a manager, and as the last one, which ends the cluster.
    type: bool
    default: false
  signing_ca_cert:
    description:
      - Own root certificate (PEM) with which to found the cluster. Only for founding.
    type: str
  signing_ca_key:
    description:
      - Key of O(signing_ca_cert) (PEM).
    type: str
  task_history_limit:
    description:
      - How many ended tasks are remembered for each slot of a service.
    type: int
  snapshot_interval:
    description:
      - Log entries between two snapshots.
    type: int
  keep_old_snapshots:
    description:
      - How many snapshots to keep beside the newest.
    type: int
  log_entries_for_slow_followers:
    description:
      - Log entries to keep for slow followers after a snapshot.
    type: int
  heartbeat:
    description:
      - How often nodes report, a duration such as V(5s).
    type: str
  cert_expiry:
    description:
      - How long certificates of nodes are valid, a duration such as V(90d) or V(2160h).
    type: str
  autolock:
    description:
      - Whether managers need a key after a restart.
    type: bool
  labels:
    description:
      - Labels of the cluster; exactly these.
    type: dict
  wait_timeout:
    description:
      - Seconds to wait until the host is in or out of the cluster.
    type: int
    default: 60
seealso:
  - module: swarm.cluster.swarm_node
  - module: swarm.cluster.swarm_join_token_info
"""

EXAMPLES = r"""
- name: Found a cluster
  swarm.cluster.swarm_cluster:
    advertise_addr: 10.77.0.11
    task_history_limit: 5

- name: Join it
  swarm.cluster.swarm_cluster:
    state: joined
    join_token: "{{ token.worker }}"
    remote_addrs: "{{ token.remote_addrs }}"

- name: Leave it
  swarm.cluster.swarm_cluster:
    state: left
"""

RETURN = r"""
node_id:
  description: The host's node id, empty outside of a cluster.
  type: str
  returned: always
  sample: 8q2s1c4k0w8m3v7t5x9z2b4n6
cluster_id:
  description: The cluster's id, empty when the host is no manager.
  type: str
  returned: always
  sample: 1n7m9p3r5t2v4x6z8b0d1f3h5
local_state:
  description: The host's state at the end.
  type: str
  returned: always
  sample: active
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [founded a cluster at 10.77.0.11]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils.client import (
    CONNECTION_SPEC,
    ApiError,
    Client,
    ClientError,
    Unreachable,
)
from ansible_collections.swarm.cluster.plugins.module_utils.patch import Option, plan
from ansible_collections.swarm.cluster.plugins.module_utils.values import SECOND, duration, spoken, texts
from ansible_collections.swarm.cluster.plugins.module_utils.waiting import TimedOut, until

SETTINGS = (
    Option("task_history_limit", "Orchestration.TaskHistoryRetentionLimit", default=5),
    Option("snapshot_interval", "Raft.SnapshotInterval", default=10000),
    Option("keep_old_snapshots", "Raft.KeepOldSnapshots", default=0),
    Option("log_entries_for_slow_followers", "Raft.LogEntriesForSlowFollowers", default=500),
    Option("heartbeat", "Dispatcher.HeartbeatPeriod", duration, 5 * SECOND, show=spoken),
    Option("cert_expiry", "CAConfig.NodeCertExpiry", duration, 90 * 86400 * SECOND, show=spoken),
    Option("autolock", "EncryptionConfig.AutoLockManagers", default=False),
    Option("labels", "Labels", texts, {}),
)
ATTEMPTS = 10


class Membership:
    """The host's place in a cluster, and how to change it."""

    def __init__(self, module):
        self.module = module
        self.params = module.params
        self.client = Client(module.params["socket"], module.params["timeout"])
        self.actions = []
        self.before = {}
        self.after = {}

    def swarm(self):
        """The host's own view. In check mode a host without an agent is one in no cluster."""
        try:
            return self.client.get("/info").get("Swarm") or {}
        except Unreachable:
            if self.module.check_mode:
                return {"LocalNodeState": "inactive"}
            raise

    def settled(self):
        """The host's view once it is neither coming nor going."""

        def ask():
            swarm = self.swarm()
            return swarm.get("LocalNodeState") != "pending", swarm

        swarm = self._until(ask)
        state = swarm.get("LocalNodeState") or "inactive"
        if state in ("locked", "error") and self.params["state"] != "left":
            raise ClientError(
                f"this host's place in its cluster is {state!r}: {swarm.get('Error') or 'unlock it first'}"
            )
        return swarm

    def present(self):
        """Found a cluster or keep its settings."""
        swarm = self.settled()
        if (swarm.get("LocalNodeState") or "inactive") == "inactive":
            settings = plan(SETTINGS, self.params, {})
            self._note(f"founded a cluster at {self.params['advertise_addr'] or 'its only address'}", "active manager")
            if not self.module.check_mode:
                self.client.post("/swarm/init", self._init_request(settings.wanted))
                self._wait_for("active")
            return
        self._check_cluster(swarm)
        if not swarm.get("ControlAvailable"):
            raise ClientError(
                "this host is a worker of a cluster, and shall found or manage one: promote it on a manager "
                "(swarm_node, role manager), or let it leave first"
            )
        for attempt in range(ATTEMPTS):
            cluster = self.client.get("/swarm")
            settings = plan(SETTINGS, self.params, cluster["Spec"])
            if not settings.changed:
                return
            if not self.module.check_mode:
                try:
                    self.client.post("/swarm/update", settings.wanted, version=cluster["Version"]["Index"])
                except ApiError as error:
                    if error.conflict and attempt + 1 < ATTEMPTS:
                        continue
                    raise
            self.before.update(settings.before)
            self.after.update(settings.after)
            self.actions.append(f"set {', '.join(sorted(settings.after))}")
            return

    def joined(self):
        """Be a member of a cluster."""
        swarm = self.settled()
        if (swarm.get("LocalNodeState") or "inactive") == "active":
            self._check_cluster(swarm)
            return
        remotes = self.params["remote_addrs"] or []
        self._note(f"joined the cluster at {', '.join(remotes) or 'its manager'}", "active")
        if self.module.check_mode:
            return
        if not remotes or not self.params["join_token"]:
            raise ClientError("joining needs join_token and remote_addrs; swarm_join_token_info on a manager has them")
        failures = []
        for remote in remotes:
            try:
                self.client.post("/swarm/join", self._join_request(remote))
            except ApiError as error:
                # 503: nobody there, or it takes longer than the call. Others are wrong whatever manager is asked.
                if error.status != 503 or self._arrived():
                    if error.status != 503:
                        raise
                    return
                failures.append(f"{remote}: {error.reason}")
                continue
            self._wait_for("active")
            return
        raise ClientError("no manager let this host join. " + "; ".join(failures))

    def left(self):
        """Be in no cluster."""
        if (self.swarm().get("LocalNodeState") or "inactive") == "inactive":
            return
        self._note("left the cluster", "inactive", "active")
        if not self.module.check_mode:
            self.client.post("/swarm/leave", force=1 if self.params["force"] else None)
            self._wait_for("inactive")

    def _check_cluster(self, swarm):
        wanted, found = self.params["cluster_id"], (swarm.get("Cluster") or {}).get("ID")
        if wanted and found and wanted != found:
            raise ClientError(f"this host manages cluster {found}, not {wanted}; it has to leave that one first")

    def _note(self, action, after, before="inactive"):
        self.actions.append(action)
        self.before["membership"], self.after["membership"] = before, after

    def _arrived(self):
        """True when a join that took longer than its call ends well."""
        if self.swarm().get("LocalNodeState") != "pending":
            return False
        return self.settled().get("LocalNodeState") == "active"

    def _wait_for(self, state):
        def ask():
            swarm = self.swarm()
            return swarm.get("LocalNodeState") == state and (state != "active" or bool(swarm.get("NodeID"))), swarm

        return self._until(ask)

    def _until(self, ask):
        try:
            return until(ask, self.params["wait_timeout"])
        except TimedOut as error:
            swarm = error.last
            raise ClientError(
                f"after {self.params['wait_timeout']} s this host is still {swarm.get('LocalNodeState')!r}"
                + (f": {swarm['Error']}" if swarm.get("Error") else "")
            ) from None

    def _addresses(self):
        return {
            "ListenAddr": self.params["listen_addr"],
            "AdvertiseAddr": self.params["advertise_addr"] or "",
            "DataPathAddr": self.params["data_path_addr"] or "",
            "Availability": self.params["availability"] or "active",
        }

    def _init_request(self, spec):
        if self.params["signing_ca_cert"]:
            spec.setdefault("CAConfig", {}).update(
                SigningCACert=self.params["signing_ca_cert"], SigningCAKey=self.params["signing_ca_key"]
            )
        return {
            **self._addresses(),
            "DataPathPort": self.params["data_path_port"] or 0,
            "DefaultAddrPool": self.params["default_addr_pool"] or [],
            "SubnetSize": self.params["subnet_size"] or 24,
            "ForceNewCluster": False,
            "Spec": spec,
        }

    def _join_request(self, remote):
        return {**self._addresses(), "RemoteAddrs": [remote], "JoinToken": self.params["join_token"]}


def main():
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            "state": {"type": "str", "choices": ["present", "joined", "left"], "default": "present"},
            "advertise_addr": {"type": "str"},
            "listen_addr": {"type": "str", "default": "0.0.0.0:2377"},
            "data_path_addr": {"type": "str"},
            "data_path_port": {"type": "int"},
            "default_addr_pool": {"type": "list", "elements": "str"},
            "subnet_size": {"type": "int"},
            "availability": {"type": "str", "choices": ["active", "pause", "drain"]},
            "join_token": {"type": "str", "no_log": True},
            "remote_addrs": {"type": "list", "elements": "str"},
            "cluster_id": {"type": "str"},
            "force": {"type": "bool", "default": False},
            "signing_ca_cert": {"type": "str"},
            "signing_ca_key": {"type": "str", "no_log": True},
            "task_history_limit": {"type": "int"},
            "snapshot_interval": {"type": "int"},
            "keep_old_snapshots": {"type": "int"},
            "log_entries_for_slow_followers": {"type": "int"},
            "heartbeat": {"type": "str"},
            "cert_expiry": {"type": "str"},
            "autolock": {"type": "bool"},
            "labels": {"type": "dict"},
            "wait_timeout": {"type": "int", "default": 60},
        },
        required_together=[("signing_ca_cert", "signing_ca_key")],
        supports_check_mode=True,
    )
    membership = Membership(module)
    try:
        getattr(membership, module.params["state"])()
        swarm = membership.swarm()
    except (ClientError, ValueError) as error:
        module.fail_json(msg=str(error), actions=membership.actions)
    module.exit_json(
        changed=bool(membership.actions),
        actions=membership.actions,
        node_id=swarm.get("NodeID") or "",
        cluster_id=(swarm.get("Cluster") or {}).get("ID", ""),
        local_state=swarm.get("LocalNodeState") or "inactive",
        diff={"before": membership.before, "after": membership.after},
    )


if __name__ == "__main__":
    main()
