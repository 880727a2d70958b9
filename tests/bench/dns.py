#!/usr/bin/env python3
"""Questions per second and latency of name servers: ours, the engine's resolver before it, dnsmasq.

    tests/bench/dns.py ask ADDRESS PORT NAME     measure a server that runs (needs only Python: also in a container)
    tests/bench/dns.py serve PORT                our server on 127.0.0.1 with one service, to be asked so

One line each: with 100 questions outstanding, and one at a time. In a task's container ask 127.0.0.11 for the way that
programs go, and the host's address on the network (the container's --dns) for our server without the engine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import select
import socket
import statistics
import time

SECONDS = 3.0
OUTSTANDING = 100


def question(name: str, number: int) -> bytes:
    """An A question with the id `number`."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return number.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"


def answered(packet: bytes) -> bool:
    """Whether it is an answer with at least one record."""
    return packet[3] & 15 == 0 and packet[6:8] != b"\0\0"


def flood(asker: socket.socket, name: str) -> float:
    """Answers per second with OUTSTANDING questions under way; a lost one is replaced after 0.1 s of silence."""
    packets = [question(name, number) for number in range(OUTSTANDING)]
    count, end = 0, time.perf_counter() + SECONDS
    asker.setblocking(False)
    for packet in packets:
        asker.send(packet)
    while time.perf_counter() < end:
        if not select.select([asker], [], [], 0.1)[0]:
            for packet in packets:
                asker.send(packet)
        try:
            while True:
                answer = asker.recv(2048)
                count += answered(answer)
                asker.send(packets[answer[1]])
        except BlockingIOError:
            pass
    return count / SECONDS


def one_by_one(asker: socket.socket, name: str) -> list[float]:
    """Latencies in seconds, sorted."""
    asker.setblocking(True)
    asker.settimeout(2)
    found, end, number = [], time.perf_counter() + SECONDS, 1000
    while time.perf_counter() < end:
        number = 1000 + (number + 1) % 50000
        began = time.perf_counter()
        asker.send(question(name, number))
        while asker.recv(2048)[:2] != number.to_bytes(2, "big"):
            pass
        found.append(time.perf_counter() - began)
    return sorted(found)


def measure(address: str, port: int, name: str, as_json: bool) -> None:
    """Print both figures of a server, for people or as JSON (names per second; seconds)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect((address, port))
        rate = flood(asker, name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect((address, port))
        times = one_by_one(asker, name)
    p99 = times[len(times) * 99 // 100]
    if as_json:
        print(json.dumps({"rate": rate, "median": statistics.median(times), "p99": p99}))
        return
    print(
        f"{address}:{port} {name}: {rate:,.0f} q/s with {OUTSTANDING} outstanding; one at a time "
        f"median {statistics.median(times) * 1e3:.3f} ms, p99 {p99 * 1e3:.3f} ms"
    )


async def serve(port: int) -> None:
    """Our server, until interrupted: web.net is one address, tasks.web.net are ten."""
    from swarm_agent.dns.service import DnsService
    from swarm_agent.model.objects import Network
    from swarm_agent.model.rows import AddressRow, EndpointRow
    from swarm_agent.model.specs import NetworkSpec

    rows = []
    for slot in range(1, 11):
        place = AddressRow("n1", f"10.0.1.{10 + slot}", "", "10.0.1.5")
        rows.append(("node1", EndpointRow(f"task{slot}", "webid", "web", slot, f"{slot:064}", (place,))))
    dns = DnsService(loopback_port=port)
    dns.update([Network(id="n1", spec=NetworkSpec(name="net"))], {}, rows)
    await dns.open()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    asking = verbs.add_parser("ask")
    asking.add_argument("address")
    asking.add_argument("port", type=int)
    asking.add_argument("name")
    asking.add_argument("--json", action="store_true")
    serving = verbs.add_parser("serve")
    serving.add_argument("port", type=int)
    arguments = parser.parse_args()
    if arguments.verb == "ask":
        measure(arguments.address, arguments.port, arguments.name, arguments.json)
    else:
        asyncio.run(serve(arguments.port))


if __name__ == "__main__":
    main()
