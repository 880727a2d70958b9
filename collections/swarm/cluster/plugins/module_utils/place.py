# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's place in a cluster: outside, coming, inside, going. For swarm_cluster and swarm_node, run on the host
itself."""

from __future__ import annotations

import time

from ansible_collections.swarm.cluster.plugins.module_utils.client import ApiError, ClientError, Unreachable
from ansible_collections.swarm.cluster.plugins.module_utils.cluster import node_summary
from ansible_collections.swarm.cluster.plugins.module_utils.declare import Declaration

# What a host says of itself when it enters a cluster.
PLACE_SPEC = {
    "advertise_addr": {"type": "str"},
    "listen_addr": {"type": "str", "default": "0.0.0.0:2377"},
    "data_path_addr": {"type": "str"},
    "remote_addrs": {"type": "list", "elements": "str"},
    "cluster_id": {"type": "str"},
}


def removal_problem(nodes, node_id):
    """Why this manager cannot stop being one, "" when it can. `nodes` are the API's.

    What counts is who is left: the others have to make a majority among themselves, with those that answer.
    """
    managers = [
        node_summary(node) for node in nodes if node.get("ManagerStatus") or node["Spec"].get("Role") == "manager"
    ]
    gone = next((node for node in managers if node["id"] == node_id), None)
    if gone is None:
        return ""
    left = [node for node in managers if node["id"] != node_id]
    if not left:
        return f"{gone['hostname']} is the last manager; without one there is no cluster. Promote another node first."
    silent = [node["hostname"] or node["id"] for node in left if node["reachability"] != "reachable"]
    needed = len(left) // 2 + 1
    if len(left) - len(silent) < needed:
        return (
            f"without {gone['hostname']} there are {len(left)} managers, of which {len(left) - len(silent)} "
            f"can be reached, and it takes {needed} to decide anything. Bring {', '.join(silent)} back first, or "
            f"remove it first."
        )
    return ""


class Place(Declaration):
    """The host's place in a cluster, and how to change it."""

    def swarm(self):
        """The host's own view. In check mode a host without an agent is one in no cluster."""
        try:
            return self.client.get("/info").get("Swarm") or {}
        except Unreachable:
            if self.check:
                return {"LocalNodeState": "inactive"}
            raise

    def state(self, swarm):
        """inactive, pending, active, locked or error."""
        return swarm.get("LocalNodeState") or "inactive"

    def settled(self, leaving=False):
        """The host's view once it is neither coming nor going. Raises ClientError when it is stuck."""

        def ask():
            swarm = self.swarm()
            return self.state(swarm) != "pending", swarm

        swarm = self._until(ask)
        if self.state(swarm) in ("locked", "error") and not leaving:
            raise ClientError(
                f"this host's place in its cluster is {self.state(swarm)!r}: {swarm.get('Error') or 'unlock it first'}"
            )
        return swarm

    def check_cluster(self, swarm):
        """Refuse to touch another cluster than the one that is meant."""
        wanted, found = self.params["cluster_id"], (swarm.get("Cluster") or {}).get("ID")
        if wanted and found and wanted != found:
            raise ClientError(f"this host manages cluster {found}, not {wanted}; it has to leave that one first")

    def membership(self, action, after, before="inactive"):
        """Note a change of the host's place."""
        self.note(action, {"membership": before}, {"membership": after})

    def join(self, token):
        """Be a member of a cluster: ask the managers one after the other."""
        swarm = self.settled()
        if self.state(swarm) == "active":
            self.check_cluster(swarm)
            return
        remotes = self.params["remote_addrs"] or []
        self.membership(f"joined the cluster at {', '.join(remotes) or 'its manager'}", "active")
        if self.check:
            return
        if not remotes or not token:
            raise ClientError("joining needs join_token and remote_addrs; swarm_join_token_info on a manager has them")
        failures = []
        for remote in remotes:
            try:
                self._ask_to_join(remote, token)
            except ApiError as error:
                # 503: nobody there, or it takes longer than the call. Others are wrong whatever manager is asked.
                if error.status != 503 or self._arrived():
                    if error.status != 503:
                        raise
                    return
                failures.append(f"{remote}: {error.reason}")
                continue
            self.wait_for("active")
            return
        raise ClientError("no manager let this host join. " + "; ".join(failures))

    def _ask_to_join(self, remote, token):
        """One manager is asked. An election that is under way, as after the manager before this one, is waited for."""
        request = {**self.addresses(), "RemoteAddrs": [remote], "JoinToken": token}
        deadline = time.monotonic() + self.params["wait_timeout"]
        while True:
            try:
                return self.client.post("/swarm/join", request)
            except ApiError as error:
                # 503 of the same kind means that the call was given up, not the joining.
                if not error.passing or error.status != 500 or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def leave(self, force):
        """Be in no cluster."""
        if self.state(self.swarm()) == "inactive":
            return
        self.membership("left the cluster", "inactive", "active")
        if not self.check:
            self.client.post("/swarm/leave", force=1 if force else None)
            self.wait_for("inactive")

    def wait_for(self, state):
        """Wait until the host is in this state; with its node id, if that is active."""

        def ask():
            swarm = self.swarm()
            return self.state(swarm) == state and (state != "active" or bool(swarm.get("NodeID"))), swarm

        return self._until(ask)

    def addresses(self):
        """By what the host is reached, and whether it takes tasks."""
        return {
            "ListenAddr": self.params["listen_addr"],
            "AdvertiseAddr": self.params["advertise_addr"] or "",
            "DataPathAddr": self.params["data_path_addr"] or "",
            "Availability": self.params["availability"] or "active",
        }

    def _arrived(self):
        """True when a join that took longer than its call ends well."""
        if self.state(self.swarm()) != "pending":
            return False
        return self.state(self.settled()) == "active"

    def _until(self, ask):
        def told():
            done, swarm = ask()
            return done, swarm if done else f"{self.state(swarm)} {swarm.get('Error', '')}".strip()

        return self.wait_until(told, "this host's place in a cluster is not settled")
