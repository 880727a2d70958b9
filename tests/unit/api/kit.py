"""A front door in this process: a real store in memory, a small node, and an engine on a unix socket."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from swarm_agent.api.engine import EngineClient
from swarm_agent.api.frontdoor import FrontDoor
from swarm_agent.api.local import Forward, LocalApi
from swarm_agent.manager.control.cluster import complete_spec
from swarm_agent.manager.events import History
from swarm_agent.model import errors
from swarm_agent.model.errors import Conflict, Unauthorized, Unavailable
from swarm_agent.model.objects import (
    Cluster,
    EngineDescription,
    JoinTokens,
    ManagerStatus,
    Network,
    Node,
    NodeDescription,
    NodeStatus,
)
from swarm_agent.model.requests import InitRequest, JoinRequest
from swarm_agent.model.session import ManagerPeer
from swarm_agent.model.specs import NetworkSpec, NodeSpec, Platform, Resources
from swarm_agent.network.report import MeshReport
from swarm_agent.node.introspection import Introspection
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store

NODE_ID = "node00000000000000000000a"
CLUSTER_ID = "cluster000000000000000000"


@dataclass
class Manager:
    store: Store
    is_leader: bool = True
    leader_addr: str = "10.1.1.1:2377"
    needed: set[str] = field(default_factory=set)  # managers without which there is no quorum
    authorities: set[str] = field(default_factory=set)  # URLs of external CAs that answer
    history: History = field(init=False)

    def __post_init__(self) -> None:
        self.history = History(self.store)

    def can_remove(self, node_id: str) -> bool:
        return node_id not in self.needed

    async def reaches_external(self, root: str, urls: Sequence[str]) -> bool:
        return not self.authorities.isdisjoint(urls)

    def is_raft_member(self, node_id: str) -> bool:
        node = self.store.view().get(Node, node_id)
        return node is not None and node.manager_status is not None


@dataclass
class SmallNode:
    """NodeControl on a memory store: it founds its cluster with the first objects, as the real node does."""

    role: Manager | None = None
    local_state: str = "inactive"
    node_id: str = ""
    node_addr: str = ""
    error: str = ""
    joined: list[JoinRequest] = field(default_factory=list)
    refusals: list[Exception] = field(default_factory=list)  # what the next joins end with
    engines: dict[str, Path] = field(default_factory=dict)  # of other nodes, by node id

    attachments: Any = None

    async def mesh_report(self) -> MeshReport:
        raise Unavailable(errors.NOT_IN_SWARM)

    @property
    def introspection(self) -> Introspection:
        return Introspection(lambda: None, lambda: self.local_state)

    @property
    def is_manager(self) -> bool:
        return self.role is not None

    def manager(self) -> Manager:
        if self.role is None:
            raise Unavailable(errors.NOT_IN_SWARM if self.local_state == "inactive" else errors.NOT_A_MANAGER)
        return self.role

    def remote_managers(self) -> list[ManagerPeer]:
        return [ManagerPeer(NODE_ID, "10.1.1.1:2377")] if self.local_state == "active" else []

    async def connect_engine(self, node_id: str) -> socket.socket:
        if node_id not in self.engines:
            raise Unavailable(f"node {node_id} is not available")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        await asyncio.get_running_loop().sock_connect(sock, str(self.engines[node_id]))
        return sock

    async def init(self, request: InitRequest) -> str:
        if self.local_state != "inactive":
            raise Unavailable(errors.SWARM_EXISTS)
        role = Manager(memory_store())
        spec = complete_spec(request.spec)
        await role.store.update(lambda tx: [tx.create(obj) for obj in first_objects(spec)])
        self.role, self.local_state = role, "active"
        self.node_id, self.node_addr = NODE_ID, "10.1.1.1"
        return NODE_ID

    async def join(self, request: JoinRequest) -> None:
        if self.local_state != "inactive":
            raise Unavailable(errors.SWARM_EXISTS)
        if self.refusals:
            raise self.refusals.pop(0)
        self.joined.append(request)
        self.local_state, self.node_id = "active", "node00000000000000000000b"

    async def unlock(self, text: str) -> None:
        if self.local_state != "locked":
            self.manager()
            raise Conflict(errors.NOT_LOCKED)
        if text != "SWMKEY-1-good":
            raise Unauthorized(errors.WRONG_UNLOCK_KEY)
        self.local_state = "active"

    async def leave(self, force: bool) -> None:
        if self.local_state == "inactive":
            raise Unavailable(errors.NO_SWARM)
        self.role, self.local_state, self.node_id = None, "inactive", ""


def first_objects(spec: Any) -> list[Any]:
    """Cluster, first node and ingress network."""
    cluster = Cluster(
        id=CLUSTER_ID,
        spec=spec,
        default_addr_pool=["10.0.0.0/8"],
        subnet_size=24,
        data_path_port=4789,
        join_tokens=JoinTokens(worker="SWMTKN-1-digest-worker", manager="SWMTKN-1-digest-manager"),
        ca_cert="root",
        ca_key="private",
    )
    ingress = Network(id="ingress000000000000000000", spec=NetworkSpec(name="ingress", ingress=True, scope="swarm"))
    return [cluster, make_node(NODE_ID, "first", role="manager"), ingress]


def make_node(id_: str, hostname: str, *, role: str = "worker", state: str = "ready") -> Node:
    return Node(
        id=id_,
        spec=NodeSpec(role=role, availability="active"),
        description=NodeDescription(
            hostname=hostname,
            platform=Platform(architecture="x86_64", os="linux"),
            resources=Resources(nano_cpus=2_000_000_000, memory_bytes=2**31),
            engine=EngineDescription(engine_version="20.10.24"),
        ),
        status=NodeStatus(state=state, addr="10.1.1.1"),
        manager_status=ManagerStatus(leader=True, reachability="reachable", addr="10.1.1.1:2377")
        if role == "manager"
        else None,
    )


@dataclass
class Door:
    """An open front door and ways to talk to it."""

    path: Path
    node: SmallNode
    session: aiohttp.ClientSession
    api: LocalApi

    @property
    def store(self) -> Store:
        return self.node.manager().store

    async def call(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and decoded JSON (or text, or None for nothing)."""
        data = json.dumps(body).encode() if body is not None and not isinstance(body, bytes) else body
        headers = {"Content-Type": "application/json", **(headers or {})} if data is not None else headers or {}
        async with self.session.request(method, f"http://door{path}", data=data, headers=headers) as reply:
            text = await reply.text()
        if not text:
            return reply.status, None
        if reply.content_type == "application/json":
            return reply.status, json.loads(text)
        return reply.status, text

    async def raw(self, data: bytes, *, end: bool = False) -> bytes:
        """Everything that comes back for these bytes until the front door closes the connection."""
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        writer.write(data)
        if end:
            writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def open_door(
    folder: Path, engine_socket: Path, node: SmallNode | None = None, forward: Forward | None = None
) -> AsyncIterator[Door]:
    node = node if node is not None else SmallNode()
    engine = EngineClient(str(engine_socket))
    api = LocalApi(node, engine, forward=forward)
    path = folder / "docker.sock"
    door = FrontDoor(api, path)
    await door.start()
    session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path)))
    try:
        yield Door(path, node, session, api)
    finally:
        await session.close()
        await door.stop()
        await engine.close()


