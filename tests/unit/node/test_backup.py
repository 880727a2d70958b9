"""A saved cluster is restored on a host of its own: same objects, new raft group, one manager."""

import random

import pytest

from swarm_agent.model.errors import BadRequest
from swarm_agent.model.objects import Cluster, ManagerStatus, Node, NodeDescription, Secret
from swarm_agent.model.session import ManagerPeer
from swarm_agent.model.specs import NodeSpec, SecretSpec
from swarm_agent.node import backup
from swarm_agent.node.keys import NodeKeys
from swarm_agent.node.state import SavedState, StateFolder
from swarm_agent.raft.driver import RaftNode
from swarm_agent.raft.files import OsFiles
from swarm_agent.store import archive
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store

SECRET = b"a long enough secret"


class Nowhere:
    """A transport without peers."""

    def send(self, member, data):
        raise AssertionError("the only member has nobody to talk to")


def node(id_: str, hostname: str, role: str, raft_id: int = 0) -> Node:
    status = ManagerStatus(leader=True, reachability="reachable", addr="10.0.0.1:2377") if raft_id else None
    return Node(
        id=id_,
        spec=NodeSpec(role=role, availability="active", labels={"was": id_}),
        description=NodeDescription(hostname=hostname),
        manager_status=status,
        raft_id=raft_id,
    )


@pytest.fixture
async def file(tmp_path):
    store = memory_store()
    objects = [
        Cluster(id="c", blacklisted={"m2": "2030-01-01T00:00:00Z"}),
        node("m1", "host1", "manager", 11),
        node("m2", "host2", "manager", 12),
        Secret(id="s", spec=SecretSpec(name="password", data="aGlkZGVu")),
    ]
    await store.update(lambda tx: [tx.create(obj) for obj in objects])
    head = archive.new_head(created="", cluster_id="c", node_id="m1", hostname="host1", index=40, term=5)
    path = tmp_path / "cluster.snapshot"
    path.write_bytes(b"".join(archive.write(head, store.snapshot(), SECRET)))
    await store.close()
    return path


async def test_raft_starts_from_a_restored_snapshot_as_the_only_member(file, tmp_path):
    folder = StateFolder(tmp_path / "state")
    head, view, parts = backup.load(file, SECRET)
    state = SavedState(
        node_id=backup.identity_for(view, "host2", "fresh"),
        cluster_id="c",
        role="manager",
        listen="0.0.0.0",
        listen_port=2377,
        advertise="10.9.9.9",
        advertise_port=2377,
        data_path="10.9.9.9",
        managers=[ManagerPeer("m2", "10.9.9.9:2377")],
        raft_id=77,
    )
    keys = NodeKeys(folder).raft_keys().raw
    backup.lay_down(folder, keys, head, parts, state)
    store = Store()
    raft = await RaftNode.start(
        OsFiles(folder.raft), 77, keys, store, Nowhere(), rng=random.Random(1), bootstrap="x", force_new_cluster=True
    )
    try:
        store.proposer = raft
        await raft.read_barrier()
        await store.update(lambda tx: backup.take_over(tx, state, "host2"))
        assert raft.membership.voters == (77,)
        assert store.view().get(Secret, "s").spec.data == "aGlkZGVu"
        own, other = (store.view().get(Node, id_) for id_ in ("m2", "m1"))
        assert (own.spec.role, own.raft_id, own.manager_status.addr) == ("manager", 77, "10.9.9.9:2377")
        assert own.spec.labels == {"was": "m2"}
        assert (other.spec.role, other.raft_id, other.manager_status) == ("worker", 0, None)
        assert store.view().all(Cluster)[0].blacklisted == {}
        assert own.version.index > head.index  # versions go on rising
    finally:
        await store.close()
        await raft.stop()


async def test_a_host_takes_the_identity_of_its_name_unless_that_is_not_clear(file):
    view = backup.load(file, SECRET)[1]
    assert backup.identity_for(view, "host1", "fresh") == "m1"
    assert backup.identity_for(view, "elsewhere", "fresh") == "fresh"


async def test_a_wrong_secret_and_a_missing_file_are_told(file):
    with pytest.raises(BadRequest, match="not this snapshot's"):
        backup.load(file, b"another secret")
    with pytest.raises(BadRequest, match="No such file"):
        backup.load(file.with_name("none"), SECRET)


def test_a_weak_secret_is_refused():
    with pytest.raises(BadRequest, match="at least 8 bytes"):
        backup.check_secret(b"1234567")
