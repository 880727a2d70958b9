"""One host of the network test bed: a NetworkManager in the network namespace that it is started in.

Reads a line of base64 per command from standard input and answers each with a line on standard output. Without the
socket of an engine, engine networks are made the way an engine does: a bridge with the gateway's address, and firewall
rules that let containers out with the host's address.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec

from swarm_agent.network import NetworkManager, NetworkTables, wireguard
from swarm_agent.network import manager as driver
from swarm_agent.network.state import EngineNetwork


class BridgeMaker:
    """Engine networks without an engine."""

    def __init__(self, path: Path) -> None:
        self._path = path  # an engine knows its networks after a restart of the agent
        self._networks: dict[str, EngineNetwork] = {}
        if path.exists():
            self._networks = msgspec.json.decode(path.read_bytes(), type=dict[str, EngineNetwork])

    async def list(self) -> dict[str, EngineNetwork]:
        return dict(self._networks)

    async def create(self, network: EngineNetwork) -> EngineNetwork:
        prefix = network.subnet.partition("/")[2]
        rules = [f"iptables {rule.format('-A')}" for rule in firewall(network)]
        for command in (
            f"ip link add {network.bridge} mtu {network.mtu} type bridge",
            f"ip addr add {network.gateway}/{prefix} dev {network.bridge}",
            f"ip link set {network.bridge} up",
            *(
                [f"ip addr add {network.gateway6}/{network.subnet6.partition('/')[2]} dev {network.bridge}"]
                if network.subnet6
                else []
            ),
            *rules,
        ):
            await asyncio.to_thread(subprocess.run, command.split(), check=True)
        self._networks[network.network_id] = network
        self._path.write_bytes(msgspec.json.encode(self._networks))
        return replace(network)

    async def remove(self, network: EngineNetwork, force: bool) -> None:
        self._networks.pop(network.network_id, None)
        self._path.write_bytes(msgspec.json.encode(self._networks))
        for rule in firewall(network):
            await asyncio.to_thread(subprocess.run, ["iptables", *rule.format("-D").split()], check=True)
        await asyncio.to_thread(subprocess.run, ["ip", "link", "del", network.bridge], check=True)

    async def close(self) -> None:
        pass


def firewall(network: EngineNetwork) -> list[str]:
    return [
        f"-t nat {{}} POSTROUTING -s {network.subnet} ! -o {network.bridge} -j MASQUERADE",
        f"{{}} FORWARD -i {network.bridge} ! -o {network.bridge} -j ACCEPT",
        f"{{}} FORWARD -o {network.bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ]


async def main(node_id: str, underlay: str, engine_socket: str = "", memory: str = "", balancer: str = "auto") -> None:
    engine = None if engine_socket else BridgeMaker(Path(f"{memory}.networks"))
    manager = NetworkManager(
        node_id=node_id,
        underlay=underlay,
        engine=engine,
        engine_socket=engine_socket,
        memory=Path(memory) if memory else None,
        balancer=balancer,
    )
    await manager.start()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, _, argument = line.strip().partition(" ")
        match command:
            case "update":
                tables = msgspec.msgpack.decode(base64.b64decode(argument), type=NetworkTables)
                applied = await manager.wait_applied(manager.update(tables), 60)
                print("applied" if applied else f"not applied: {'; '.join(manager.failures)}", flush=True)
            case "attach":
                print(await manager.attach(argument), flush=True)
            case "key":
                print(manager.public_key, flush=True)
            case "sealed":
                _, sealed = await asyncio.to_thread(wireguard.observe)
                print(*(key for _, key in sealed), flush=True)
            case "remove":
                await manager.remove_all()
                print("removed", flush=True)
    await manager.stop()


if __name__ == "__main__":
    # On an emulated processor looking every second would be all that three hosts do.
    driver.CHECK_PERIOD *= max(1.0, int(os.environ.get("PATIENCE", "1")) / 4)
    logging.basicConfig(format=f"{sys.argv[1]} %(message)s", level=logging.INFO)
    asyncio.run(main(*sys.argv[1:]))
