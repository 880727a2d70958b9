"""A leading manager in a process of its own, which answers questions on its standard input, a JSON line each.

{"call": ["POST", "/services/create", {...}]}     → the API's status and body
{"count": true}                                   → tasks by observed state, of those that shall run; nodes ready
{"usage": true}                                   → processor seconds used so far, resident MiB, seconds now
"""

from __future__ import annotations

import asyncio
import datetime
import json
import random
import resource
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from swarm_agent.api.cluster import ClusterApi
from swarm_agent.api.message import Request
from swarm_agent.manager.control import cluster as cluster_control
from swarm_agent.model.ids import new_id
from swarm_agent.model.objects import Node, NodeDescription, Task
from swarm_agent.model.session import ManagerPeer
from swarm_agent.model.specs import SwarmSpec
from swarm_agent.model.states import TaskState
from swarm_agent.node import founding
from swarm_agent.node.certificates import CertificateHolder
from swarm_agent.node.keys import NodeKeys
from swarm_agent.node.manager_role import ManagerRole
from swarm_agent.node.state import SavedState, StateFolder
from swarm_agent.pki import authority
from swarm_agent.pki.authority import Authority, Identity
from swarm_agent.pki.files import NodeCertificate
from swarm_agent.store.store import Store
from swarm_agent.store.view import Change

ADDRESS, PORT = "127.0.0.1", 2377


async def found(folder: Path) -> tuple[ManagerRole, founding.Founding]:
    """A cluster whose only manager is this process. Its node is drained: it has no worker."""
    rng = random.SystemRandom()
    node_id, cluster_id = new_id(rng), new_id(rng)
    now = datetime.datetime.now(datetime.UTC)
    root = Authority.create(now)
    key = authority.new_key()
    request = authority.new_signing_request(key)
    cert = root.issue(request, Identity(node_id, "manager", cluster_id), now, datetime.timedelta(days=1))
    certificate = NodeCertificate(root.cert, cert, key)
    state = SavedState(
        node_id=node_id,
        cluster_id=cluster_id,
        role="manager",
        listen=ADDRESS,
        listen_port=PORT,
        advertise=ADDRESS,
        advertise_port=PORT,
        data_path=ADDRESS,
        managers=[ManagerPeer(node_id, f"{ADDRESS}:{PORT}")],
        raft_id=1,
    )
    home = StateFolder(folder)
    certificate.save(home.certificates)

    def fatal(error: BaseException) -> None:
        sys.exit(f"the manager cannot go on: {error}")

    holder = CertificateHolder(certificate, NodeKeys(home))
    role = ManagerRole(home, state, holder, liveness=lambda _: None, on_fatal=fatal)
    pools, size = founding.check_pools([], 0)
    first = founding.found(
        cluster_id=cluster_id,
        node_id=node_id,
        network_id=new_id(rng),
        spec=cluster_control.complete_spec(SwarmSpec()),
        pools=pools,
        subnet_size=size,
        data_path_port=founding.check_data_path_port(0),
        availability="drain",
        advertise=ADDRESS,
        manager_addr=state.advertise_addr,
        description=NodeDescription(hostname="leader"),
        authority=root,
        unlock_key="",
        gossip_keys=[secrets.token_bytes(32)],
        raft_id=1,
        rng=rng,
    )
    await role.start(bootstrap=True)
    await role.raft_leads(20)
    await role.store.update(lambda tx: [tx.create(thing) for thing in (first.cluster, first.node, first.ingress)])
    return role, first


def usage() -> dict[str, float]:
    """Of this process alone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = pages * resource.getpagesize() / 2**20
    return {"processor": used.ru_utime + used.ru_stime, "memory": memory, "now": time.perf_counter()}


class Tally:
    """Where tasks and nodes stand, kept as they change: walking over all of them at each question would be the largest
    cost that is measured here."""

    def __init__(self, store: Store) -> None:
        self._states: Counter[TaskState] = Counter()
        self._ready = 0
        for kind in (Task, Node):
            self._take([Change(kind, None, obj) for obj in store.view().all(kind)])
        store.subscribe(self._take)

    def _take(self, changes: list[Change]) -> None:
        for change in changes:
            for obj, sign in ((change.old, -1), (change.new, 1)):
                if isinstance(obj, Task):
                    if obj.desired_state is TaskState.RUNNING:
                        self._states[obj.status.state] += sign
                elif isinstance(obj, Node):
                    self._ready += sign * (obj.status.state == "ready")

    def answer(self) -> dict[str, Any]:
        """Tasks that shall run, by observed state; how many of them have a node; nodes that are ready."""
        states = {state: number for state, number in self._states.items() if number}
        assigned = sum(number for state, number in states.items() if state.rank >= TaskState.ASSIGNED.rank)
        return {"states": states, "assigned": assigned, "ready": self._ready}


async def serve(role: ManagerRole) -> None:
    """Answer questions until standard input ends."""
    api = ClusterApi(role.store, quorum=role)
    tally = Tally(role.store)
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        answer: Any
        if "call" in asked:
            method, path, body = asked["call"]
            data = b"" if body is None else json.dumps(body).encode()
            headers = {"content-type": "application/json"}
            given = await api.handle(Request(method=method, path=path, headers=headers, body=data))
            answer = {"status": given.status, "body": given.body.decode()}
        else:
            answer = tally.answer() if "count" in asked else usage()
        print(json.dumps(answer), flush=True)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        role, first = await found(Path(folder))
        assert first.cluster.join_tokens is not None
        print(json.dumps({"token": first.cluster.join_tokens.worker}), flush=True)
        try:
            await serve(role)
        finally:
            await role.stop()


if __name__ == "__main__":
    asyncio.run(main())
