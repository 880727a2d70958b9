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
      - Own root certificate (PEM) with which to found the cluster, or to which O(rotate_root) goes.
        M(swarm.cluster.swarm_certificate) makes one.
    type: str
  signing_ca_key:
    description:
      - Key of O(signing_ca_cert) (PEM). Left out, an external authority has to sign.
    type: str
  rotate_root:
    description:
      - Give a cluster that is there another root certificate, and wait until all nodes have certificates by it. With
        O(signing_ca_cert) nothing is done when that is the root already; without, there is a fresh root each time.
    type: bool
    default: false
  external_cas:
    description:
      - Authorities outside of the cluster that sign its certificates, exactly these.
    type: list
    elements: dict
    suboptions:
      url:
        description:
          - Where it answers.
        type: str
        required: true
      protocol:
        description:
          - How it is spoken to.
        type: str
        choices: [cfssl]
        default: cfssl
      ca_cert:
        description:
          - Root certificate (PEM) by which it signs; by default the cluster's present one.
        type: str
      options:
        description:
          - Further options of the protocol.
        type: dict
  election_tick:
    description:
      - Ticks without a word of the leader after which managers elect another one.
    type: int
  heartbeat_tick:
    description:
      - Ticks between two words of the leader.
    type: int
  log_driver:
    description:
      - Log driver of tasks that name none.
    type: str
  log_options:
    description:
      - Its options.
    type: dict
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
  unlock_key:
    description:
      - Key by which to unlock a manager that is locked.
    type: str
  labels:
    description:
      - Labels of the cluster; exactly these.
    type: dict
  wait_timeout:
    description:
      - Seconds to wait until the host is in or out of the cluster, and until a rotation of the root is complete.
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

- name: Go over to a new root certificate
  swarm.cluster.swarm_cluster:
    rotate_root: true
    wait_timeout: 600

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
from ansible_collections.swarm.cluster.plugins.module_utils.client import CONNECTION_SPEC, ClientError
from ansible_collections.swarm.cluster.plugins.module_utils.declare import carry_out
from ansible_collections.swarm.cluster.plugins.module_utils.patch import Option, plan, read
from ansible_collections.swarm.cluster.plugins.module_utils.place import PLACE_SPEC, Place
from ansible_collections.swarm.cluster.plugins.module_utils.service_values import without_empty
from ansible_collections.swarm.cluster.plugins.module_utils.values import SECOND, duration, spoken, texts


def external_cas(wanted):
    """Certificate authorities outside of the cluster, as the API wants them."""
    return [
        without_empty(
            {
                "Protocol": entry["protocol"],
                "URL": entry["url"],
                "CACert": entry["ca_cert"],
                "Options": texts(entry["options"]),
            }
        )
        for entry in wanted
    ]


def same_cas(found):
    """Certificate authorities by meaning."""
    return sorted(
        (without_empty(dict(entry, Protocol=entry.get("Protocol", "").lower())) for entry in found or []), key=repr
    )


SETTINGS = (
    Option("task_history_limit", "Orchestration.TaskHistoryRetentionLimit", default=5),
    Option("snapshot_interval", "Raft.SnapshotInterval", default=10000),
    Option("keep_old_snapshots", "Raft.KeepOldSnapshots", default=0),
    Option("log_entries_for_slow_followers", "Raft.LogEntriesForSlowFollowers", default=500),
    Option("heartbeat", "Dispatcher.HeartbeatPeriod", duration, 5 * SECOND, show=spoken),
    Option("cert_expiry", "CAConfig.NodeCertExpiry", duration, 90 * 86400 * SECOND, show=spoken),
    Option("external_cas", "CAConfig.ExternalCAs", external_cas, [], same_cas, lambda v: [e.get("URL") for e in v]),
    Option("election_tick", "Raft.ElectionTick", default=10),
    Option("heartbeat_tick", "Raft.HeartbeatTick", default=1),
    Option("log_driver", "TaskDefaults.LogDriver.Name", default=""),
    Option("log_options", "TaskDefaults.LogDriver.Options", texts, {}),
    Option("autolock", "EncryptionConfig.AutoLockManagers", default=False),
    Option("labels", "Labels", texts, {}),
)


