"""The allocator's addresses of tasks and nodes, in both families: nothing leaks, nothing is given twice."""

from __future__ import annotations

import ipaddress
import random
from collections import Counter
from typing import Any

import pytest

from swarm_agent.manager.allocation import LINGER, AllocatorCore
from swarm_agent.manager.holdings import addresses
from swarm_agent.model.dualstack import dual_stack
from swarm_agent.model.objects import Cluster, Node, Service, Task, TaskStatus
from swarm_agent.model.states import TaskState
from tests.unit.manager.allocator_world import (
    INGRESS,
    NOW,
    World,
    dual,
    network,
    numbers,
    publish,
    replace,
    service,
    task,
)

# --- tasks and nodes -------------------------------------------------------------------------------------------------


def test_a_task_gets_the_address_that_it_wants_or_none() -> None:
    net = network("front", "10.5.0.0/24")
    web = service("web", "front", mode="dnsrr")
    wants = [
        task(web, wanted_address=wanted) for wanted in ("10.5.0.77", "10.5.0.77", "10.9.0.1", "10.5.0.1", "10.5.0.254")
    ]
    world = World(net, web, *wants, task(web))
    world.plan()
    assert world.get(wants[0]).networks_attachments[0].addresses == ["10.5.0.77/24"]
    why = [world.get(each).status.err.partition(": ")[2] for each in wants[1:]]
    assert why == ["it is in use", "the network has no such address to give", "it is in use", why[1]]
    assert world.get(wants[2]).status.err.startswith("cannot have address 10.9.0.1 on network front: ")
    world.drop(wants[0])
    world.plan()
    assert world.get(wants[1]).networks_attachments[0].addresses == ["10.5.0.77/24"]


def test_a_task_keeps_its_address_until_it_is_seen_to_have_ended() -> None:
    net = network("tiny", "10.5.0.0/29")
    web = service("web", "tiny", mode="dnsrr")
    tasks = [task(web) for _ in range(6)]
    world = World(net, web, *tasks)
    world.plan()
    assert [world.get(each).status.state for each in tasks] == [TaskState.PENDING] * 5 + [TaskState.NEW]
    assert "could not find an available IP" in world.get(tasks[5]).status.err
    world.put(replace(world.get(tasks[1]), desired_state=TaskState.SHUTDOWN))
    world.plan()
    assert world.get(tasks[5]).status.state is TaskState.NEW
    world.end(tasks[1])
    world.plan()
    assert world.address(tasks[5]) == "10.5.0.3/29"
    assert world.get(tasks[5]).status.err == ""


def test_a_task_that_will_never_run_gets_nothing() -> None:
    net, web = network("a"), service("web", "a")
    stopped = task(web, desired_state=TaskState.SHUTDOWN)
    world = World(Cluster(id="c"), net, web, stopped)
    world.plan()
    assert world.get(stopped) == stopped


def test_every_node_gets_an_address_on_ingress_and_on_networks_of_its_tasks() -> None:
    net = network("front")
    web = service("web", "front")
    nodes = [Node(id="n1"), Node(id="n2")]
    placed = task(web)
    world = World(Cluster(id="c"), INGRESS, net, web, *nodes, placed)
    world.plan()
    assert world.get(nodes[0]).attachments == {"ing": "10.0.0.2/24"}
    assert world.get(nodes[1]).attachments == {"ing": "10.0.0.3/24"}
    world.put(replace(world.get(placed), node_id="n2", status=TaskStatus(state=TaskState.ASSIGNED)))
    world.plan()
    assert world.get(nodes[0]).attachments == {"ing": "10.0.0.2/24"}
    assert world.get(nodes[1]).attachments == {"ing": "10.0.0.3/24", "net-front": "10.0.1.4/24"}


def test_a_node_gives_an_unused_address_back_after_a_while() -> None:
    net = network("front")
    web = service("web", "front")
    first, second = task(web, node_id="n"), task(web, node_id="n")
    world = World(Cluster(id="c"), net, web, Node(id="n"), first)
    world.plan()
    (address,) = world.get(Node(id="n")).attachments.values()
    world.end(first)
    world.plan()
    assert world.core.wake_at == NOW + LINGER
    world.now += LINGER // 2
    world.put(second)
    world.plan()
    assert world.core.wake_at is None
    world.end(second)
    world.plan()
    assert world.get(Node(id="n")).attachments == {"net-front": address}
    world.now += LINGER
    world.plan()
    assert world.get(Node(id="n")).attachments == {}
    assert world.core.wake_at is None


