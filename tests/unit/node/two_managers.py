"""Two real managers on loopback, over real TLS, that need each other for a majority."""

import asyncio
import datetime
import random
import socket

import msgspec
import pytest

from swarm_agent.model.objects import Node, NodeDescription, NodeStatus
from swarm_agent.model.specs import NodeSpec, SwarmSpec
from swarm_agent.node import founding, whereabouts
from swarm_agent.node.certificates import CertificateHolder
from swarm_agent.node.keys import NodeKeys
from swarm_agent.node.leader_client import LeaderClient
from swarm_agent.node.manager_role import ManagerRole
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
