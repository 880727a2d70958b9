"""How fast packets travel: host to host, task to task over an overlay, through a VIP and through the mesh.

A client on host2 and a server on host3; for the mesh host1, which has no task, is the entry, so a packet takes two hops
more than on the overlay, as it does in Swarm. All are measured in turn, again and again, and the medians told: other
work on the machine then burdens each alike. Swarm has no VIP and no mesh on a kernel without IPVS, as the lab's may be.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from pathlib import Path

from tests.lab.labkit import Host

from .services import remove, runs, spec, tasks
from .systems import OURS, Stage, until

CODE = (Path(__file__).parent / "speed.py").read_text()
PORT, PUBLISHED = 9000, 9100
TURNS = 3
SECONDS = "1"
MEASURES = {"stream": "throughput", "connect": "connects per second", "latency": "latency"}
NETWORK = "speed"

Record = Callable[[str, float], None]


async def throughput(stage: Stage, record: Record) -> None:
    entry, here, there = stage.hosts
    await stage.first.post("/networks/create", {"Name": NETWORK, "Driver": "overlay"})
    ports = [{"Protocol": "tcp", "TargetPort": PORT, "PublishedPort": PUBLISHED, "PublishMode": "ingress"}]
    for name, host, command, published in (
        ("client", here, ["sleep", "1d"], []),
        ("server", there, ["python3", "-c", CODE, "serve", str(PORT)], ports if stage.system is OURS else []),
    ):
        wanted = spec(name, 1, network=NETWORK, EndpointSpec={"Mode": "vip", "Ports": published})
        wanted["TaskTemplate"]["ContainerSpec"] = {
            "Image": "whoami:latest",
            "Command": command,
            "StopGracePeriod": 0,
        }
        wanted["TaskTemplate"]["Placement"] = {"Constraints": [f"node.hostname=={host.name}"]}
        await stage.first.post("/services/create", wanted)
        await runs(stage, name, 1)
    server = await asyncio.to_thread(start_on_host, there)
    try:
        ways = await the_ways(stage, entry, here, there)
        found: dict[str, list[float]] = {}
        for _ in range(TURNS):
            for verb in MEASURES:
                for way, (run, address, port) in ways.items():
                    answer = await asyncio.to_thread(run, verb, address, str(port), SECONDS)
                    found.setdefault(f"{MEASURES[verb]}, {way}", []).append(float(answer))
        for case, values in found.items():
            record(case, statistics.median(values))
    finally:
        await asyncio.to_thread(there.exec, f"kill {server}")
    await remove(stage, "client")
    await remove(stage, "server")

    async def dropped() -> bool:
        await stage.first.delete(f"/networks/{NETWORK}")
        return True

    await until(dropped)


def start_on_host(host: Host) -> str:
    """The server on a host itself; its process id."""
    script = (
        f'python3 -c "$1" serve {PORT + 1} > /tmp/speed.log 2>&1 & echo $!; '
        "until grep -q ready /tmp/speed.log; do sleep 0.05; done"
    )
    return host.exec("sh", "-c", script, "sh", CODE, timeout=20).lines[0]


async def the_ways(
    stage: Stage, entry: Host, here: Host, there: Host
) -> dict[str, tuple[Callable[..., str], str, int]]:
    """By name: who asks, and what it asks."""
    ids = {
        name: (await tasks(stage, name))[0]["Status"]["ContainerStatus"]["ContainerID"] for name in ("client", "server")
    }
    details = await stage.engines[there.name].get(f"/containers/{ids['server']}/json")
    address = details["NetworkSettings"]["Networks"][NETWORK]["IPAddress"]

    def inside(*arguments: str) -> str:
        return here.engine("exec", ids["client"], "python3", "-c", CODE, *arguments, timeout=60).out

    def on_host(*arguments: str) -> str:
        return here.exec("python3", "-c", CODE, *arguments, timeout=60).out

    ways: dict[str, tuple[Callable[..., str], str, int]] = {
        "host to host": (on_host, there.address, PORT + 1),
        "task to task on another host": (inside, address, PORT),
    }
    if stage.system is OURS:
        service = await stage.first.get("/services/server")
        [network] = [
            one["ID"] if "ID" in one else one["Id"]
            for one in await stage.first.get("/networks")
            if one["Name"] == NETWORK
        ]
        [vip] = [one["Addr"] for one in service["Endpoint"]["VirtualIPs"] if one["NetworkID"] == network]
        ways["task to VIP, on another host"] = (inside, vip.partition("/")[0], PORT)
        ways["through the mesh, by a third host"] = (on_host, entry.address, PUBLISHED)
    return ways
