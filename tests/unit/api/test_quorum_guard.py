"""What is asked before a change is made: the raft group before managers go, external CAs before they are relied on."""

from __future__ import annotations

import datetime

from msgspec.structs import replace

from swarm_agent.model.objects import Cluster, Node, Task, TaskStatus
from swarm_agent.model.specs import ContainerSpec, TaskSpec
from swarm_agent.model.states import TaskState
from swarm_agent.pki.authority import Authority
from tests.unit.api.kit import NODE_ID, Door, make_node

SECOND = "node00000000000000000000b"


async def test_a_manager_that_the_quorum_needs_keeps_its_role(swarm: Door) -> None:
    await swarm.store.update(lambda tx: tx.create(make_node(SECOND, "second", role="manager")))
    swarm.node.manager().needed.add(SECOND)
    version = (await swarm.call("GET", f"/nodes/{SECOND}"))[1]["Version"]["Index"]
    spec = {"Role": "worker", "Availability": "active"}
    assert await swarm.call("POST", f"/nodes/{SECOND}/update?version={version}", spec) == (
        400,
        {
            "message": "rpc error: code = FailedPrecondition desc = can't remove member from the raft: "
            "this would result in a loss of quorum"
        },
    )
    swarm.node.manager().needed.clear()
    assert (await swarm.call("POST", f"/nodes/{SECOND}/update?version={version}", spec))[0] == 200


async def test_a_raft_member_is_not_removed(swarm: Door) -> None:
    status, answer = await swarm.call("DELETE", f"/nodes/{NODE_ID}?force=1")
    assert status == 400
    assert "is a cluster manager and is a member of the raft cluster" in answer["message"]


async def test_an_external_ca_that_does_not_answer_is_not_relied_on(swarm: Door) -> None:
    present, outer = (Authority.create(datetime.datetime.now(datetime.UTC)) for _ in range(2))
    (cluster,) = swarm.store.view().all(Cluster)
    await swarm.store.update(lambda tx: tx.update(replace(cluster, ca_cert=present.cert, ca_key=present.key)))
    root = outer.cert
    shown = (await swarm.call("GET", "/swarm"))[1]
    external = {"Protocol": "cfssl", "URL": "https://ca/sign", "CACert": root}
    ca = {**shown["Spec"]["CAConfig"], "SigningCACert": root, "ExternalCAs": [external]}
    path, spec = f"/swarm/update?version={shown['Version']['Index']}", {**shown["Spec"], "CAConfig": ca}
    assert await swarm.call("POST", path, spec) == (
        400,
        {
            "message": "rpc error: code = InvalidArgument desc = there must be at least one valid, reachable "
            "external CA corresponding to the desired CA certificate"
        },
    )
    assert (await swarm.call("GET", "/swarm"))[1] == shown
    swarm.node.manager().authorities.add("https://ca/sign")
    assert (await swarm.call("POST", path, spec))[0] == 200
    assert (await swarm.call("GET", "/swarm"))[1]["RootRotationInProgress"]


async def test_a_node_with_many_large_tasks_can_be_removed(swarm: Door) -> None:
    """All of them do not fit into the log entry that removes it; those are for the dispatcher to orphan."""
    spec = TaskSpec(container_spec=ContainerSpec(env=["X=" + "x" * 20_000]))
    await swarm.store.update(lambda tx: tx.create(make_node(SECOND, "second", state="down")))
    for number in range(100):
        task = Task(id=f"t{number}", node_id=SECOND, spec=spec, status=TaskStatus(state=TaskState.RUNNING))
        await swarm.store.update(lambda tx, task=task: tx.create(task))
    assert await swarm.call("DELETE", "/nodes/second") == (200, None)
    assert swarm.store.view().get(Node, SECOND) is None