def test_unused_addresses_of_nodes_are_given_back_at_once_when_needed() -> None:
    net = network("tiny", "10.5.0.0/29")
    web = service("web", "tiny", mode="dnsrr")
    gone = task(web, node_id="n")
    world = World(net, web, Node(id="n"), gone)
    world.plan()
    world.end(gone)
    tasks = [task(web) for _ in range(5)]
    world.put(*tasks)
    world.plan()
    assert all(world.get(each).status.state is TaskState.PENDING for each in tasks)
    assert world.get(Node(id="n")).attachments == {}


def test_a_removed_network_leaves_no_address_on_nodes() -> None:
    net, web = network("front"), service("web", "front")
    placed = task(web, node_id="n")
    world = World(Cluster(id="c"), net, web, Node(id="n"), placed)
    world.plan()
    world.end(placed)
    world.drop(world.get(web))
    world.drop(world.get(net))
    world.plan()
    assert world.get(Node(id="n")).attachments == {}


def test_refused_decisions_hold_nothing() -> None:
    net, web = network("tiny", "10.5.0.0/30"), service("web", "tiny", mode="dnsrr")
    only = task(web)
    world = World(net, web)
    world.plan()
    world.put(only)
    refused = list(world.core.plan(10, NOW))
    world.core.settle(refused, lambda kind, id_: None)
    other = task(web)
    world.put(other)
    world.plan()
    assert world.address(other) == "10.5.0.2/30"


def test_a_network_whose_allocation_was_refused_gives_addresses_of_its_later_subnet() -> None:
    net, web = network("front"), service("web", "front", mode="dnsrr")
    world = World(Cluster(id="c"), net)
    refused = list(world.core.plan(10, NOW))
    world.put(network("taker", "10.0.0.0/24"))
    world.core.settle(refused, lambda kind, id_: net)
    placed = task(web)
    world.put(web, placed)
    world.plan()
    assert world.address(placed) == "10.0.1.2/24"


def test_what_is_to_be_given_up_is_not_free_before_that_is_stored() -> None:
    net = network("tiny", "10.5.0.0/30")
    one = service("one", "tiny")
    world = World(Cluster(id="c"), net, one)
    world.plan()
    without = replace(world.get(one), spec=service("one").spec)
    two = service("two", "tiny")
    world.put(without, two)
    (decision,) = world.core.plan(10, NOW)
    assert decision.endpoint.virtual_ips == []
    world.core.settle([decision], lambda kind, id_: without)
    assert [each.id for each in world.step(1)] == ["svc-one"]
    world.plan()
    assert world.vips(two) == ["10.5.0.2/30"]


def check_no_double(objects: dict[str, Any]) -> None:
    """Each address has one owner: a task, a node, or a service (with its tasks)."""
    owners: Counter[tuple[str, int]] = Counter()
    vips = {}
    for obj in objects.values():
        if isinstance(obj, Task) and not obj.status.state.is_terminal:
            for vip in obj.endpoint.virtual_ips if obj.endpoint else []:
                vips[vip.network_id, vip.addr] = obj.service_id
            owners.update(addresses(replace(obj, endpoint=None)))
        elif isinstance(obj, Node | Service):
            owners.update(addresses(obj))
    assert not [key for key, count in owners.items() if count > 1]
    check_beside(objects)
    for obj in objects.values():
        for vip in obj.endpoint.virtual_ips if isinstance(obj, Service) else []:
            assert vips.get((vip.network_id, vip.addr), obj.id) == obj.id


def check_beside(objects: dict[str, Any]) -> None:
    """On networks with IPv6, and only there, an address of each family is given, with one number."""
    for obj in objects.values():
        places = (
            [(each.network.id, each.addresses) for each in obj.networks_attachments] if isinstance(obj, Task) else []
        )
        if isinstance(obj, Service):
            for network_id in {vip.network_id for vip in obj.endpoint.virtual_ips}:
                places.append(
                    (network_id, [vip.addr for vip in obj.endpoint.virtual_ips if vip.network_id == network_id])
                )
        for network_id, given in places:
            stack = dual_stack(objects[network_id])
            assert [":" in each for each in given] == ([False] if stack is None else [False, True])
            if stack is not None:
                assert stack.back(given[1]) == given[0].partition("/")[0]
                assert ipaddress.ip_interface(given[1]).network == ipaddress.ip_network(stack.subnet6)


