"""Stacks that come and go, with their networks, while tasks are still stopping: no address is lost (moby #37338: in
Swarm the ingress network fills up, and tasks stay in state new)."""

from __future__ import annotations

import asyncio
import random

import pytest

from swarm_agent.model.ids import new_id
from swarm_agent.model.objects import Network, Service, Task
from swarm_agent.model.specs import (
    Driver,
    EndpointSpec,
    IPAMConfig,
    IPAMOptions,
    NetworkAttachmentConfig,
    NetworkSpec,
    PortConfig,
)
from tests.sim.orchestration_world import World, world
from tests.sim.virtual_time import run

CYCLES = 15


def network(w: World, name: str, subnet: str, *, ingress: bool = False, subnet6: str = "") -> Network:
    pool = IPAMOptions(configs=[IPAMConfig(subnet=each) for each in (subnet, subnet6) if each])
    driver = Driver(name="overlay")
    return Network(
        id=new_id(w.rng),
        spec=NetworkSpec(
            name=name, ingress=ingress, driver_configuration=driver, ipam_options=pool, ipv6_enabled=bool(subnet6)
        ),
    )


def published(port: int) -> PortConfig:
    return PortConfig(protocol="tcp", target_port=80, published_port=port, publish_mode="ingress")


async def deploy(w: World, number: int) -> tuple[str, list[str]]:
    """A stack of a network, two services that publish and one without a VIP; needs most of the addresses."""
    own = network(w, f"stack{number}_default", "10.99.1.0/28", subnet6="fd00:99::/64" if number % 2 else "")
    await w.store.update(lambda tx: tx.create(own))
    services = [
        await w.create(
            replicas=replicas,
            template={"networks": [NetworkAttachmentConfig(target=own.id)]},
            endpoint_spec=EndpointSpec(mode="vip", ports=[published(port)]),
        )
        for port, replicas in ((8080, 3), (8081, 2))
    ]
    services.append(
        await w.create(
            replicas=1,
            template={"networks": [NetworkAttachmentConfig(target=own.id)]},
            endpoint_spec=EndpointSpec(mode="dnsrr"),
        )
    )
    return own.id, services


def all_run(w: World, services: list[str]) -> bool:
    return [len(w.running(service)) for service in services] == [3, 2, 1]


@pytest.mark.parametrize("seed", range(4))
def test_stacks_that_come_and_go_leak_no_address(seed: int) -> None:
    rng = random.Random(seed)

    async def main() -> None:
        async with world(nodes=2, seed=seed, placing=True) as w:
            # 13 usable addresses on ingress: two of hosts, two VIPs, six tasks.
            await w.store.update(lambda tx: tx.create(network(w, "ingress", "10.99.0.0/28", ingress=True)))
            for number in range(CYCLES):
                own, services = await deploy(w, number)
                if rng.random() < 0.8:
                    await w.until(lambda services=services: all_run(w, services), 60)  # type: ignore[misc]
                else:
                    await asyncio.sleep(rng.random())
                # `docker stack rm`: services, then at once the network, while the tasks still stop.
                for service in services:
                    await w.remove(service)
                await w.store.update(lambda tx, own=own: tx.delete(Network, own))  # type: ignore[misc]
                if rng.random() < 0.3:
                    await w.depose()
                    await asyncio.sleep(rng.choice((0, 1)))
                    await w.lead()
                await asyncio.sleep(rng.choice((0, 0.1, 2)))
            await w.until(lambda: not w.store.view().all(Task), 60)
            assert not w.store.view().all(Service)
            _, services = await deploy(w, CYCLES)
            await w.until(lambda: all_run(w, services), 60)

    run(main())


def test_a_shortage_is_told_once_and_then_the_allocator_rests() -> None:
    """It must not write the reason again and again, whatever the service publishes."""

    async def main() -> None:
        async with world(nodes=1, placing=True) as w:
            await w.store.update(lambda tx: tx.create(network(w, "ingress", "10.99.0.0/29", ingress=True)))
            service = await w.create(replicas=9, endpoint_spec=EndpointSpec(mode="vip", ports=[published(8080)]))

            def told() -> bool:
                return any("could not find an available IP" in task.status.err for task in w.tasks(service))

            for _ in range(20_000):
                await asyncio.sleep(0)
                if told() and len(w.running(service)) > 1:
                    break
            assert told()
            before = len(w.store.view().all(Task)), w.store.view().index
            for _ in range(500):
                await asyncio.sleep(0)
            assert w.store.view().index - before[1] < 60, "the allocator writes on and on"

    run(main())
