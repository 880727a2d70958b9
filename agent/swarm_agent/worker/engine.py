"""Typed client of the plain engine's API on its unix socket: the few calls that the worker needs.

Idea: every call either returns what the engine said or raises `EngineError`. An engine that cannot be reached is
`EngineGone` (status 0), because the worker must tell "the engine refused" (a fact about the task) from "the engine is
away" (a fact about nothing yet: wait, then look again).
The API version is agreed once per engine start: the engine's own, at most `NEWEST_API`. Callers ask `api_version` to
choose between forms (a MAC address moved in 1.44).
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol, TypeVar

import aiohttp
import msgspec

T = TypeVar("T")

NEWEST_API = (1, 51)
# How long a call may take that the engine answers from memory; a frozen engine counts as gone after that.
ANSWER_SECONDS = 60.0
_GONE = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError, asyncio.TimeoutError)


class EngineError(Exception):
    """The engine refused a call. `str()` is the engine's own message, which Swarm shows to users as it is."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)


class EngineGone(EngineError):
    """The engine cannot be reached, or died while it answered."""

    def __init__(self, message: str) -> None:
        super().__init__(0, message)


class _Reply(msgspec.Struct, frozen=True, rename="pascal"):
    pass


class Health(_Reply, frozen=True):
    status: str = ""


class ContainerState(_Reply, frozen=True):
    status: str = ""
    running: bool = False
    paused: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = ""
    finished_at: str = ""
    health: Health | None = None


class HealthTest(_Reply, frozen=True):
    test: list[str] | None = None


class ContainerConfig(_Reply, frozen=True):
    hostname: str = ""
    labels: dict[str, str] | None = None
    healthcheck: HealthTest | None = None
    exposed_ports: dict[str, Any] | None = None


class PortBinding(_Reply, frozen=True):
    host_port: str = ""


class EndpointAddresses(_Reply, frozen=True):
    ipv4: str = msgspec.field(default="", name="IPv4Address")


class EndpointSettings(_Reply, frozen=True):
    """A container's place on a network: the address that it has while it runs, and the one that it was given."""

    ip_address: str = msgspec.field(default="", name="IPAddress")
    ipam_config: EndpointAddresses | None = msgspec.field(default=None, name="IPAMConfig")
    aliases: list[str] | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        given = self.ipam_config.ipv4 if self.ipam_config is not None else ""
        return tuple(filter(None, (self.ip_address, given)))


class NetworkSettings(_Reply, frozen=True):
    ports: dict[str, list[PortBinding] | None] | None = None
    networks: dict[str, EndpointSettings] | None = None


class Container(_Reply, frozen=True):
    """GET /containers/{id}/json, the parts that tell a task's fate."""

    id: str
    name: str = ""
    state: ContainerState = ContainerState()
    config: ContainerConfig = ContainerConfig()
    network_settings: NetworkSettings = NetworkSettings()

    @property
    def places(self) -> list[EndpointSettings]:
        """Where it is on networks."""
        return list((self.network_settings.networks or {}).values())


class ListedContainer(_Reply, frozen=True):
    """An entry of GET /containers/json."""

    id: str
    state: str = ""
    labels: dict[str, str] | None = None


class Actor(msgspec.Struct, frozen=True):
    id: str = msgspec.field(default="", name="ID")
    attributes: dict[str, str] | None = msgspec.field(default=None, name="Attributes")


class Event(msgspec.Struct, frozen=True):
    """An entry of GET /events."""

    action: str = msgspec.field(default="", name="Action")
    actor: Actor = msgspec.field(default_factory=Actor, name="Actor")


class _Created(_Reply, frozen=True):
    id: str


class _EngineVersion(_Reply, frozen=True):
    api_version: str


class _Subnet(_Reply, frozen=True):
    subnet: str = ""


class _IPAM(_Reply, frozen=True):
    config: list[_Subnet] | None = None


