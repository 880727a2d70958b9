"""The allocator's networks: each gets a subnet, a gateway and a VNI that nothing else has, from pools of numbers."""

from __future__ import annotations

import ipaddress
import random

import pytest

from swarm_agent.manager.addresses import AddressPool, NumberPool, SubnetPool, to_text
from swarm_agent.manager.allocation import AllocatorCore
from swarm_agent.manager.holdings import VXLAN_OPTION, ipv4
from swarm_agent.model.objects import Cluster, Endpoint, Network, Node, NodeStatus
from swarm_agent.model.specs import Driver, IPAMConfig, IPAMOptions, NetworkSpec
from swarm_agent.model.states import TaskState
from tests.unit.manager.allocator_world import INGRESS, World, network, service, task

# --- pools -----------------------------------------------------------------------------------------------------------


def test_numbers_are_given_in_rising_order_and_freed_ones_last() -> None:
    pool = NumberPool(1, 4)
    given = []
    for _ in range(4):
        number = pool.peek()
        assert number is not None
        pool.hold(number)
        given.append(number)
        if number == 2:
            pool.release(1)
    assert given == [1, 2, 3, 4]
    assert pool.peek() == 1
    pool.hold(1)
    assert pool.peek() is None


def test_a_number_is_free_when_its_last_holder_let_go() -> None:
    pool = NumberPool(1, 1)
    pool.hold(1)
    pool.hold(1)
    assert not pool.release(1)
    assert pool.peek() is None
    assert pool.release(1)
    assert pool.peek() == 1


def test_addresses_leave_out_network_broadcast_and_gateway() -> None:
    pool = AddressPool("10.1.2.0/29", gateway="10.1.2.1")
    given = []
    while (number := pool.peek()) is not None:
        pool.hold(number)
        given.append(pool.text(number))
    assert given == [f"10.1.2.{last}/29" for last in range(2, 7)]


def test_engines_keep_the_last_four_addresses_of_larger_subnets() -> None:
    pool = AddressPool("10.1.2.0/24")
    assert (to_text(pool.first), to_text(pool.last)) == ("10.1.2.1", "10.1.2.251")


def test_addresses_stay_in_the_range_that_the_user_gave() -> None:
    pool = AddressPool("10.1.0.0/16", ip_range="10.1.5.0/30")
    assert (to_text(pool.first), to_text(pool.last)) == ("10.1.5.0", "10.1.5.3")


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([], "10.0.0.0/24"),
        (["10.0.0.0/24"], "10.0.1.0/24"),
        (["10.0.0.0/24", "10.0.2.0/24"], "10.0.1.0/24"),
        (["10.0.0.77/32"], "10.0.1.0/24"),
        (["10.0.0.0/15", "10.2.0.128/25"], "10.2.1.0/24"),
        (["10.0.0.0/8"], None),
        (["192.168.0.0/16"], "10.0.0.0/24"),
    ],
)
def test_the_first_subnet_that_overlaps_nothing_is_taken(held: list[str], expected: str | None) -> None:
    pool = SubnetPool()
    for subnet in held:
        pool.hold(subnet)
    assert pool.take() == expected


@pytest.mark.parametrize("seed", range(20))
def test_subnets_agree_with_a_plain_search(seed: int) -> None:
    rng = random.Random(seed)
    pools = ["10.0.0.0/22", "10.9.0.0/23"]
    pool = SubnetPool(pools, 26)
    sizes = [(0x0A000000 + rng.randrange(1024), rng.randrange(25, 33)) for _ in range(9)]
    held = [ipaddress.IPv4Network(size, strict=False) for size in sizes]
    for each in held:
        pool.hold(str(each))
    candidates = [part for whole in pools for part in ipaddress.IPv4Network(whole).subnets(new_prefix=26)]
    free = [str(each) for each in candidates if not any(each.overlaps(other) for other in held)]
    assert pool.take() == next(iter(free), None)


def test_auxiliary_addresses_are_given_to_nobody() -> None:
    pool = AddressPool("10.0.9.0/29", reserved=["10.0.9.1", "10.0.9.3"])
    given = []
    while (number := pool.peek()) is not None:
        pool.hold(number)
        given.append(to_text(number))
    assert given == ["10.0.9.2", "10.0.9.4", "10.0.9.5", "10.0.9.6"]


