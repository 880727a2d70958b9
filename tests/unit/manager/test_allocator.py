"""The allocator: networks get subnets, services ports and VIPs, tasks and nodes addresses; nothing leaks, nothing is
given twice."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from swarm_agent.manager.addresses import AddressPool, NumberPool, SubnetPool, to_text
from swarm_agent.manager.allocation import LINGER, AllocatorCore
from swarm_agent.manager.allocator import Allocator
from swarm_agent.manager.holdings import VXLAN_OPTION, addresses, ipv4
from swarm_agent.manager.ports import port_conflict
from swarm_agent.model.dualstack import dual_stack
from swarm_agent.model.objects import Cluster, Endpoint, Network, Node, NodeStatus, Service, Task, TaskStatus
from swarm_agent.model.specs import (
    Driver,
    EndpointSpec,
    IPAMConfig,
    IPAMOptions,
    NetworkAttachmentConfig,
    NetworkSpec,
    PortConfig,
    ServiceSpec,
    TaskSpec,
)
from swarm_agent.model.states import TaskState
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store
from swarm_agent.store.view import Change

NOW = 1_700_000_000_000_000_000
replace = msgspec.structs.replace
numbers = itertools.count()
INGRESS = Network(id="ing", spec=NetworkSpec(name="ingress", ingress=True))


def network(name: str, subnet: str = "", **spec: Any) -> Network:
    options = IPAMOptions(configs=[IPAMConfig(subnet=subnet)]) if subnet else None
    return Network(id=f"net-{name}", spec=NetworkSpec(name=name, ipam_options=options, **spec))


def dual(name: str, subnet: str, subnet6: str, **config: Any) -> Network:
    """A network with IPv6; `config` is of its IPv6 subnet."""
    options = IPAMOptions(configs=[IPAMConfig(subnet), IPAMConfig(subnet6, **config)])
    return Network(id=f"net-{name}", spec=NetworkSpec(name=name, ipam_options=options, ipv6_enabled=True))


def service(
    name: str, *networks: str, ports: tuple[PortConfig, ...] = (), mode: str = "vip", **changes: Any
) -> Service:
    template = TaskSpec(networks=[NetworkAttachmentConfig(target=f"net-{target}") for target in networks])
    spec = ServiceSpec(name=name, task_template=template, endpoint_spec=EndpointSpec(mode=mode, ports=list(ports)))
    return Service(id=f"svc-{name}", spec=spec, **changes)


def task(of: Service, **changes: Any) -> Task:
    fields = {"id": f"t{next(numbers)}", "service_id": of.id, "spec": of.spec.task_template, **changes}
    return Task(**{"desired_state": TaskState.RUNNING, **fields})


def publish(target: int, published: int = 0, mode: str = "ingress", protocol: str = "tcp") -> PortConfig:
    return PortConfig(protocol=protocol, target_port=target, published_port=published, publish_mode=mode)


class World:
    """A core fed with objects; its decisions count as stored."""

    def __init__(self, *objects: Any) -> None:
        self.core = AllocatorCore()
        self.now = NOW
        self.objects: dict[str, Any] = {}
        self.put(*objects)

    def put(self, *objects: Any) -> None:
        for obj in objects:
            self.core.apply([Change(type(obj), self.objects.get(obj.id), obj)], self.now)
            self.objects[obj.id] = obj

    def drop(self, obj: Any) -> None:
        self.core.apply([Change(type(obj), self.objects.pop(obj.id), None)], self.now)

    def plan(self, limit: int = 5) -> list[Any]:
        decisions: list[Any] = []
        while some := self.step(limit):
            decisions += some
        return decisions

    def step(self, limit: int) -> list[Any]:
        decided: list[Any] = list(self.core.plan(limit, self.now))
        while not decided and self.core.busy:
            decided = list(self.core.plan(limit, self.now))
        self.put(*decided)
        return decided

    def get(self, obj: Any) -> Any:
        return self.objects[obj.id]

    def end(self, of: Task, state: TaskState = TaskState.SHUTDOWN) -> None:
        self.put(replace(self.get(of), status=TaskStatus(state=state)))

    def address(self, of: Task, at: int = 0) -> str:
        return str(self.get(of).networks_attachments[at].addresses[0])

    def vips(self, of: Service) -> list[str]:
        return [vip.addr for vip in self.get(of).endpoint.virtual_ips]


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


# --- services and ports ----------------------------------------------------------------------------------------------


def test_a_service_without_ports_and_networks_has_an_empty_endpoint_and_its_task_may_be_scheduled() -> None:
    web = service("web")
    wanted = task(web)
    world = World(web, wanted)
    assert [type(each) for each in world.plan()] == [Task]
    assert world.get(wanted).status.state is TaskState.PENDING
    assert world.get(wanted).status.message == "pending task scheduling"
    assert world.get(wanted).endpoint is None


def test_a_service_has_one_vip_on_each_network_and_on_ingress_when_it_publishes() -> None:
    net = network("front")
    web = service("web", "front", ports=(publish(80, 8080),))
    wanted = task(web)
    world = World(Cluster(id="c"), INGRESS, net, web, wanted)
    world.plan()
    assert [vip.network_id for vip in world.get(web).endpoint.virtual_ips] == ["ing", "net-front"]
    assert world.vips(web) == ["10.0.0.2/24", "10.0.1.2/24"]
    got = world.get(wanted)
    assert [(each.network.id, each.addresses) for each in got.networks_attachments] == [
        ("ing", ["10.0.0.3/24"]),
        ("net-front", ["10.0.1.3/24"]),
    ]
    assert got.networks_attachments[1].network == world.get(net)
    assert got.endpoint == world.get(web).endpoint


def test_dnsrr_has_no_vip() -> None:
    net = network("front")
    web = service("web", "front", mode="dnsrr")
    wanted = task(web)
    world = World(Cluster(id="c"), net, web, wanted)
    world.plan()
    assert world.vips(web) == []
    assert world.address(wanted) == "10.0.0.2/24"


def test_ports_are_chosen_from_30000_by_protocol_and_survive_an_update() -> None:
    taken = service("taken", ports=(publish(80, 30001),))
    web = service("web", ports=(publish(80), publish(81), publish(53, protocol="udp"), publish(90, mode="host")))
    world = World(Cluster(id="c"), INGRESS, taken, web)
    world.plan()
    endpoint = world.get(web).endpoint
    assert [(port.protocol, port.target_port, port.published_port) for port in endpoint.ports] == [
        ("tcp", 80, 30000),
        ("tcp", 81, 30002),
        ("udp", 53, 30000),
        ("tcp", 90, 0),
    ]
    assert [port.published_port for port in endpoint.spec.ports] == [0, 0, 0, 0]
    vips = world.vips(web)
    spec = EndpointSpec(mode="vip", ports=[publish(443), publish(81)])
    world.put(replace(world.get(web), spec=replace(world.get(web).spec, endpoint_spec=spec)))
    world.plan()
    chosen = {port.target_port: port.published_port for port in world.get(web).endpoint.ports}
    assert chosen[81] == 30002
    assert chosen[443] not in (30001, 30002)
    assert world.vips(web) == vips


def test_removing_a_service_frees_its_ports_at_once_but_its_vip_only_after_its_tasks() -> None:
    web = service("web", ports=(publish(80),))
    running = task(web)
    world = World(Cluster(id="c"), INGRESS, web, running)
    world.plan()
    (vip,) = world.vips(web)
    world.drop(world.get(web))
    assert world.core._holdings.ports.choose("tcp", ()) == 30000
    pool = world.core._holdings.pool("ing")
    assert pool is not None
    assert pool.is_held(int(ipaddress.IPv4Interface(vip).ip))
    world.end(running)
    assert not pool.is_held(int(ipaddress.IPv4Interface(vip).ip))


def test_two_services_on_one_port_the_later_waits_and_says_why() -> None:
    first = service("first", ports=(publish(80, 8080),), created_at="2024-01-01T00:00:00Z")
    second = service("second", ports=(publish(80, 8080),), created_at="2024-01-02T00:00:00Z")
    waiting = task(second)
    world = World(Cluster(id="c"), INGRESS, second, first, waiting)
    world.plan()
    assert (
        world.get(waiting).status.err
        == "port '8080' is already in use by service 'first' (svc-first) as an ingress port"
    )
    world.drop(world.get(first))
    world.plan()
    assert world.get(waiting).status.state is TaskState.PENDING


def bound(name: str, addresses: str, port: int = 8080) -> Service:
    declared = service(name, ports=(publish(80, port),))
    labels = {"swarm.publish.addresses": addresses} if addresses else {}
    return replace(declared, spec=replace(declared.spec, labels=labels))


@pytest.mark.parametrize(
    ("one", "two", "share"),
    [
        ("10.0.0.5", "10.0.0.6", True),
        ("10.0.0.5, 10.0.1.0/24", "10.0.0.6, 10.0.2.0/24", True),
        ("10.0.0.5", "10.0.0.0/24", False),
        ("10.0.0.5", "", False),
        ("", "10.0.0.5", False),
    ],
)
async def test_services_bound_to_different_addresses_may_share_a_port(one: str, two: str, share: bool) -> None:
    first, second = bound("one", one), bound("two", two)
    world = World(Cluster(id="c"), INGRESS, first, second)
    world.plan()
    given = [[port.published_port for port in world.get(each).endpoint.ports] for each in (first, second)]
    assert given == ([[8080], [8080]] if share else [[8080], []])
    store = memory_store()
    await store.update(lambda tx: tx.create(first))
    assert (port_conflict(store.view(), second.spec) is None) == share


def test_a_service_that_gives_up_addresses_of_its_port_lets_another_have_them() -> None:
    first, second = bound("one", ""), bound("two", "10.0.0.6")
    world = World(Cluster(id="c"), INGRESS, first, second)
    world.plan()
    assert world.get(second).endpoint.ports == []
    world.put(replace(world.get(first), spec=bound("one", "10.0.0.5").spec))
    world.plan()
    assert [port.published_port for port in world.get(second).endpoint.ports] == [8080]


def test_without_an_ingress_network_publishing_waits() -> None:
    web = service("web", ports=(publish(80, 8080),))
    waiting = task(web)
    world = World(Cluster(id="c"), web, waiting)
    world.plan()
    assert world.get(waiting).status.err == "service needs ingress network, but no ingress network is present"
    world.put(INGRESS)
    world.plan()
    assert world.get(waiting).status.state is TaskState.PENDING


@pytest.mark.parametrize(
    ("mine", "theirs", "how"),
    [
        (publish(80, 8080), publish(81, 8080), "an ingress port"),
        (publish(80, 8080), publish(81, 8080, mode="host"), "a host-published port"),
        (publish(80, 8080, mode="host"), publish(81, 8080), "an ingress port"),
        (publish(80, 8080, mode="host"), publish(81, 8080, mode="host"), None),
        (publish(80, 8080), publish(81, 8080, protocol="udp"), None),
        (publish(80, 8080), publish(81, 8081), None),
        (publish(80), publish(81, 8080), None),
    ],
)
async def test_port_conflicts_are_worded_as_swarm_does(mine: PortConfig, theirs: PortConfig, how: str | None) -> None:
    store = memory_store()
    other = service("db", ports=(theirs,))
    await store.update(lambda tx: tx.create(other))
    spec = service("web", ports=(mine,)).spec
    expected = f"port '8080' is already in use by service 'db' (svc-db) as {how}" if how else None
    assert port_conflict(store.view(), spec) == expected
    assert port_conflict(store.view(), spec, service_id="svc-db") is None


# --- tasks and nodes -------------------------------------------------------------------------------------------------


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


# --- the loop on the store -------------------------------------------------------------------------------------------


async def until(store: Store, condition: Any) -> None:
    """Return when the condition holds for the store's view; it is tried after each change."""
    changed = asyncio.Event()
    unsubscribe = store.subscribe(lambda _: changed.set())
    async with asyncio.timeout(10):
        while not condition(store.view()):
            changed.clear()
            await changed.wait()
    unsubscribe()


