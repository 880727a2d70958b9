"""The allocator's endpoints of services: VIPs and published ports, and which services may share a port."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest

from swarm_agent.manager.allocator import Allocator
from swarm_agent.manager.ports import port_conflict
from swarm_agent.model.objects import Cluster, Node, Service, Task
from swarm_agent.model.specs import EndpointSpec, PortConfig
from swarm_agent.model.states import TaskState
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store
from tests.unit.manager.allocator_world import INGRESS, World, network, publish, replace, service, task

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


def test_ports_are_chosen_up_to_32767_and_then_waited_for() -> None:
    all_but_last = service("most", ports=tuple(publish(80, number) for number in range(30000, 32767)))
    first, second = (service(name, ports=(publish(80),)) for name in ("first", "second"))
    other = service("other", ports=(publish(80, protocol="udp"),))
    waiting = task(second)
    world = World(Cluster(id="c"), INGRESS, all_but_last, first)
    world.plan()
    world.put(second, other, waiting)
    world.plan()
    chosen = [port.published_port for each in (first, other) for port in world.get(each).endpoint.ports]
    assert chosen == [32767, 30000]
    status = world.get(waiting).status
    assert (status.state, status.err) == (TaskState.NEW, "no port between 30000 and 32767 is free")
    world.drop(world.get(first))
    world.plan()
    assert world.get(second).endpoint.ports[0].published_port == 32767
    assert world.get(waiting).status.state is TaskState.PENDING


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