@pytest.mark.parametrize("seed", range(30))
def test_any_history_gives_no_address_twice_and_a_new_leader_sees_the_same(seed: int) -> None:
    rng = random.Random(seed)
    world = World(
        Cluster(id="c"),
        INGRESS,
        dual("a", "10.7.0.0/28", "fd00:7::/64") if seed % 2 else network("a", "10.7.0.0/28"),
        network("b", ipv6_enabled=seed % 3 == 0),
        *(Node(id=f"n{i}") for i in range(3)),
    )
    world.plan()
    for _ in range(150):
        services = [each for each in world.objects.values() if isinstance(each, Service)]
        tasks = [each for each in world.objects.values() if isinstance(each, Task)]
        action = rng.randrange(8)
        if action == 0 and len(services) < 5:
            ports = (publish(80),) if rng.random() < 0.5 else ()
            world.put(service(str(next(numbers)), *rng.sample("ab", rng.randrange(3)), ports=ports))
        elif action == 1 and services and rng.random() < 0.3:
            world.drop(rng.choice(services))
        elif action in (2, 3) and services:
            world.put(task(rng.choice(services)))
        elif action == 4 and tasks:
            chosen = rng.choice(tasks)
            if chosen.status.state is TaskState.PENDING:
                world.put(replace(chosen, node_id=f"n{rng.randrange(3)}", status=TaskStatus(state=TaskState.ASSIGNED)))
        elif action == 5 and tasks:
            world.end(rng.choice(tasks), TaskState.FAILED)
        elif action == 6 and tasks:
            world.drop(rng.choice(tasks))
        else:
            world.now += LINGER // 3
        if rng.random() < 0.8:
            world.step(rng.randrange(1, 9))
        check_no_double(world.objects)
        if rng.random() < 0.1:
            world.core = AllocatorCore()
            world.core.load(world.objects.values(), world.now)
    world.plan()
    check_no_double(world.objects)
    for each in [each for each in world.objects.values() if isinstance(each, Task | Service)]:
        world.drop(each)
    world.now += 2 * LINGER
    world.plan()
    world.now += 2 * LINGER
    world.plan()
    for network_id in ("ing", "net-a", "net-b"):
        pool = world.core._holdings.pool(network_id)
        assert pool is not None
        held = {number for number in range(pool.first, pool.last + 1) if pool.is_held(number)}
        expected = {
            number for node in ("n0", "n1", "n2") for net, number in addresses(world.objects[node]) if net == network_id
        }
        assert held - expected == {pool.first}, "only the gateway is left"
        assert len(expected) == (3 if network_id == "ing" else 0)


# --- IPv6 ------------------------------------------------------------------------------------------------------------


def test_a_network_with_ipv6_gives_addresses_with_one_number_in_both_families() -> None:
    world, web = World(dual("a", "10.9.0.0/24", "fd00:9::/64")), service("web", "a")
    one = task(web)
    world.put(web, one)
    world.plan()
    assert [config.gateway for config in world.objects["net-a"].ipam_options.configs] == ["10.9.0.1", "fd00:9::1"]
    assert world.vips(web) == ["10.9.0.2/24", "fd00:9::2/64"]
    assert world.get(one).networks_attachments[0].addresses == ["10.9.0.3/24", "fd00:9::3/64"]
    world.put(replace(web, spec=replace(web.spec, name="renamed"), endpoint=world.get(web).endpoint))
    world.plan()
    assert world.vips(web) == ["10.9.0.2/24", "fd00:9::2/64"], "a change leaves both as they are"


def test_ipv6_without_a_subnet_gets_a_unique_local_one_that_follows_from_the_network() -> None:
    world = World(network("a", ipv6_enabled=True), network("b", ipv6_enabled=True))
    world.plan()
    first, second = (dual_stack(world.objects[name]) for name in ("net-a", "net-b"))
    assert first and second and first.subnet6 != second.subnet6
    assert all(
        ipaddress.ip_network(each.subnet6).subnet_of(ipaddress.IPv6Network("fd00::/8")) for each in (first, second)
    )


def test_what_the_user_keeps_of_ipv6_is_given_to_nobody() -> None:
    kept = {"gateway": "fd00:9::3", "auxiliary_addresses": {"router": "fd00:9::2", "far": "fd00:9::ffff"}}
    world, web = World(dual("a", "10.9.0.0/24", "fd00:9::/64", **kept)), service("web", "a")
    world.put(web)
    world.plan()
    assert world.vips(web) == ["10.9.0.4/24", "fd00:9::4/64"]
