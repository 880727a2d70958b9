"""Containers of tasks, wherever they run: `docker exec`, `attach`, `logs`, `inspect`, `cp`, … from any manager.

A call to /containers/{term}/… is this host's engine's if that knows the container. If not, and the term names a task's
container on another host, the connection is joined to that host's engine, with the container's id in the path: by task
id, task name (SERVICE.SLOT.TASK), place (SERVICE.SLOT, the running task there) or container id; ids may be shortened.

An exec has an id of its own, which later calls name alone (/exec/{id}/start), so the host where one was made on behalf
of a client is remembered.

Trap: `docker inspect ID` looks for containers first, so with a task's id it shows the task's container;
`docker inspect --type task ID` shows the task.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from socket import socket

import msgspec

from swarm_agent.model.errors import BadRequest, ClusterError, NotFound
from swarm_agent.model.objects import Service, Task
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
            node_id = self._execs.get(found[1])
            return Place(node_id, "") if node_id is not None else None
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
        return Place(task.node_id, container, makes_exec=method == "POST" and found[2] == "/exec")

    async def connect(self, place: Place) -> socket:
        """A connection to the engine there. Raises ClusterError."""
        return await self._node.connect_engine(place.node_id)

    async def make_exec(self, place: Place, request: Request) -> Response:
        """Carry out POST /containers/{id}/exec on the container's host, and remember which it was."""
        engine = EngineClient(f"node {place.node_id}", connect=lambda: self._node.connect_engine(place.node_id))
        try:
            path = f"/v{show(request.version)}/containers/{place.container}/exec"
            reply = await engine.call("POST", path, request.query, request.body)
        finally:
            await engine.close()
        if reply.status == 201 and place.node_id != self._node.node_id:
            self._execs[msgspec.json.decode(reply.body)["Id"]] = place.node_id
            while len(self._execs) > REMEMBERED:
                self._execs.popitem(last=False)
        return reply


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
