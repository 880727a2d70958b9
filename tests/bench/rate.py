"""How many services per second a manager creates, asked by so many clients at once.

The clients write prepared bytes and read the answer with the least possible work: they share the machine with what
they measure, and a common HTTP client would cost about as much as the answer.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from pathlib import Path

from tests.lab.apiclient import VERSION

from .services import spec

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


async def creates_per_second(socket: Path, prefix: str, clients: int, total: int) -> tuple[float, list[str]]:
    """Creates `total` services with replicas 0. Returns the rate and the names."""
    names = [f"{prefix}-{number}" for number in range(total)]
    waiting = [_request("POST", "/services/create", spec(name, 0)) for name in reversed(names)]
    return await _rate(socket, clients, waiting, b"201"), names


async def remove_all(socket: Path, names: list[str], clients: int = 8) -> float:
    """Removes the services; the rate."""
    return await _rate(socket, clients, [_request("DELETE", f"/services/{name}") for name in names], b"200")


async def latency(socket: Path, path: str, samples: int = 30) -> float:
    """Median time until the last byte of an answer, in milliseconds, which nobody decodes: long lists would cost the
    client more than the server.
    """
    taken = []
    for _ in range(samples):
        started = time.perf_counter()
        reader, writer = await asyncio.open_unix_connection(str(socket), limit=1 << 20)
        writer.write(f"GET {VERSION}{path} HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        taken.append(1000 * (time.perf_counter() - started))
        if answer[9:12] != b"200":
            raise RuntimeError(f"refused: {answer[:500]!r}")
    return statistics.median(taken)


def _request(method: str, path: str, body: object = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {VERSION}{path} HTTP/1.1\r\nHost: host\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


async def _rate(socket: Path, clients: int, waiting: list[bytes], expected: bytes) -> float:
    """Requests per second until the list is used up."""
    total = len(waiting)

    async def client() -> None:
        reader, writer = await asyncio.open_unix_connection(str(socket))
        try:
            while waiting:
                writer.write(waiting.pop())
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
                if head[9:12] != expected:
                    raise RuntimeError(f"refused: {head!r} {body!r}")
        finally:
            writer.close()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return total / (time.perf_counter() - started)
