"""Containers of tasks, wherever they run: `docker exec`, `attach`, `logs`, `inspect`, `cp`, … from any manager.

A call to /containers/{term}/… is this host's engine's if that knows the container. If not, and the term names a task's
container on another host, the connection is joined to that host's engine, with the container's id in the path: by task
id, task name (SERVICE.SLOT.TASK), place (SERVICE.SLOT, the running task there) or container id; ids may be shortened.

An exec has an id of its own, which later calls name alone (/exec/{id}/start), so the host where one was made for a
client is remembered. After a restart of the agent all hosts are asked for one that this host's engine has not.

Trap: `docker inspect ID` looks for a container first, and `docker exec ID` asks the very same before it starts. So with
a task's id GET /containers/{id}/json shows both: the container's members and the task's after them. What scripts take
from `docker inspect TASK-ID` in Swarm (.Status, .NodeID, .Spec, .ID, …) is there, and exec, attach and logs work.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from socket import socket

import msgspec

from swarm_agent.model.base import encode
from swarm_agent.model.errors import BadRequest, ClusterError, NotFound
from swarm_agent.model.objects import Node, Service, Task
from swarm_agent.model.states import TaskState
from swarm_agent.store.view import Reader

from .control_protocol import NodeControl
from .engine import EngineClient
from .http1 import Head
from .message import Request, Response
from .versions import show

REMEMBERED = 10_000  # execs; the oldest are forgotten first
SHORTEST = 4  # characters of an id that is looked for in the cluster

_CONTAINER = re.compile(r"/containers/([^/]+)(/.*)?")
_EXEC = re.compile(r"/exec/([^/]+)/(start|resize|json)")
_NO_TERMS = ("json", "create", "prune")
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call belongs that this host's engine cannot answer. `container` is empty for calls about an exec."""

    node_id: str
    container: str
    makes_exec: bool = False
    shows: Task | None = None  # the task whose document goes with the container's

    @property
    def joins(self) -> bool:
        """The call is carried out with the connection; else it is carried out here, on the client's behalf."""
        return not self.makes_exec and self.shows is None

    def head(self, head: Head) -> Head:
        """The request's head with the container's id in place of the term."""
        if not self.container:
            return head
        target = re.sub(r"(/containers/)[^/?]+", rf"\g<1>{self.container}", head.target, count=1)
        line, rest = head.raw.split(b"\r\n", 1)
        method, _, version = line.split(b" ")
        return replace(head, target=target, raw=b" ".join((method, target.encode("latin-1"), version)) + b"\r\n" + rest)