# --- an engine for the pass-through tests ----------------------------------------------------------------------------

ENGINE_HEADERS = {
    "Api-Version": "1.41",
    "Server": "Docker/20.10.24 (linux)",
    "Ostype": "linux",
    "Docker-Experimental": "false",
}
Raw = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_engine(path: Path, talk: Raw) -> AsyncIterator[None]:
    """An engine that does to each connection what `talk` does: for what happens on the wire."""
    tasks: set[asyncio.Task[None]] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(connection, str(path))
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class HttpEngine:
    """The few calls of an engine that merged answers need, with networks that can be made and removed."""

    networks: list[dict[str, Any]] = field(default_factory=list)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    events: asyncio.Queue[dict[str, Any] | None] = field(default_factory=asyncio.Queue)
    listeners: int = 0
    api_version: str = ENGINE_HEADERS["Api-Version"]
    containers: list[dict[str, Any]] = field(default_factory=list)
    unused: list[str] = field(default_factory=lambda: ["leftover"])  # networks that it would prune

    def __post_init__(self) -> None:
        for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null")):
            self.add(name, driver)

    def add(self, name: str, driver: str = "bridge", labels: dict[str, str] | None = None) -> str:
        id_ = f"{random.Random(name).getrandbits(256):064x}"
        self.networks.append({"Name": name, "Id": id_, "Scope": "local", "Driver": driver, "Labels": labels or {}})
        return id_

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = re.sub(r"^/v1\.\d+", "", request.path)
        self.seen.append((request.method, path, request.query_string))
        if path == "/events":
            return await self._tell(request)
        if path == "/_ping":
            headers = {**ENGINE_HEADERS, "Api-Version": self.api_version, "Builder-Version": "1"}
            return web.Response(text="OK", headers=headers)
        try:
            headers = {**ENGINE_HEADERS, "Api-Version": self.api_version}
            return web.json_response(await self._answer(request, path), headers=headers)
        except LookupError as missing:
            return web.json_response({"message": str(missing.args[0])}, status=404, headers=ENGINE_HEADERS)
        except (ValueError, TypeError) as error:  # the engine refuses what it cannot read
            return web.json_response({"message": str(error)}, status=400, headers=ENGINE_HEADERS)

    async def _tell(self, request: web.Request) -> web.StreamResponse:
        """Events as they are put into `events`; None ends the stream. A refused filter is an error before it."""
        if "refused" in request.query_string:
            return web.json_response({"message": "invalid filter 'refused'"}, status=400, headers=ENGINE_HEADERS)
        reply = web.StreamResponse(headers={**ENGINE_HEADERS, "Content-Type": "application/json"})
        await reply.prepare(request)
        self.listeners += 1
        try:
            while (event := await self.events.get()) is not None:
                await reply.write(json.dumps(event).encode() + b"\n")
        finally:
            self.listeners -= 1
        return reply

    async def _answer(self, request: web.Request, path: str) -> Any:
        if path == "/networks":
            return self.networks
        if path == "/containers/json" and self.containers:
            return self.containers
        if path == "/networks/create":
            return {"Id": self.add((await request.json())["Name"]), "Warning": ""}
        if path == "/networks/prune":
            return {"NetworksDeleted": self.unused or None}
        if path.startswith("/networks/"):
            for item in self.networks:
                if item["Id"] == path.rpartition("/")[2]:
                    return item | {"Containers": {}}
            raise LookupError(f"network {path} not found")
        if path == "/version":
            return {"ApiVersion": "1.41", "Version": "20.10.24"}
        if path == "/info":
            return {"ID": "engine", "Swarm": {"LocalNodeState": "inactive"}}
        return {"engine": path}


@asynccontextmanager
async def http_engine(path: Path) -> AsyncIterator[HttpEngine]:
    engine = HttpEngine()
    runner = web.ServerRunner(web.Server(engine.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield engine
    finally:
        await runner.cleanup()
