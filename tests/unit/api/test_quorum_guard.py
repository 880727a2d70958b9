"""Demotion and removal of managers ask the raft group first."""

from __future__ import annotations

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