class RemoteContainers:
    """Finds the host of a container, and talks to its engine."""

    def __init__(self, node: NodeControl, engine: EngineClient) -> None:
        self._node = node
        self._engine = engine
        self._execs: OrderedDict[str, str] = OrderedDict()  # exec id → node id

    async def place(self, method: str, path: str) -> Place | None:
        """Where to send the call; None for this host's engine, as it is. `path` is without the version.

        Raises BadRequest when the term names several tasks' containers.
        """
        found = _EXEC.fullmatch(path)
        if found is not None:
            node_id = self._execs.get(found[1]) or await self._where(found[1])
            return Place(node_id, "") if node_id else None
        found = _CONTAINER.fullmatch(path)
        if found is None or found[1] in _NO_TERMS or not self._node.is_manager:
            return None
        try:
            view = self._node.manager().store.view()
        except ClusterError:
            return None
        term = found[1]
        task = named(view, term)
        if task is None:
            if (await self._engine.call("GET", f"/containers/{term}/json")).status != 404:
                return None
            task = meant(view, term)
        if task is None:
            return None
        container = _container_of(task)
        if not container:
            raise NotFound(f"task {task.id} has no container (it is {task.status.state})")
        if method == "GET" and found[2] == "/json" and task.id.startswith(term):
            return Place(task.node_id, container, shows=task)
        return Place(task.node_id, container, makes_exec=method == "POST" and found[2] == "/exec")

    async def _where(self, exec_id: str) -> str:
        """The node that has an exec which was made before this agent started; empty when it is this host, or none."""
        if not self._node.is_manager or (await self._engine.call("GET", f"/exec/{exec_id}/json")).status != 404:
            return ""
        try:
            nodes = self._node.manager().store.view().all(Node)
        except ClusterError:
            return ""
        others = [node.id for node in nodes if node.id != self._node.node_id and node.status.state == "ready"]
        for node_id, has in zip(
            others, await asyncio.gather(*(self._has(id_, exec_id) for id_ in others)), strict=True
        ):
            if has:
                self._remember(exec_id, node_id)
                return node_id
        return ""

    async def _has(self, node_id: str, exec_id: str) -> bool:
        async with self._engine_of(node_id) as engine:
            try:
                return (await engine.call("GET", f"/exec/{exec_id}/json")).status == 200
            except ClusterError:
                return False

    async def connect(self, place: Place) -> socket:
        """A connection to the engine there. Raises ClusterError."""
        return await self._node.connect_engine(place.node_id)

    async def answer(self, place: Place, request: Request) -> Response:
        """Carry out a call that `joins` says is not to be joined. Raises ClusterError."""
        async with self._engine_of(place.node_id) as engine:
            path = f"/v{show(request.version)}/containers/{place.container}"
            if place.shows is not None:
                try:
                    reply = await engine.call("GET", f"{path}/json", request.query)
                except ClusterError as error:  # not found: so `docker inspect` goes on and shows the task alone
                    raise NotFound(f"the container of task {place.shows.id} cannot be looked at: {error}") from error
                return with_task(reply, place.shows) if reply.status == 200 else reply
            reply = await engine.call("POST", f"{path}/exec", request.query, request.body)
        if reply.status == 201 and place.node_id != self._node.node_id:
            self._remember(msgspec.json.decode(reply.body)["Id"], place.node_id)
        return reply

    def _remember(self, exec_id: str, node_id: str) -> None:
        self._execs[exec_id] = node_id
        while len(self._execs) > REMEMBERED:
            self._execs.popitem(last=False)

    @contextlib.asynccontextmanager
    async def _engine_of(self, node_id: str) -> AsyncIterator[EngineClient]:
        engine = EngineClient(f"node {node_id}", connect=lambda: self._node.connect_engine(node_id))
        try:
            yield engine
        finally:
            await engine.close()


def with_task(container: Response, task: Task) -> Response:
    """The container's document with the task's members at its end. They share no name; but Go reads both `Id` and `ID`
    into one field, in which the last one stays: so `docker inspect --format {{.ID}}` gives the task's, as in Swarm.
    """
    body = container.body.strip()[:-1] + b"," + encode(task)[1:] + b"\n"
    return msgspec.structs.replace(container, body=body)


def named(view: Reader, term: str) -> Task | None:
    """The task with exactly this id or full name: found without a search."""
    task = view.get(Task, term.rpartition(".")[2])
    return task if task is not None and term in (task.id, task.name) else None


def meant(view: Reader, term: str) -> Task | None:
    """The task that a shortened id, a container's id or a place names. Raises BadRequest when there are several."""
    service_name, dot, slot = term.rpartition(".")
    if dot:
        services = view.find(Service, name=service_name.lower())
        if not services or not slot.isdigit():
            return None
        return _current(task for task in view.find(Task, service_id=services[0].id) if task.slot == int(slot))
    if len(term) < SHORTEST:
        return None
    found = {task.id: task for task in view.by_prefix(Task, term) if _container_of(task)}
    if _HEX.fullmatch(term):
        found |= {task.id: task for task in view.all(Task) if _container_of(task).startswith(term)}
    if len(found) > 1:
        raise BadRequest(f"container {term} is ambiguous ({len(found)} matches found)")
    return next(iter(found.values()), None)


def _current(tasks: Iterable[Task]) -> Task | None:
    """Of a slot's tasks the one that runs, else the newest."""
    return max(tasks, key=lambda task: (task.status.state is TaskState.RUNNING, task.created_at), default=None)


def _container_of(task: Task) -> str:
    status = task.status.container_status
    return status.container_id if status is not None and task.node_id else ""
