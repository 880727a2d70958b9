"""Two real managers on loopback, over real TLS, that need each other for a majority; one moves, then the other.

A manager that has moved is known to nobody: it has to be found before there can be a leader to write its address down.
"""

import asyncio
import datetime
import random
import socket

import msgspec
import pytest
from msgspec.structs import replace

from swarm_agent.model.objects import Cluster, Config, Node, NodeDescription, NodeStatus
from swarm_agent.model.session import ManagerPeer
from swarm_agent.model.specs import ConfigSpec, NodeSpec, RaftConfig, SwarmSpec
from swarm_agent.node import founding, whereabouts
from swarm_agent.node.certificates import CertificateHolder
from swarm_agent.node.keys import NodeKeys
from swarm_agent.node.leader_client import LeaderClient
from swarm_agent.node.manager_role import ManagerRole, raft_settings
from swarm_agent.node.manager_routes import RaftJoin
from swarm_agent.node.state import SavedState, StateFolder
from swarm_agent.pki import authority
from swarm_agent.pki.authority import Authority, Identity
from swarm_agent.pki.files import NodeCertificate

NOW = datetime.datetime.now(datetime.UTC)
PATIENCE = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Manager:
    """One host's manager role, as the agent runs it; `move` is what the agent does when the address is another one."""

    def __init__(self, path, root, number, port):
        address = f"127.0.0.{number + 10}"
        self.id = f"node{number}"
        key = authority.new_key()
        identity = Identity(self.id, "manager", "cluster")
        cert = root.issue(authority.new_signing_request(key), identity, NOW, datetime.timedelta(days=1))
        self.folder = StateFolder(path / self.id)
        self.holder = CertificateHolder(NodeCertificate(root.cert, cert, key), NodeKeys(self.folder))
        self.state = SavedState(
            node_id=self.id, cluster_id="cluster", role="manager", listen=address, listen_port=port,
            advertise=address, advertise_port=port, data_path=address, managers=[], raft_id=number,
        )  # fmt: skip
        self.role = None

    @property
    def address(self):
        return self.state.advertise_addr

    async def start(self, *, bootstrap=False):
        self.role = ManagerRole(
            self.folder,
            self.state,
            self.holder,
            liveness=lambda _: True,
            on_fatal=lambda error: pytest.fail(str(error)),
        )
        await self.role.start(bootstrap=bootstrap)

    async def ask(self, path, *managers):
        """As the node asks the leader: any manager that it knows, itself first."""
        body = msgspec.json.encode(RaftJoin(raft_id=self.state.raft_id, address=self.address))
        known = lambda: [each for each in (self.role.leader_addr, self.address, *managers) if each]  # noqa: E731
        await LeaderClient(self.holder, known).post(path, body, patience=PATIENCE)

    async def move(self, address):
        await self.role.stop()
        self.state = whereabouts.moved(self.state, address)
        await self.start()


async def until(fact):
    async with asyncio.timeout(PATIENCE):
        while not fact():  # noqa: ASYNC110 (a test may look at anything)
            await asyncio.sleep(0.02)


@pytest.fixture
async def two(tmp_path):
    root, port = Authority.create(NOW), free_port()
    first, second = (Manager(tmp_path, root, number, port) for number in (1, 2))
    await first.start(bootstrap=True)
    await first.role.raft_leads(PATIENCE)
    found = founding.found(
        cluster_id="cluster", node_id=first.id, network_id="ingress", spec=SwarmSpec(name="default"),
        pools=["10.0.0.0/8"], subnet_size=24, data_path_port=4789, availability="active", advertise="127.0.0.11",
        manager_addr=first.address, description=NodeDescription(hostname="h1"), authority=root, unlock_key="",
        gossip_keys=[b"k" * 32], raft_id=1, rng=random.Random(1),
    )  # fmt: skip
    other = Node(id=second.id, spec=NodeSpec(role="manager"), status=NodeStatus(state="ready"))
    await first.role.store.update(lambda tx: [tx.create(obj) for obj in (found.cluster, found.node, other)])
    await until(lambda: first.role.is_leader)
    await second.start()
    await second.ask("/v1/raft/join", first.address)
    yield first, second
    await asyncio.gather(first.role.stop(), second.role.stop())


def members_of(manager):
    return {member.id: member.address for member in manager.role.raft.membership.members}


def told_by(manager):
    """Node id → address of its manager status, as clients see it."""
    nodes = manager.role.store.view().all(Node)
    return {node.id: node.manager_status.addr for node in nodes if node.manager_status is not None}


async def written_by(manager, name):
    await manager.role.store.update(lambda tx: tx.create(Config(id=name, spec=ConfigSpec(name=name))))


@pytest.mark.timeout(180)
async def test_managers_that_move_are_found_and_their_new_addresses_written_down(two):
    first, second = two
    await second.move("127.0.0.22")  # a follower: the leader alone is no majority
    assert second.role.has_moved
    await second.ask("/v1/raft/move", first.address)
    await until(lambda: members_of(first) == members_of(second) == {1: first.address, 2: second.address})
    assert not second.role.has_moved
    await until(lambda: any(each.role.is_leader for each in two))

    leader, follower = (first, second) if first.role.is_leader else (second, first)
    await leader.move("127.0.0.31")
    await leader.ask("/v1/raft/move", follower.address)
    await until(lambda: members_of(first) == members_of(second) == {1: first.address, 2: second.address})
    await until(lambda: told_by(first) == told_by(second) == {"node1": first.address, "node2": second.address})
    assert {peer.addr for peer in first.role.managers()} == {first.address, second.address}

    await until(lambda: any(each.role.is_leader for each in two))
    await written_by(next(each for each in two if each.role.is_leader), "after")
    for each in two:
        assert (await each.role.store.read()).get(Config, "after") is not None


@pytest.mark.timeout(180)
async def test_only_a_member_itself_may_say_where_it_is(two):
    first, second = two
    body = msgspec.json.encode(RaftJoin(raft_id=first.state.raft_id, address="127.0.0.99:1"))
    with pytest.raises(Exception, match="node node2 is not raft member 1"):
        await LeaderClient(second.holder, lambda: [first.address]).post("/v1/raft/move", body, patience=PATIENCE)
    assert ManagerPeer(first.id, first.address) in first.role.managers()
    assert members_of(first)[1] == first.address


@pytest.mark.timeout(180)
async def test_the_specs_raft_settings_count_at_once_on_every_manager_and_after_a_start(two):
    first, second = two
    wanted = RaftConfig(
        snapshot_interval=40, keep_old_snapshots=1, log_entries_for_slow_followers=3, election_tick=30, heartbeat_tick=3
    )

    def change(tx):
        (cluster,) = tx.all(Cluster)
        tx.update(replace(cluster, spec=replace(cluster.spec, raft=wanted)))

    await first.role.store.update(change)
    await until(lambda: all(each.role.raft.settings == raft_settings(wanted) for each in two))
    for n in range(100):
        await written_by(first, f"c{n}")
    await until(lambda: all(len(list(each.folder.raft.glob("*.snap"))) == 2 for each in two))
    await second.role.stop()
    await second.start()
    await until(lambda: second.role.raft.settings == raft_settings(wanted))