class Cluster(Place):
    """The cluster as the host founds, joins, leaves and keeps it."""

    def present(self):
        """Found a cluster or keep its settings."""
        swarm = self.swarm()
        if self.state(swarm) == "locked" and self.params["unlock_key"]:
            self.membership("unlocked the manager", "active", "locked")
            if self.check:
                return
            self.client.post("/swarm/unlock", {"UnlockKey": self.params["unlock_key"]})
        swarm = self.settled()
        if self.state(swarm) == "inactive":
            settings = plan(SETTINGS, self.params, {})
            self.membership(
                f"founded a cluster at {self.params['advertise_addr'] or 'its only address'}", "active manager"
            )
            if not self.check:
                self.client.post("/swarm/init", self._init_request(settings.wanted))
                self.wait_for("active")
            return
        self.check_cluster(swarm)
        if not swarm.get("ControlAvailable"):
            raise ClientError(
                "this host is a worker of a cluster, and shall found or manage one: promote it on a manager "
                "(swarm_node, role manager), or let it leave first"
            )
        self.retry(self._keep)
        if self.params["rotate_root"] and not self.check:
            self._wait_for_root()

    def joined(self):
        """Be a member of a cluster."""
        self.join(self.params["join_token"])

    def left(self):
        """Be in no cluster."""
        self.leave(self.params["force"])

    def result(self):
        """Where the host is now."""
        swarm = self.swarm()
        return {
            "node_id": swarm.get("NodeID") or "",
            "cluster_id": (swarm.get("Cluster") or {}).get("ID", ""),
            "local_state": self.state(swarm),
        }

    def _keep(self):
        """One attempt to make the settings and the root what they shall be."""
        cluster = self.client.get("/swarm")
        settings = plan(SETTINGS, self.params, cluster["Spec"])
        if settings.changed:
            self.note(f"set {', '.join(sorted(settings.after))}", settings.before, settings.after)
        if self.params["rotate_root"] and not self._has_root(cluster):
            self.note("rotated the root certificate", {"root": "the present one"}, {"root": "a new one"})
            ca = settings.wanted.setdefault("CAConfig", {})
            if self.params["signing_ca_cert"]:
                ca.update(
                    SigningCACert=self.params["signing_ca_cert"], SigningCAKey=self.params["signing_ca_key"] or ""
                )
            else:
                ca["ForceRotate"] = ca.get("ForceRotate", 0) + 1
        if self.actions and not self.check:
            self.client.post("/swarm/update", settings.wanted, version=cluster["Version"]["Index"])

    def _has_root(self, cluster):
        """Whether the cluster has, or is on its way to, the root that is brought; a fresh one it never has."""
        wanted = (self.params["signing_ca_cert"] or "").strip()
        return bool(wanted) and wanted == (read(cluster, "TLSInfo.TrustRoot") or "").strip()

    def _wait_for_root(self):
        def ask():
            cluster = self.client.get("/swarm")
            if not cluster.get("RootRotationInProgress"):
                return True, ""
            key = read(cluster, "TLSInfo.CertIssuerPublicKey")
            old = [
                read(node, "Description.Hostname") or node["ID"]
                for node in self.client.get("/nodes")
                if read(node, "Description.TLSInfo.CertIssuerPublicKey") != key
            ]
            return False, f"nodes without a certificate by the new root: {', '.join(old) or 'none'}"

        self.wait_until(ask, "the root certificate is not rotated")

    def _init_request(self, spec):
        if self.params["signing_ca_cert"]:
            spec.setdefault("CAConfig", {}).update(
                SigningCACert=self.params["signing_ca_cert"], SigningCAKey=self.params["signing_ca_key"] or ""
            )
        return {
            **self.addresses(),
            "DataPathPort": self.params["data_path_port"] or 0,
            "DefaultAddrPool": self.params["default_addr_pool"] or [],
            "SubnetSize": self.params["subnet_size"] or 24,
            "ForceNewCluster": False,
            "Spec": spec,
        }


def main():
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            **PLACE_SPEC,
            "state": {"type": "str", "choices": ["present", "joined", "left"], "default": "present"},
            "data_path_port": {"type": "int"},
            "default_addr_pool": {"type": "list", "elements": "str"},
            "subnet_size": {"type": "int"},
            "availability": {"type": "str", "choices": ["active", "pause", "drain"]},
            "join_token": {"type": "str", "no_log": True},
            "force": {"type": "bool", "default": False},
            "signing_ca_cert": {"type": "str"},
            "signing_ca_key": {"type": "str", "no_log": True},
            "task_history_limit": {"type": "int"},
            "snapshot_interval": {"type": "int"},
            "keep_old_snapshots": {"type": "int"},
            "log_entries_for_slow_followers": {"type": "int"},
            "heartbeat": {"type": "str"},
            "cert_expiry": {"type": "str"},
            "external_cas": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "url": {"type": "str", "required": True},
                    "protocol": {"type": "str", "choices": ["cfssl"], "default": "cfssl"},
                    "ca_cert": {"type": "str"},
                    "options": {"type": "dict"},
                },
            },
            "rotate_root": {"type": "bool", "default": False},
            "election_tick": {"type": "int"},
            "heartbeat_tick": {"type": "int"},
            "log_driver": {"type": "str"},
            "log_options": {"type": "dict"},
            "autolock": {"type": "bool"},
            "unlock_key": {"type": "str", "no_log": True},
            "labels": {"type": "dict"},
            "wait_timeout": {"type": "int", "default": 60},
        },
        required_by={"signing_ca_key": "signing_ca_cert"},
        supports_check_mode=True,
    )
    cluster = Cluster(module)
    carry_out(module, cluster, getattr(cluster, module.params["state"]))


if __name__ == "__main__":
    main()
