"""The front door: a unix socket that speaks the Engine API, in place of the engine's own.

Requests of one connection are taken one after the other. The head is read and routed: the cluster's calls get their
body read (bounded) and are answered here, on a connection that stays open; a call of the engine's takes the connection
with it (splice.py), and clients open another for their next. So whatever mix a client sends, upgrades included, each
request is seen here first.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from swarm_agent.model.errors import BadRequest, ClusterError

from . import http1
from .engine import EngineDown
from .http1 import Head, ProtocolError
from .local import LocalApi
from .message import Request, Response, Stream, decode_path, error_of, error_response, parse_query
from .remote import Place
from .splice import connect, linger, splice
from .versions import check_version, split_version

log = logging.getLogger(__name__)

GROUP = "docker"
BACKLOG = 1024


class FrontDoor:
    """Serves `api` on a unix socket."""

    def __init__(self, api: LocalApi, path: Path, *, group: str = GROUP) -> None:
        self._api = api
        self._path = path
        self._group = group
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises OSError when another process serves the socket, or the folder is not writable."""
        sock = bind(self._path, self._group)
        self._server = await asyncio.start_unix_server(self._accepted, sock=sock, limit=http1.MAX_HEAD, backlog=BACKLOG)
        with contextlib.suppress(EngineDown):
            await self._api.engine.call("GET", "/_ping")  # to know the engine's version from the first request on
        log.info("front door open at %s", self._path)

    async def stop(self) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connection(reader, writer), name="front-door")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone
        except Exception:
            log.exception("a connection to the front door failed")
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; true when the connection may carry another."""
        try:
            head = await read_head(reader)
            if head is None:
                return False
            target = urlsplit(head.target)
            asked, path = split_version(decode_path(target.path))
            if not self._api.owns(head.method, path, target.query):
                place = await self._api.remote.place(head.method, path)
                if place is None:
                    engine = self._api.engine.socket
                    with self._api.engine_info.during(head.method):
                        await splice(head, reader, writer, await connect(engine), engine)
                    return False
                if place.joins:
                    there = await self._api.remote.connect(place)
                    with self._api.engine_info.during(head.method):  # it may be this host's own engine
                        await splice(place.head(head), reader, writer, there, f"node {place.node_id}")
                    return False
            else:
                place = None
            body = await self._body(head, reader, writer)
        except ClusterError as error:
            await self._send(writer, error_of(error), keep_alive=False)
            await _close_gently(reader, writer)
            return False
        except ProtocolError as error:
            await self._send(writer, error_response(error.status, str(error)), keep_alive=False)
            await _close_gently(reader, writer)
            return False
        response = await self._answer(head, asked, path, parse_query(target.query), body, place)
        if isinstance(response, Stream):
            await self._stream(head, reader, writer, response)
            return False
        await self._send(writer, response, keep_alive=head.keep_alive, head_only=head.method == "HEAD")
        return head.keep_alive

    async def _answer(
        self,
        head: Head,
        asked: tuple[int, int] | None,
        path: str,
        query: dict[str, str],
        body: bytes,
        place: Place | None,
    ) -> Response | Stream:
        try:
            version = check_version(asked, self._api.engine.identity.spoken)
        except BadRequest as error:
            return error_of(error)
        request = Request(
            method=head.method,
            path=path,
            query=query,
            headers={name: head.get(name) for name in ("content-type", "x-registry-auth") if head.get(name)},
            body=body,
            version=version,
        )
        if place is not None:
            return await self._api.answer_remote(place, request)
        return await self._api.handle(request)

    async def _body(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        framing = http1.framing(head)
        if head.expects_continue and (framing.chunked or framing.length <= http1.MAX_BODY):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await read_body(framing, reader)

    async def _stream(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Stream
    ) -> None:
        """Send an answer that goes on until it ends or the client leaves; the connection is closed after it."""
        chunked = head.minor > 0
        headers = {**self._api.engine.identity.headers(), "Connection": "close", "Content-Type": stream.content_type}
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        writer.write(http1.response_head(200, sorted(headers.items())))

        async def send() -> None:
            async for part in stream.parts:
                if part:
                    writer.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
                    await writer.drain()
            if chunked:
                writer.write(b"0\r\n\r\n")
                await writer.drain()

        sending = asyncio.create_task(send(), name="stream")
        leaving = asyncio.create_task(reader.read(1), name="stream-client")  # it has nothing to say but good-bye
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            results = await asyncio.gather(sending, leaving, return_exceptions=True)
            await stream.parts.aclose()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ConnectionError):
                raise result

    async def _send(
        self, writer: asyncio.StreamWriter, response: Response, *, keep_alive: bool, head_only: bool = False
    ) -> None:
        headers = dict(self._api.engine.identity.headers())
        headers |= response.headers
        if response.body:
            headers["Content-Type"] = response.content_type
        if response.status != 204:
            headers["Content-Length"] = "0" if head_only else str(len(response.body))
        if not keep_alive:
            headers["Connection"] = "close"
        writer.write(http1.response_head(response.status, sorted(headers.items())))
        if response.body and not head_only:
            writer.write(response.body)
        await writer.drain()


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next request's head; None when the client has closed. Raises ProtocolError."""
    raw = b""
    while not raw:
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise ProtocolError(431, f"the request's head is larger than {http1.MAX_HEAD} bytes") from None
        except asyncio.IncompleteReadError as error:
            if error.partial.strip(b"\r\n"):
                raise ProtocolError(400, "the request ends within its head") from None
            return None
        raw = raw.lstrip(b"\r\n")  # empty lines before a request are allowed (RFC 9112 §2.2)
    return http1.parse_head(raw)


async def read_body(framing: http1.Framing, reader: asyncio.StreamReader) -> bytes:
    """A whole body. Raises ProtocolError when it is too large or malformed, IncompleteReadError when it is cut off."""
    if not framing.chunked:
        _check_size(framing.length)
        return await reader.readexactly(framing.length)
    parts: list[bytes] = []
    total = 0
    while size := http1.chunk_size(await _line(reader)):
        total += size
        _check_size(total)
        parts.append(await reader.readexactly(size))
        if await reader.readexactly(2) != b"\r\n":
            raise ProtocolError(400, "malformed chunk")
    while await _line(reader):
        pass  # trailers
    return b"".join(parts)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        line = await reader.readuntil(b"\r\n")
    except asyncio.LimitOverrunError:
        raise ProtocolError(400, "malformed chunk") from None
    if len(line) > http1.MAX_CHUNK_LINE:
        raise ProtocolError(400, "malformed chunk")
    return line[:-2]


def _check_size(size: int) -> None:
    if size > http1.MAX_BODY:
        raise ProtocolError(413, f"the request's body is larger than {http1.MAX_BODY} bytes")


async def _close_gently(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End our side and take what the client still sends, so that it can read the answer."""
    with contextlib.suppress(ConnectionError, OSError):
        writer.write_eof()
    await linger(reader)


def bind(path: Path, group: str) -> socket.socket:
    """A listening place at `path`, for root and `group`; a socket left over by a dead process is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink()
            else:
                raise OSError(f"another process serves {path}; is the agent running already?")
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0o117)
    try:
        sock.bind(str(path))
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    with contextlib.suppress(KeyError, PermissionError):  # no such group here: root only
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    return sock