class _EngineNetwork(_Reply, frozen=True):
    ipam: _IPAM = msgspec.field(default_factory=_IPAM, name="IPAM")


class _PullLine(msgspec.Struct, frozen=True):
    error: str = ""


class EngineApi(Protocol):
    """What the worker asks of an engine."""

    api_version: tuple[int, int]

    async def negotiate(self) -> None: ...
    async def ping(self) -> None: ...
    async def info(self) -> dict[str, Any]: ...
    async def plugins(self) -> list[dict[str, Any]]: ...
    async def list_containers(self, labels: list[str]) -> list[ListedContainer]: ...
    async def inspect(self, container: str) -> Container: ...
    async def create(self, name: str, body: Mapping[str, Any]) -> str: ...
    async def connect(self, network: str, container: str, endpoint: Mapping[str, Any]) -> None: ...
    async def start(self, container: str) -> None: ...
    async def stop(self, container: str, grace: int) -> None: ...
    async def remove(self, container: str) -> None: ...
    async def image_exists(self, reference: str) -> bool: ...
    async def pull(self, reference: str, auth: str, stall: float) -> None: ...
    def events(self, labels: list[str]) -> AsyncIterator[Event | None]: ...
    async def close(self) -> None: ...


class Engine:
    """`EngineApi` over a unix socket."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.api_version: tuple[int, int] = (1, 41)
        self._session: aiohttp.ClientSession | None = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No limit: a stop call holds its connection for the whole grace period.
            connector = aiohttp.UnixConnector(self.socket, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout())
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # --- the engine itself --------------------------------------------------------------------------------------------

    async def negotiate(self) -> None:
        """Choose the API version; to be called again after each engine start, which may be an upgrade."""
        version = await self._decoded(_EngineVersion, "GET", "/version", versioned=False)
        major, _, minor = version.api_version.partition(".")
        self.api_version = min((int(major), int(minor)), NEWEST_API)

    async def ping(self) -> None:
        await self._call("GET", "/_ping", versioned=False, timeout=5.0)

    async def info(self) -> dict[str, Any]:
        return await self._decoded(dict[str, Any], "GET", "/info")

    async def plugins(self) -> list[dict[str, Any]]:
        """The plugins that the engine manages itself (`docker plugin install`), enabled or not."""
        return await self._decoded(list[dict[str, Any]], "GET", "/plugins")

    async def network_subnets(self) -> list[str]:
        """The subnets of all networks that this engine has."""
        networks = await self._decoded(list[_EngineNetwork], "GET", "/networks")
        return [config.subnet for network in networks for config in network.ipam.config or [] if config.subnet]

    def events(self, labels: list[str]) -> AsyncIterator[Event | None]:
        """Container events from now on. Yields None once when the stream stands, so that a listing made after it
        cannot miss a change. Ends or raises `EngineGone` when the engine goes away."""
        return self._events(labels)

    async def _events(self, labels: list[str]) -> AsyncIterator[Event | None]:
        filters = json.dumps({"type": ["container"], "label": labels})
        url = self._url("/events", versioned=True)
        try:
            async with self._client().get(url, params={"filters": filters}) as reply:
                if reply.status != 200:
                    raise EngineError(reply.status, _message(await reply.read(), reply.status))
                yield None
                async for line in _lines(reply.content):
                    yield msgspec.json.decode(line, type=Event)
        except _GONE as error:
            raise EngineGone(self._away("GET", "/events", error)) from error

    # --- containers ---------------------------------------------------------------------------------------------------

    async def list_containers(self, labels: list[str]) -> list[ListedContainer]:
        query = {"all": "1", "filters": json.dumps({"label": labels})}
        return await self._decoded(list[ListedContainer], "GET", "/containers/json", query)

    async def inspect(self, container: str) -> Container:
        return await self._decoded(Container, "GET", f"/containers/{container}/json")

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Returns the new container's id."""
        created = await self._decoded(_Created, "POST", "/containers/create", {"name": name}, body)
        return created.id

    async def connect(self, network: str, container: str, endpoint: Mapping[str, Any]) -> None:
        body = {"Container": container, "EndpointConfig": endpoint}
        await self._call("POST", f"/networks/{network}/connect", body=body)

    async def start(self, container: str) -> None:
        """Also fine when it runs already (304)."""
        await self._call("POST", f"/containers/{container}/start")

    async def stop(self, container: str, grace: int) -> None:
        """Stop signal, then SIGKILL after `grace` seconds; returns when the container has ended. Fine when it had."""
        await self._call("POST", f"/containers/{container}/stop", {"t": str(grace)}, timeout=grace + ANSWER_SECONDS)

    async def remove(self, container: str) -> None:
        """Kill and remove with its anonymous volumes; fine when it is gone or going (404, 409)."""
        try:
            await self._call("DELETE", f"/containers/{container}", {"v": "1", "force": "1"})
        except EngineError as error:
            if error.status not in (404, 409):
                raise

    # --- images -------------------------------------------------------------------------------------------------------

    async def image_exists(self, reference: str) -> bool:
        try:
            await self._call("GET", f"/images/{reference}/json")
        except EngineError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def pull(self, reference: str, auth: str, stall: float) -> None:
        """Pull an image; `auth` is X-Registry-Auth as the client sent it. Gives up after `stall` seconds without
        progress.

        Raises `EngineError` with the registry's reason.
        """
        headers = {"X-Registry-Auth": auth or base64.urlsafe_b64encode(b"{}").decode()}
        url = self._url("/images/create", versioned=True)
        timeout = aiohttp.ClientTimeout(sock_read=stall)
        try:
            async with self._client().post(
                url, params={"fromImage": reference}, headers=headers, timeout=timeout
            ) as reply:
                if reply.status != 200:
                    raise EngineError(reply.status, _message(await reply.read(), reply.status))
                async for line in _lines(reply.content):
                    problem = msgspec.json.decode(line, type=_PullLine).error
                    if problem:
                        raise EngineError(500, problem)
        except TimeoutError:
            raise EngineError(504, f"pull of {reference}: the registry gave no sign for {stall:g} s") from None
        except _GONE as error:
            raise EngineGone(self._away("POST", "/images/create", error)) from error

    # --- plumbing -----------------------------------------------------------------------------------------------------

    def _url(self, path: str, *, versioned: bool) -> str:
        major, minor = self.api_version
        return f"http://engine/v{major}.{minor}{path}" if versioned else f"http://engine{path}"

    def _away(self, method: str, path: str, error: BaseException) -> str:
        return f"{method} {path}: no engine at {self.socket}: {error or type(error).__name__}"

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        *,
        versioned: bool = True,
        timeout: float = ANSWER_SECONDS,
    ) -> bytes:
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if data is None else {"Content-Type": "application/json"}
        try:
            async with self._client().request(
                method,
                self._url(path, versioned=versioned),
                params=query,
                data=data,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as reply:
                content = await reply.read()
        except _GONE as error:
            raise EngineGone(self._away(method, path, error)) from error
        if reply.status >= 400:
            raise EngineError(reply.status, _message(content, reply.status))
        return content

    async def _decoded(
        self,
        kind: type[T],
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        *,
        versioned: bool = True,
    ) -> T:
        content = await self._call(method, path, query, body, versioned=versioned)
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            raise EngineError(502, f"{method} {path}: the engine's answer cannot be read: {error}") from error


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """JSON objects of a stream, one a line. Splits by itself: a line may exceed StreamReader's limit."""
    rest = b""
    async for chunk in stream.iter_any():
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            if line.strip():
                yield line
    if rest.strip():
        yield rest


def _message(content: bytes, status: int) -> str:
    """The engine's error text; it answers {"message": "..."}."""
    try:
        decoded = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError:
        decoded = {}
    return str(decoded.get("message") or content.decode(errors="replace").strip() or f"engine answered {status}")
