"""Several members in one process, on real disks, over an in-memory transport: the driver and the store as in
production.
"""

import asyncio
import random

import pytest

from swarm_agent.model.errors import NoLeader
from swarm_agent.model.objects import Service
from swarm_agent.model.specs import ServiceSpec
from swarm_agent.raft.driver import RaftNode
from swarm_agent.raft.errors import ChangeRefused, LeadershipLost, NotLeader
from swarm_agent.raft.settings import Settings
from swarm_agent.store.store import Store

KEY = b"k" * 32
QUICK = Settings(tick=0.01, segment_size=64 * 1024)


class Cluster:
    """Members and the links between them."""

    def __init__(self, path, settings=QUICK):
        self.path = path
        self.settings = settings
        self.nodes = {}
        self.stores = {}
        self.cut = set()

    async def start(self, member, **options):
        store = Store()
        node = await RaftNode.start(
            self.path / str(member),
            member,
            [KEY],
            store,
            Link(self, member),
            rng=random.Random(member),
            settings=self.settings,
            **options,
        )
        store.proposer = node
        self.nodes[member], self.stores[member] = node, store
        return node

    async def stop(self, member):
        await self.nodes.pop(member).stop()
        del self.stores[member]

    async def close(self):
        for member in tuple(self.nodes):
            await self.stop(member)

    def isolate(self, member):
        self.cut |= {(member, other) for other in (1, 2, 3, 4)} | {(other, member) for other in (1, 2, 3, 4)}

    async def leader(self, *, not_=0):
        async with asyncio.timeout(10):
            while True:
                for member, node in self.nodes.items():
                    if node.is_leader and member != not_:
                        return node
                await asyncio.sleep(0.005)

    async def until(self, fact):
        async with asyncio.timeout(10):
            while not fact():  # noqa: ASYNC110 (a test may look at anything)
                await asyncio.sleep(0.005)

    async def create(self, member, name):
        return await self.stores[member].update(lambda tx: tx.create(Service(id=name, spec=ServiceSpec(name=name))))

    def names(self, member):
        return [service.id for service in self.stores[member].view().all(Service)]


class Link:
    def __init__(self, cluster, sender):
        self.cluster, self.sender = cluster, sender

    def send(self, member, data):
        if (self.sender, member) not in self.cluster.cut:
            asyncio.get_running_loop().call_soon(self.arrive, member, bytes(data))

    def arrive(self, member, data):
        if member in self.cluster.nodes:
            self.cluster.nodes[member].deliver(data)


@pytest.fixture
async def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    await cluster.close()


async def three(cluster):
    first = await cluster.start(1, bootstrap="host1:2377")
    await cluster.leader()
    for member in (2, 3):
        await cluster.start(member)
        await first.members.add_learner(member, f"host{member}:2377")
        await first.members.promote(member)
    return first


async def test_members_join_as_learners_and_become_voters(cluster):
    first = await three(cluster)
    await cluster.create(1, "web")
    await cluster.until(lambda: all(cluster.names(member) == ["web"] for member in (1, 2, 3)))
    assert [(m.id, m.address, m.voter) for m in cluster.nodes[3].membership.members] == [
        (1, "host1:2377", True),
        (2, "host2:2377", True),
        (3, "host3:2377", True),
    ]
    assert [member.active for member in first.status().members] == [True, True, True]
    assert cluster.nodes[2].leader_id == 1 and not cluster.nodes[2].is_leader


async def test_followers_refuse_writes_and_answer_linearizable_reads(cluster):
    await three(cluster)
    for n in range(20):
        await cluster.create(1, f"s{n}")
        assert (await cluster.stores[2].read()).get(Service, f"s{n}") is not None
    with pytest.raises(NotLeader) as error:
        await cluster.create(2, "no")
    assert error.value.leader == 1


async def test_acknowledged_writes_survive_the_leaders_death(cluster):
    await three(cluster)
    acknowledged = [(await cluster.create(1, f"s{n}")).id for n in range(10)]
    await cluster.stop(1)
    leader = await cluster.leader()
    assert leader.id in (2, 3)
    await cluster.create(leader.id, "after")
    assert cluster.names(leader.id) == [*acknowledged, "after"]
    await cluster.start(1)
    await cluster.until(lambda: cluster.names(1) == [*acknowledged, "after"])