# --- networks --------------------------------------------------------------------------------------------------------


def test_networks_get_the_next_subnet_a_gateway_and_a_vni() -> None:
    first, second = network("a"), network("b")
    world = World(Cluster(id="c"), INGRESS, first, second)
    world.plan()
    subnets = {each.spec.name: ipv4(world.get(each)) for each in (INGRESS, first, second)}
    assert subnets == {
        "ingress": IPAMConfig(subnet="10.0.0.0/24", gateway="10.0.0.1"),
        "a": IPAMConfig(subnet="10.0.1.0/24", gateway="10.0.1.1"),
        "b": IPAMConfig(subnet="10.0.2.0/24", gateway="10.0.2.1"),
    }
    assert [world.get(each).driver_state.options[VXLAN_OPTION] for each in (INGRESS, first, second)] == [
        "4097",
        "4098",
        "4099",
    ]
    assert world.get(first).driver_state.name == "overlay"


def test_the_users_subnet_is_kept_and_nothing_else_overlaps_it() -> None:
    chosen, free = network("chosen", "10.0.0.0/16"), network("free")
    world = World(Cluster(id="c"), chosen, free)
    world.plan()
    assert ipv4(world.get(chosen)) == IPAMConfig(subnet="10.0.0.0/16", gateway="10.0.0.1")
    assert ipv4(world.get(free)) == IPAMConfig(subnet="10.1.0.0/24", gateway="10.1.0.1")


def test_the_clusters_own_pools_are_used_and_may_run_out() -> None:
    first, second = network("a"), network("b")
    world = World(Cluster(id="c", default_addr_pool=["172.30.0.0/24"], subnet_size=24), first, second)
    world.plan()
    assert ipv4(world.get(first)) == IPAMConfig(subnet="172.30.0.0/24", gateway="172.30.0.1")
    assert ipv4(world.get(second)) is None
    web = service("web", "b")
    waiting = task(web)
    world.put(web, waiting)
    world.plan()
    assert world.get(waiting).status.state is TaskState.NEW
    assert "address pools are used up" in world.get(waiting).status.err
    world.drop(world.get(first))
    world.plan()
    assert world.get(waiting).status.state is TaskState.PENDING
    assert world.get(waiting).status.err == ""


def test_no_overlay_covers_the_hosts_own_addresses() -> None:
    world = World(Cluster(id="c"), Node(id="n", status=NodeStatus(addr="10.0.0.9")), INGRESS)
    world.plan()
    assert ipv4(world.get(INGRESS)) == IPAMConfig(subnet="10.0.1.0/24", gateway="10.0.1.1")


def test_a_removed_networks_subnet_is_kept_until_its_last_task_has_ended() -> None:
    old = network("old")
    web = service("web", "old")
    running = task(web)
    world = World(Cluster(id="c"), old, web, running)
    world.plan()
    world.drop(world.get(web))
    world.drop(world.get(old))
    first, second = network("first"), network("second")
    world.put(first)
    world.plan()
    assert ipv4(world.get(first)).subnet == "10.0.1.0/24"
    world.end(running)
    world.put(second)
    world.plan()
    assert ipv4(world.get(second)).subnet == "10.0.0.0/24"


def test_a_network_of_another_driver_has_neither_addresses_nor_vni() -> None:
    host = network("host", driver_configuration=Driver(name="host"))
    web = service("web", "host")
    wanted = task(web)
    world = World(Cluster(id="c"), host, web, wanted)
    world.plan()
    assert world.get(host).driver_state.name == "host"
    assert world.get(wanted).networks_attachments[0].addresses == []
    assert world.get(web).endpoint == Endpoint()


def test_the_gateway_of_a_network_is_no_auxiliary_address() -> None:
    core = AllocatorCore()
    config = IPAMConfig(subnet="10.0.9.0/24", auxiliary_addresses={"router": "10.0.9.1"})
    wanted = Network(id="n", spec=NetworkSpec(name="n", ipam_options=IPAMOptions(configs=[config])))
    assert core._ipam(wanted).configs[0].gateway == "10.0.9.2"
