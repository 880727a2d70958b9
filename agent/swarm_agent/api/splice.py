"""A request of the engine's, carried byte for byte, with everything that comes after it on this connection.

The client's connection is joined to a fresh connection to the engine: bytes flow both ways until both sides have ended.
Nothing is parsed, so hijacked streams (attach, exec, BuildKit sessions) need no special care. Each direction reads only
as fast as the other side takes (`drain`), so an upload of gigabytes uses a few buffers. Traps:

* The end of one direction is not the end of the other: `docker run -i < file` ends its input and waits for output. The
  end is passed on as a half-close. Only a client that is gone altogether (POLLHUP) ends both at once.
* The engine may answer and close before it has read the upload. Its answer must reach the client although writing to
  the engine fails; and what the client still sends must be read, or its unread bytes turn our close into a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import select

from .engine import EngineDown
from .http1 import Head

BUFFER = 256 * 1024
LINGER = 2.0  # seconds in which a client may notice that the answer has ended, before its connection is closed


async def splice(head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, engine_socket: str) -> None:
    """Carry out a request that belongs to the engine. Raises EngineDown before anything was sent to the client."""
    try:
        engine_reader, engine_writer = await asyncio.open_unix_connection(engine_socket, limit=BUFFER)
    except OSError as error:
        raise EngineDown(engine_socket, error.strerror or error) from error
    upload: asyncio.Task[None] | None = None
    try:
        engine_writer.write(head.forward())
        upload = asyncio.create_task(_upload(reader, writer, engine_writer), name="splice-upload")
        with contextlib.suppress(ConnectionError):
            await _copy(engine_reader, writer)
            writer.write_eof()
    finally:
        if upload is not None:
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)
        engine_writer.close()
    await linger(reader)


async def _upload(reader: asyncio.StreamReader, client: asyncio.StreamWriter, engine: asyncio.StreamWriter) -> None:
    try:
        await _copy(reader, engine)
    except ConnectionError:
        if reader.exception() is None:
            return  # the engine takes no more; its answer may still be on the way
    if reader.exception() is not None or hung_up(client):
        engine.transport.abort()
        return
    with contextlib.suppress(ConnectionError):
        engine.write_eof()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(BUFFER):
        writer.write(data)
        await writer.drain()


def hung_up(writer: asyncio.StreamWriter) -> bool:
    """True when the peer has closed its end altogether, false when it only sends no more."""
    sock = writer.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    poller = select.poll()
    poller.register(sock.fileno(), 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poller.poll(0))


async def linger(reader: asyncio.StreamReader) -> None:
    """Read and drop what the client still sends, until it closes or a short time has passed."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(LINGER):
            while await reader.read(BUFFER):
                pass
