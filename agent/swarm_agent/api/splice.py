"""A request of the engine's, carried byte for byte, with everything that comes after it on this connection.

The client's connection is joined to a fresh connection to the engine: bytes flow both ways until both sides have ended.
Nothing is parsed, so hijacked streams (attach, exec, BuildKit sessions) need no special care. Each direction reads only
as fast as the other side takes, so an upload of gigabytes uses a few buffers. Traps:

* The end of one direction is not the end of the other: `docker run -i < file` ends its input and waits for output. The
  end is passed on as a half-close. Only a client that is gone altogether (POLLHUP) ends both at once.
* The engine may answer and close before it has read the upload. Its answer must reach the client although writing to
  the engine fails; asyncio's transports give up both directions then, hence the plain socket on the engine's side. And
  what the client still sends must be read, or its unread bytes turn our close into a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket

from .engine import EngineDown
from .http1 import Head

BUFFER = 128 * 1024
LINGER = 2.0  # seconds in which a client may notice that the answer has ended, before its connection is closed


async def connect(engine_socket: str) -> socket.socket:
    """A connection to this host's engine. Raises EngineDown."""
    engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(engine, engine_socket)
    except BaseException as error:
        engine.close()
        if isinstance(error, OSError):
            raise EngineDown(engine_socket, error.strerror or error) from error
        raise
    return engine


async def splice(
    head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, engine: socket.socket, name: str
) -> None:
    """Carry out a request that belongs to the engine at the other end of this connection, and close it.

    Raises EngineDown before anything was sent to the client; `name` says which engine.
    """
    loop = asyncio.get_running_loop()
    with engine:
        try:
            await loop.sock_sendall(engine, head.forward())
        except OSError as error:
            raise EngineDown(name, error.strerror or error) from error
        upload = asyncio.create_task(_upload(reader, writer, engine), name="splice-upload")
        try:
            with contextlib.suppress(ConnectionError):
                await _download(engine, writer)
                writer.write_eof()
        finally:
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)
    await linger(reader)


async def _upload(reader: asyncio.StreamReader, client: asyncio.StreamWriter, engine: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await reader.read(BUFFER)
        except ConnectionError:
            data = b""
        if not data:
            break
        try:
            await loop.sock_sendall(engine, data)
        except OSError:
            return  # the engine takes no more; its answer may still be on the way
    with contextlib.suppress(OSError):
        engine.shutdown(socket.SHUT_RDWR if hung_up(client) else socket.SHUT_WR)


async def _download(engine: socket.socket, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await loop.sock_recv(engine, BUFFER)
        except ConnectionError:
            return  # it closed with some of the upload unread; all that it had sent was received before
        if not data:
            return
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
