"""A host that comes up with another address: what its node notices, and what it makes of it."""

import pytest

from swarm_agent.model.session import ManagerPeer
from swarm_agent.node import whereabouts
from swarm_agent.node.addresses import Resolved
from swarm_agent.node.peers import PeerTransport
from swarm_agent.node.state import SavedState
from swarm_agent.worker.engine import EngineError

GONE = "192.0.2.7"  # for documentation (RFC 5737): no host has it


class NoEngine:
    """An engine that is not there yet."""

    async def network_subnets(self):
        raise EngineError(0, "no engine")


def state(advertise=GONE, own=True, others=("127.0.0.1:2377",), **changes):
    managers = [ManagerPeer("me", f"{advertise}:2377"), *(ManagerPeer(f"m{n}", a) for n, a in enumerate(others))]
    values = {"listen": "0.0.0.0", "data_path": advertise, **changes}
    return SavedState(
        node_id="me", cluster_id="c", role="manager", listen_port=2377, advertise=advertise, advertise_port=2377,
        managers=managers, raft_id=5, advertise_own=own, **values,
    )  # fmt: skip


async def test_a_lost_address_is_replaced_by_the_one_that_leads_to_the_managers():
    assert await whereabouts.new_address(state(), NoEngine()) == "127.0.0.1"


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(state(advertise="127.0.0.1"), id="still here"),
        pytest.param(state(own=False), id="never was here: of a NAT in front"),
        pytest.param(state(others=("[fe80::1]:2377",)), id="no way to the managers now"),
        pytest.param(state(others=()), id="alone, and the engine cannot tell which addresses are its own"),
    ],
)
async def test_an_address_is_kept(kept):
    assert await whereabouts.new_address(kept, NoEngine()) == ""


def test_what_was_at_the_old_address_moves_along():
    after = whereabouts.moved(state(listen=GONE), "10.0.0.9")
    assert (after.advertise_addr, after.data_path, after.listen) == ("10.0.0.9:2377", "10.0.0.9", "10.0.0.9")
    assert after.managers == [ManagerPeer("me", "10.0.0.9:2377"), ManagerPeer("m0", "127.0.0.1:2377")]
    assert (after.node_id, after.raft_id) == ("me", 5)


def test_a_link_of_its_own_for_data_stays():
    after = whereabouts.moved(state(data_path="172.16.0.1"), "10.0.0.9")
    assert (after.data_path, after.listen) == ("172.16.0.1", "0.0.0.0")


@pytest.mark.parametrize(("advertise", "own"), [("127.0.0.1", True), (GONE, False)])
def test_whether_the_address_is_the_hosts_own_is_remembered(advertise, own):
    where = Resolved("0.0.0.0", 2377, advertise, 2377, advertise)
    made = whereabouts.state_at(where, node_id="n", cluster_id="c", role="worker", raft_id=0, managers=[])
    assert made.advertise_own is own


def test_a_members_own_word_counts_until_the_log_follows():
    log = {7: "10.0.0.1:2377"}
    transport = PeerTransport(1, "10.0.0.2:2377", lambda member: log.get(member, ""), lambda: None)
    assert transport.address_of(7) == "10.0.0.1:2377"
    transport.introduced(7, "10.0.0.9:2377")
    assert transport.address_of(7) == "10.0.0.9:2377"
    log[7] = "10.0.0.9:2377"
    assert transport.address_of(7) == "10.0.0.9:2377"
    log[7] = "10.0.0.11:2377"  # it moved on, and the leader heard of that first
    assert transport.address_of(7) == "10.0.0.11:2377"
    transport.introduced(8, "10.0.0.3:2377")
    assert transport.address_of(8) == "10.0.0.3:2377"
    assert transport.address_of(9) == ""