async def test_a_published_service_created_in_the_store_is_ready_for_scheduling() -> None:
    store = memory_store()
    allocator = Allocator(store)
    await allocator.start()
    await store.update(lambda tx: [tx.create(Cluster(id="c")), tx.create(INGRESS), tx.create(Node(id="n"))])
    web = service("web", ports=(publish(80),))
    tasks = [task(web) for _ in range(20)]
    await store.update(lambda tx: [tx.create(each) for each in (web, *tasks)])
    await until(store, lambda view: all(each.status.state is TaskState.PENDING for each in view.all(Task)))
    view = store.view()
    stored = view.get(Service, web.id)
    assert stored.endpoint.ports[0].published_port == 30000
    assert all(each.endpoint == stored.endpoint for each in view.all(Task))
    found = [each.networks_attachments[0].addresses[0] for each in view.all(Task)]
    assert len({*found, stored.endpoint.virtual_ips[0].addr, view.get(Node, "n").attachments["ing"]}) == 22
    await allocator.stop()
    await store.close()


def test_auxiliary_addresses_are_given_to_nobody() -> None:
    pool = AddressPool("10.0.9.0/29", reserved=["10.0.9.1", "10.0.9.3"])
    given = []
    while (number := pool.peek()) is not None:
        pool.hold(number)
        given.append(to_text(number))
    assert given == ["10.0.9.2", "10.0.9.4", "10.0.9.5", "10.0.9.6"]


def test_the_gateway_of_a_network_is_no_auxiliary_address() -> None:
    core = AllocatorCore()
    config = IPAMConfig(subnet="10.0.9.0/24", auxiliary_addresses={"router": "10.0.9.1"})
    wanted = Network(id="n", spec=NetworkSpec(name="n", ipam_options=IPAMOptions(configs=[config])))
    assert core._ipam(wanted).configs[0].gateway == "10.0.9.2"


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
