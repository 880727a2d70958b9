"""A membership that cannot be taken up says why and what to do, wherever a user asks."""

import asyncio
import datetime
from pathlib import Path

import pytest

from swarm_agent.model.errors import BadRequest, Unavailable
from swarm_agent.model.requests import InitRequest, JoinRequest
from swarm_agent.node.cluster_node import ClusterNode
from swarm_agent.node.membership import Membership
from swarm_agent.node.settings import Settings
from swarm_agent.node.state import SavedState, StateFolder
from swarm_agent.pki import authority
from swarm_agent.pki.authority import Authority, Identity
from swarm_agent.pki.files import NodeCertificate
from swarm_agent.worker.engine import Engine

NOW = datetime.datetime.now(datetime.UTC)
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
async def host(tmp_path):
    """A host outside any cluster yet, and `host.member(role, at)`: it was made a member at that time, for ten hours."""
    folder = StateFolder(tmp_path)
    engine = Engine(str(tmp_path / "no.sock"))
    node = ClusterNode(
        Settings(run_dir=Path(tmp_path / "run"), state_dir=tmp_path), engine, api=lambda role: None, on_fatal=print
    )

    def member(role: str, at: datetime.datetime = NOW) -> StateFolder:
        root, key = Authority.create(at), authority.new_key()
        cert = root.issue(authority.new_signing_request(key), Identity("n", role, "cluster1"), at, 10 * HOUR)
        NodeCertificate(root.cert, cert, key).save(folder.certificates)
        folder.save(
            SavedState(
                node_id="n",
                cluster_id="cluster1",
                role=role,
                listen="127.0.0.1",
                listen_port=0,
                advertise="127.0.0.1",
                advertise_port=1,
                data_path="127.0.0.1",
                managers=[],
                raft_id=5 if role == "manager" else 0,
            )
        )
        return folder

    node.member = member
    yield node
    await node.stop()
    await engine.close()


async def failure(node: ClusterNode) -> str:
    async with asyncio.timeout(10):
        while not node.error:  # noqa: ASYNC110 (no event tells)
            await asyncio.sleep(0.01)
    return node.error


async def test_a_damaged_log_is_told_with_the_way_out(host):
    folder = host.member("manager")
    folder.raft.mkdir()
    (folder.raft / "0000000000000001.wal").write_bytes(b"something else" * 100)
    await host.start()
    text = await failure(host)
    assert "it does not begin as a log of this format" in text
    assert "remove this node from the cluster, delete the directory and join again" in text
    assert "restore a backup" in text
    assert host.local_state == "error"
    with pytest.raises(Unavailable, match="join again"):
        host.manager()
    with pytest.raises(Unavailable, match="Doing so may lose the consensus of your cluster"):
        await host.leave(force=False)
    await host.leave(force=True)
    assert host.local_state == "inactive" and not folder.raft.exists()


async def test_a_missing_certificate_is_told(host, monkeypatch):
    cleaned = []

    async def clean(membership):
        cleaned.append((membership.state.node_id, membership.manager))

    monkeypatch.setattr(Membership, "remove_leftovers", clean)
    folder = host.member("worker")
    (folder.certificates / "node.key").unlink()
    await host.start()
    assert "is missing or incomplete" in await failure(host)
    with pytest.raises(Unavailable, match="is missing or incomplete"):
        host.manager()
    for enter in (host.init(InitRequest()), host.join(JoinRequest(remote_addrs=["127.0.0.1:1"]))):
        with pytest.raises(Unavailable, match="already part of a swarm"):
            await enter
    await host.leave(force=True)
    assert host.local_state == "inactive" and folder.load() is None
    assert cleaned == [("n", None)], "its tasks would run on without a cluster"


async def test_certificates_that_have_expired_are_told_in_swarms_words(host):
    host.member("worker", NOW - 20 * HOUR)
    await host.start()
    text = "Swarm certificates have expired. To replace them, leave the swarm and join again."
    assert await failure(host) == text
    assert host.local_state == "error"
    with pytest.raises(Unavailable, match=text):  # also of a worker: that it is none of the managers helps nobody
        host.manager()


async def test_outside_a_cluster_a_new_one_needs_no_force(host):
    """As in Swarm, where --force-new-cluster is of no account there: the request is looked at like any other."""
    await host.start()
    with pytest.raises(BadRequest, match="Datapath port number is not in valid range"):
        await host.init(InitRequest(force_new_cluster=True, data_path_port=80))


async def test_valid_ones_are_not(host):
    host.member("worker")
    await host.start()
    assert host.error == "" and host.local_state == "pending"


async def test_leaving_ends_a_membership_that_is_still_being_taken_up(host, monkeypatch):
    """It went on behind the back of a node that had left: it held the port, and asked for its old cluster's leader."""
    host.member("worker")
    looking, found, started = asyncio.Event(), asyncio.Event(), []

    async def slowly(membership):
        looking.set()
        await found.wait()

    async def start(membership):
        started.append(membership)

    monkeypatch.setattr(Membership, "resume_manager", slowly)
    monkeypatch.setattr(Membership, "start", start)
    await host.start()
    await looking.wait()
    await host.leave(force=False)
    found.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert started == [] and host.local_state == "inactive"
