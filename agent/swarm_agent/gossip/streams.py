"""The TCP side of the driver: sealed message exchanges, as client and as server.

    client → server   hello(17)            server → client   hello(17)
    then frames: length(4) | sealed bytes; several frames make one message

The server answers each message or stays silent; the client closes. A stranger can make the server send 17 random
bytes and hold a connection for a few seconds, of which there is a limited number; nothing else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from .messages import Malformed
from .seal import FRAME_LIMIT, HELLO_SIZE, Keyring, Refused, StreamSealer
from .types import Address

CONNECT_TIMEOUT = 3.0
IDLE_TIMEOUT = 10.0
MAX_CONNECTIONS = 128


async def exchange(
    to: Address,
    label: bytes,
    ring: Keyring,
    request: bytes,
    on_connected: Callable[[], None],
    on_reply: Callable[[bytes], bytes],
    timeout: float,
) -> None:
    """Send a request, hand the answer to on_reply, send what that returns. Raises OSError, TimeoutError, Refused,
    Malformed.
    """
    async with asyncio.timeout(min(CONNECT_TIMEOUT, timeout)):
        reader, writer = await asyncio.open_connection(*to)
    on_connected()
    try:
        async with asyncio.timeout(timeout):
            sealer = StreamSealer(label, ring, True, os.urandom(HELLO_SIZE - 1))
            writer.write(sealer.hello)
            sealer.greet(await _exactly(reader, HELLO_SIZE))
            writer.write(sealer.seal(request))
            await writer.drain()
            answer = await _message(reader, sealer)
            final = on_reply(answer)
            if final:
                writer.write(sealer.seal(final))
                await writer.drain()
            writer.write_eof()
    finally:
        writer.close()


class StreamServer:
    """Serves peers' exchanges. `serve` is given a message and returns the answer; `count` names what was refused."""

    def __init__(
        self, label: bytes, ring: Keyring, serve: Callable[[bytes], bytes], count: Callable[[str], None]
    ) -> None:
        self._label = label
        self._ring = ring
        self._serve = serve
        self._count = count
        self._open: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """For asyncio.start_server."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= MAX_CONNECTIONS:
            self._count("streams_too_many")
            writer.close()
            return
        self._open.add(task)
        try:
            await self._converse(reader, writer)
        except Refused as refused:
            self._count(f"streams_refused_{refused.reason}")
        except Malformed:
            self._count("streams_refused_malformed")
        except (OSError, EOFError, TimeoutError):
            self._count("streams_broken")
        except asyncio.CancelledError:
            pass  # close(): asyncio's protocol would report a cancelled handler as a failure
        finally:
            self._open.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sealer = StreamSealer(self._label, self._ring, False, os.urandom(HELLO_SIZE - 1))
        async with asyncio.timeout(IDLE_TIMEOUT):
            hello = await _exactly(reader, HELLO_SIZE)
        sealer.greet(hello)
        writer.write(sealer.hello)
        while True:
            async with asyncio.timeout(IDLE_TIMEOUT):
                try:
                    message = await _message(reader, sealer)
                except asyncio.IncompleteReadError as end:
                    if not end.partial:
                        return
                    raise
            answer = self._serve(message)
            if answer:
                writer.write(sealer.seal(answer))
                async with asyncio.timeout(IDLE_TIMEOUT):
                    await writer.drain()

    async def close(self) -> None:
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


async def _exactly(reader: asyncio.StreamReader, size: int) -> bytes:
    return await reader.readexactly(size)


async def _message(reader: asyncio.StreamReader, sealer: StreamSealer) -> bytes:
    while True:
        size = int.from_bytes(await _exactly(reader, 4), "big")
        if not 17 <= size <= FRAME_LIMIT:
            raise Refused("foreign")
        message = sealer.open(await _exactly(reader, size))
        if message is not None:
            return message
