"""Questions for names: of our server alone, and through the resolver of the engine, which every container asks.

That resolver opens a socket in the container's namespace for each question that it passes on, so it is measured beside
dnsmasq behind the same resolver: that shows how much of a figure is the engine's. Swarm's names are the engine's own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.labkit import Host

from .services import Record, remove, runs, spec, tasks
from .systems import OURS, Stage, until

CODE = (Path(__file__).parent / "dns.py").read_text()
NETWORK, NAME, PEER_NAME = "askers", "asked", "asked.peer"
THROUGH = "127.0.0.11"  # the engine's resolver, in every container on a network of its own


async def name_questions(stage: Stage, record: Record) -> None:
    """Names per second with 100 questions outstanding, and the median of one after another."""
    here = stage.hosts[1]
    await stage.first.post("/networks/create", {"Name": NETWORK, "Driver": "overlay"})
    for name in ("asker", NAME):
        wanted = spec(name, 1, network=NETWORK)
        wanted["TaskTemplate"]["ContainerSpec"] = {
            "Image": "whoami:latest",
            "Command": ["sleep", "1d"],
            "StopGracePeriod": 0,
        }
        wanted["TaskTemplate"]["Placement"] = {"Constraints": [f"node.hostname=={here.name}"]}
        await stage.first.post("/services/create", wanted)
        await runs(stage, name, 1)
    container = (await tasks(stage, "asker"))[0]["Status"]["ContainerStatus"]["ContainerID"]
    details = await stage.engines[here.name].get(f"/containers/{container}/json")
    await report(record, "through the engine's resolver", here, container, THROUGH, NAME)
    if stage.system is OURS:
        await report(record, "of our server alone", here, container, details["HostConfig"]["Dns"][0], NAME)
    for name in ("asker", NAME):
        await remove(stage, name)

    async def dropped() -> bool:
        await stage.first.delete(f"/networks/{NETWORK}")
        return True

    await until(dropped)
    if shutil.which("dnsmasq"):
        await asyncio.to_thread(beside, stage, record, here)


async def report(record: Record, what: str, host: Host, container: str, address: str, name: str) -> None:
    rate, median = await asyncio.to_thread(ask, host, container, address, name)
    record(f"names per second, {what}", rate)
    record(f"latency of a name, {what}", median)


def ask(host: Host, container: str, address: str, name: str) -> tuple[float, float]:
    """Names per second, and the median latency in microseconds."""
    asking = ("exec", container, "python3", "-c", CODE, "ask", "--json", address, "53", name)
    found = json.loads(host.engine(*asking, timeout=60).out)
    return found["rate"], 1e6 * found["median"]


def beside(stage: Stage, record: Record, host: Host) -> None:
    """dnsmasq on this machine, behind the engine's resolver of a host and asked directly by the same container."""
    machine = stage.lab.machine_address
    with dnsmasq(machine):
        ways = (("through the engine's resolver, dnsmasq behind it", THROUGH), ("of dnsmasq alone", machine))
        host.engine("network create peer")
        run = f"run -d --name peer --network peer --dns {machine} whoami sleep 1d"
        container = host.engine(*run.split()).out
        try:
            for what, address in ways:
                rate, median = ask(host, container, address, PEER_NAME)
                record(f"names per second, {what}", rate)
                record(f"latency of a name, {what}", median)
        finally:
            host.engine("rm -f peer")
            host.engine("network rm peer")


@contextmanager
def dnsmasq(address: str) -> Iterator[None]:
    """It answers one name, from memory."""
    options = ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--port=53", "--user=root"]
    options += [f"--listen-address={address}", "--except-interface=lo", f"--address=/{PEER_NAME}/10.0.1.5"]
    process = subprocess.Popen(["dnsmasq", *options, "--conf-file=/dev/null", "--pid-file="], stderr=subprocess.PIPE)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
