"""How long planning and applying take for many services, and what a change of one task costs.

    ip netns add scale
    ip netns exec scale python tests/bench/network_scale.py [SERVICES] [TASKS] [BALANCER]
    ip netns del scale

Everything is real but the packets: one network, `SERVICES` services with a VIP and a published port, tasks on three
hosts.
"""

from __future__ import annotations

import asyncio
import ipaddress
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "agent"), str(Path(__file__).parents[1] / "lab")]

from network_host import BridgeMaker  # noqa: E402

from swarm_agent.model.addresses import mac_of  # noqa: E402
from swarm_agent.model.objects import Network, NetworkDriverState  # noqa: E402
from swarm_agent.model.rows import AddressRow, EndpointRow, PortRow  # noqa: E402
from swarm_agent.model.specs import NetworkSpec  # noqa: E402
from swarm_agent.network import NetworkManager, NetworkTables  # noqa: E402
from swarm_agent.network.choice import choose  # noqa: E402
from swarm_agent.network.plan import plan  # noqa: E402
from swarm_agent.network.tables import VNI_OPTION, HostFacts  # noqa: E402

HOSTS = {"n1": "10.99.0.1", "n2": "10.99.0.2", "n3": "10.99.0.3"}
NETWORK = Network(
    id="ingress",
    spec=NetworkSpec(name="ingress", ingress=True),
    driver_state=NetworkDriverState("overlay", {VNI_OPTION: "4097"}),
)


def address(number: int) -> str:
    return str(ipaddress.IPv4Address("10.0.0.0") + number)


def tables(services: int, tasks: int) -> NetworkTables:
    rows = []
    for service in range(services):
        vip = address(50000 + service)
        for task in range(tasks):
            number = 100 + service * tasks + task
            place = AddressRow("ingress", address(number), mac_of(address(number)), vip)
            port = PortRow("tcp", 80, 30000 + service, "ingress")
            name = f"s{service}"
            row = EndpointRow(f"t{number}", name, name, task, "c", (place,), (port,))
            rows.append((f"n{number % 3 + 1}", row))
    return NetworkTables([NETWORK], {"ingress": "10.0.0.2/16"}, HOSTS, rows)


def timed(label: str, started: float) -> float:
    now = time.perf_counter()
    print(f"{label:44} {(now - started) * 1000:9.1f} ms", flush=True)
    return now


async def main(services: int = 1000, tasks: int = 10, balancer: str = "auto") -> None:
    for command in (
        "ip link set lo up",
        "ip link add under0 type bridge",
        "ip addr add 10.99.0.1/24 dev under0",
        "ip link set under0 up",
    ):
        await asyncio.to_thread(subprocess.run, command.split(), check=True)
    full = tables(services, tasks)
    facts = HostFacts("n1", "10.99.0.1")
    started = time.perf_counter()
    balancing, reason = choose(balancer)
    print(f"balancer {balancing.name}: {reason}")
    state = plan(full, facts, balancing).state
    started = timed(f"plan, {services} services x {tasks} tasks", started)
    plan(full, facts, balancing)
    timed("plan again", started)
    print(
        f"rules {sum(map(len, state.chains.values()))}, IPVS services {len(state.services)}, destinations "
        f"{len(state.destinations)}, forwarding entries {len(state.fdb)}, routes {len(state.routes)}"
    )

    manager = NetworkManager(
        node_id="n1",
        underlay="10.99.0.1",
        balancer=balancing.name,
        engine=BridgeMaker(Path(tempfile.mkdtemp()) / "networks"),
    )
    await manager.start()
    started = time.perf_counter()
    assert await manager.wait_applied(manager.update(full), 300), manager.failures
    timed("first apply", started)
    fewer = NetworkTables([NETWORK], full.own, HOSTS, full.endpoints[:-1])
    for label, change in (("one task less", fewer), ("one task more", full), ("nothing changed", full)):
        started = time.perf_counter()
        assert await manager.wait_applied(manager.update(change), 60), manager.failures
        timed(label, started)
    manager.check_now()
    started = time.perf_counter()
    assert await manager.wait_applied(manager.update(full), 60), manager.failures
    timed("look at everything", started)
    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(6)
    used = (time.process_time() - cpu) / (time.perf_counter() - started)
    print(f"processor while nothing happens {used * 100:.1f} %")
    started = time.perf_counter()
    await manager.remove_all()
    timed("remove all", started)
    await manager.stop()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:3]), *sys.argv[3:]))
