"""The gossip driver alone: packets per second and CPU per packet on loopback.

    python -m tests.bench.gossip_driver [--packets 40000] [--window 32]

A second process sends sealed pings as a member would and waits for the acks, `window` of them under way. Counted is
the CPU of the node's process only: receive, open, check, answer, seal, send. Beside it, in the same run, what a bare
echo on an asyncio datagram transport costs on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "agent")]

from swarm_agent.gossip import GossipNode  # noqa: E402
from swarm_agent.gossip import messages as m  # noqa: E402
from swarm_agent.gossip.seal import SESSION_SIZE, Keyring, Sealer  # noqa: E402

HOST = "127.0.0.1"
KEY = bytes(32)


def ask(port: int, packets: int, window: int, sealed: bool) -> None:
    """The other process: so many questions, `window` under way."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((HOST, 0))
    sock.connect((HOST, port))
    sock.settimeout(0.5)
    if sealed:
        sealer = Sealer(b"bench", Keyring([KEY]), os.urandom(SESSION_SIZE))
        header = m.begin(m.Header("asker", 1, 1, 0, 0))
        alive = m.encode(m.Alive("asker", 1, HOST, sock.getsockname()[1], 1, b""))
        sock.send(sealer.seal(m.pack(header, [alive])))
        questions = [sealer.seal(m.pack(header, [m.encode(m.Ping(n + 1, "node"))])) for n in range(packets)]
    else:
        questions = [bytes(100)] * packets
    sent = answered = 0
    while answered < packets:
        while sent < packets and sent - answered < window:
            sock.send(questions[sent])
            sent += 1
        try:
            sock.recv(65536)
            answered += 1
        except TimeoutError:
            answered = sent  # what is lost is lost


async def measured(port: int, packets: int, window: int, sealed: bool) -> tuple[float, float]:
    """Packets per second, and microseconds of this process's CPU per packet and its answer."""
    command = [sys.executable, __file__, "--ask", str(port), "--packets", str(packets), "--window", str(window)]
    if sealed:
        command.append("--sealed")
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL)
    cpu, start = time.process_time(), time.monotonic()
    await process.wait()
    return packets / (time.monotonic() - start), (time.process_time() - cpu) / packets * 1e6


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)  # type: ignore[attr-defined]


async def run(packets: int, window: int) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, (HOST, 0))
    plain = await measured(transport.get_extra_info("sockname")[1], packets, window, False)
    transport.close()
    node = GossipNode("node", (HOST, 0), (HOST, 0), "bench", [KEY])
    await node.start()
    ours = await measured(node.address[1], packets, window, True)
    stats = node.stats()
    await node.stop()
    answered = stats["packets_received"]
    print(f"{answered} packets received, {stats.get('send_errors', 0)} send errors; load {os.getloadavg()[0]:.1f}\n")
    print("| | packets/s (includes the asker's start) | CPU per packet and answer, µs |\n| --- | --- | --- |")
    print(f"| this: open, act, answer, seal | {ours[0]:.0f} | {ours[1]:.1f} |")
    print(f"| bare echo, asyncio transport | {plain[0]:.0f} | {plain[1]:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packets", type=int, default=40_000)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--ask", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--sealed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        ask(options.ask, options.packets, options.window, options.sealed)
    else:
        asyncio.run(run(options.packets, options.window))


if __name__ == "__main__":
    main()