async def test_a_leader_that_is_cut_off_gives_up_and_its_open_write_fails(cluster):
    await three(cluster)
    cluster.isolate(1)
    with pytest.raises(LeadershipLost):
        await cluster.create(1, "lost")
    leader = await cluster.leader(not_=1)
    await cluster.create(leader.id, "kept")
    with pytest.raises(NoLeader, match="too few managers are online"):
        await cluster.nodes[1].read_barrier(timeout=0.1)
    cluster.cut.clear()
    await cluster.until(lambda: cluster.names(1) == ["kept"])


async def test_leadership_is_handed_over_on_request_without_an_election_timeout(cluster):
    first = await three(cluster)
    changes = []
    first.on_leadership(changes.append)
    await first.members.transfer_leadership(3)
    assert (await cluster.leader()).id == 3
    assert changes == [True, False]
    await cluster.create(3, "web")
    await cluster.nodes[3].members.transfer_leadership()
    assert (await cluster.leader(not_=3)).id in (1, 2)


async def test_a_removed_member_learns_it_and_disturbs_nobody(cluster):
    first = await three(cluster)
    await first.members.remove(3)
    await cluster.until(lambda: cluster.nodes[3].removed)
    term = first.status().term
    await cluster.create(1, "web")
    await asyncio.sleep(QUICK.tick * QUICK.election_ticks * 3)  # time enough for it to campaign, if it would
    assert first.status().term == term and first.is_leader
    assert [member.id for member in first.membership.members] == [1, 2]


async def test_a_leader_can_remove_itself_after_handing_over(cluster):
    first = await three(cluster)
    await first.members.transfer_leadership(2)
    leader = await cluster.leader()
    await leader.members.remove(1)
    await cluster.until(lambda: first.removed)
    await cluster.create(leader.id, "web")


async def test_impossible_changes_are_refused(cluster):
    first = await three(cluster)
    with pytest.raises(ChangeRefused, match="is a member already"):
        await first.members.add_learner(2, "x")
    with pytest.raises(ChangeRefused, match="there is no member 9"):
        await first.members.remove(9)
    with pytest.raises(NotLeader):
        await cluster.nodes[2].members.add_learner(4, "x")
    with pytest.raises(ChangeRefused, match="only be handed to another voter"):
        await first.members.transfer_leadership(9)


async def test_a_member_far_behind_gets_a_snapshot_and_then_the_rest(tmp_path):
    settings = Settings(tick=0.01, segment_size=16384, snapshot_interval=30, keep_entries=5)
    cluster = Cluster(tmp_path, settings)
    first = await cluster.start(1, bootstrap="host1")
    await cluster.leader()
    for n in range(100):
        await cluster.create(1, f"s{n}")
    await cluster.until(lambda: first.status().first > 60)
    await cluster.start(2)
    await first.members.add_learner(2, "host2")
    await cluster.create(1, "while it is sent")
    await first.members.promote(2)
    await cluster.until(lambda: len(cluster.names(2)) == 101)
    assert cluster.names(2) == cluster.names(1)
    assert cluster.nodes[2].status().first > 60
    await cluster.stop(2)
    await cluster.start(2)
    await cluster.create(1, "again")
    await cluster.until(lambda: len(cluster.names(2)) == 102)
    await cluster.close()


async def test_an_address_can_be_changed_without_leaving(cluster):
    first = await three(cluster)
    seen = []
    cluster.nodes[2].on_membership(seen.append)
    await first.members.set_address(3, "elsewhere:2377")
    await cluster.until(lambda: seen[-1].get(3).address == "elsewhere:2377")


async def test_after_the_quorum_is_lost_one_member_can_go_on_alone(cluster):
    await three(cluster)
    await cluster.create(1, "web")
    await cluster.until(lambda: cluster.names(2) == ["web"])
    for member in (1, 2, 3):
        await cluster.stop(member)
    node = await cluster.start(2, force_new_cluster=True)
    await cluster.leader()
    assert [member.id for member in node.membership.members] == [2]
    assert node.membership.members[0].address == "host2:2377"
    await cluster.create(2, "more")
    assert cluster.names(2) == ["web", "more"]


async def test_rubbish_from_the_network_is_dropped(cluster):
    first = await three(cluster)
    for data in (b"", b"\x00", b"\xc1" * 40, b"\x93\x01\x02\x03"):
        await first.receive(data)
    await cluster.create(1, "web")
    assert first.error is None
