"""GET /metrics on a TCP address of the operator's choice, as the engine's `metrics-addr`: for a Prometheus that cannot
read a unix socket. Off unless set; whoever reaches the address may read, so it is best a loopback or management one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from . import http1
from .frontdoor import read_head
from .http1 import ProtocolError

TIMEOUT = 10.0  # seconds for a request
MAX_CONNECTIONS = 16
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsPort:
    """`text` makes the answer; `address` is host:port."""

    def __init__(self, text: Callable[[], str], address: str) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not int(port) < 65536:
            raise ValueError(f"metrics_addr must be HOST:PORT, as 127.0.0.1:9323, not {address!r}")
        self._host, self._port = host.strip("[]"), int(port)
        self._text = text
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self) -> None:
        """Raises OSError when the address cannot be had."""
        self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=http1.MAX_HEAD)

    @property
    def port(self) -> int:
        """The port in use, also when any free one was asked for."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(TIMEOUT):
                    await self._one(reader, writer)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            self._open -= 1
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status, body = 200, ""
        try:
            head = await read_head(reader)
            if head is None:
                return
            if head.method not in ("GET", "HEAD") or head.target.partition("?")[0] != "/metrics":
                status, body = 404, "only GET /metrics is served here\n"
            else:
                body = self._text()
        except ProtocolError as error:
            status, body = error.status, f"{error}\n"
        data = body.encode()
        fields = [("Connection", "close"), ("Content-Length", str(len(data))), ("Content-Type", TYPE)]
        writer.write(http1.response_head(status, fields) + data)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
