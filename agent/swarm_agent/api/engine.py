"""The engine behind the front door: what merged answers need of it.

Requests that are the engine's own do not come through here; splice.py carries them byte for byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp.client_proto import ResponseHandler

from swarm_agent.model.errors import ClusterError, message_of

from .message import Response
from .versions import NEWEST, OLDEST, ApiVersion, parse_version, show

TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=5)
Connect = Callable[[], Awaitable[socket.socket]]
"""Makes a connection to an engine. Raises ClusterError when it cannot be reached."""

ENDLESS = aiohttp.ClientTimeout(total=None, sock_connect=5)


class EngineDown(ClusterError):
    """The engine does not answer."""

    status = 503

    def __init__(self, socket: str, reason: object) -> None:
        super().__init__(
            f"cannot reach the engine at unix://{socket}: {reason}. Is the docker daemon of this host running?"
        )


class Identity(msgspec.Struct, frozen=True):
    """What the engine says of itself in the headers of every response."""

    api_version: ApiVersion = NEWEST
    server: str = "Docker (linux)"
    os: str = "linux"
    experimental: str = "false"

    @property
    def spoken(self) -> ApiVersion:
        """The newest version that both the engine and this front door speak."""
        return max(min(self.api_version, NEWEST), OLDEST)

    def headers(self) -> dict[str, str]:
        return {
            "Api-Version": show(self.spoken),
            "Docker-Experimental": self.experimental,
            "Ostype": self.os,
            "Server": self.server,
        }


class _Connector(aiohttp.BaseConnector):
    """Connections that somebody else makes, one for each request."""

    def __init__(self, connect: Connect) -> None:
        super().__init__(limit=0, force_close=True)
        self._connect_engine = connect

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        sock = await self._connect_engine()
        _, protocol = await asyncio.get_running_loop().create_connection(self._factory, sock=sock)
        return protocol


class EngineClient:
    """HTTP to an engine: this host's on its socket, or with `connect` another host's on connections that it makes.

    `identity` is the last one seen; it changes when the engine is upgraded.
    """

    def __init__(self, socket: str, connect: Connect | None = None) -> None:
        self.socket = socket
        self._connect = connect
        self.identity = Identity()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, method: str, path: str, query: Mapping[str, str] | None = None, body: bytes = b"") -> Response:
        """The engine's answer, whatever its status. Raises EngineDown."""
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            async with self._client().request(
                method, f"http://engine{path}", params=query, data=body or None, headers=headers
            ) as reply:
                content = await reply.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineDown(self.socket, _reason(error)) from error
        self._remember(reply.headers)
        return Response(
            status=reply.status,
            body=content,
            content_type=reply.headers.get("Content-Type", ""),
            headers={name: reply.headers[name] for name in ("Builder-Version",) if name in reply.headers},
        )

    async def get_json(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """A decoded answer. Raises EngineDown, and EngineRefused when the engine answers with an error."""
        reply = await self.call("GET", path, query)
        if reply.status != 200:
            raise EngineRefused(reply)
        return msgspec.json.decode(reply.body)

    @contextlib.asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[aiohttp.StreamReader]:
        """The body of an answer that may be long or endless, as it comes. Raises EngineDown and EngineRefused."""
        try:
            async with self._client().get(f"http://engine{path}", params=query, timeout=ENDLESS) as reply:
                if reply.status != 200:
                    content_type = reply.headers.get("Content-Type", "")
                    raise EngineRefused(
                        Response(status=reply.status, body=await reply.read(), content_type=content_type)
                    )
                yield reply.content
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineDown(self.socket, _reason(error)) from error

    async def lines(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """A stream of lines without an end of its own. The first item is empty: the engine has accepted the request.

        Raises EngineDown and EngineRefused before it; afterwards an engine that goes away ends the stream.
        """
        try:
            async with self._client().get(f"http://engine{path}", params=query, timeout=ENDLESS) as reply:
                if reply.status != 200:
                    content_type = reply.headers.get("Content-Type", "")
                    body = await reply.read()
                    raise EngineRefused(Response(status=reply.status, body=body, content_type=content_type))
                self._remember(reply.headers)
                yield b""
                rest = b""
                with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                    async for chunk in reply.content.iter_any():
                        *complete, rest = (rest + chunk).split(b"\n")
                        for line in complete:
                            yield line + b"\n"
        except (aiohttp.ClientError, OSError) as error:
            raise EngineDown(self.socket, _reason(error)) from error

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = (
                aiohttp.UnixConnector(self.socket, limit=0) if self._connect is None else _Connector(self._connect)
            )
            self._session = aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, auto_decompress=False)
        return self._session

    def _remember(self, headers: Mapping[str, str]) -> None:
        version = parse_version(headers.get("Api-Version", ""))
        if version is not None:
            self.identity = Identity(
                api_version=version,
                server=headers.get("Server", self.identity.server),
                os=headers.get("Ostype", self.identity.os),
                experimental=headers.get("Docker-Experimental", self.identity.experimental),
            )


class EngineRefused(ClusterError):
    """The engine answered with an error. `reply` passes on as it is, `str` is its text."""

    def __init__(self, reply: Response) -> None:
        self.reply = reply
        self.status = reply.status
        super().__init__(message_of(reply.body))


def _reason(error: BaseException) -> str:
    inner = getattr(error, "os_error", None) or error
    return str(getattr(inner, "strerror", None) or inner or type(inner).__name__)
