"""The leader's part of plain containers on cluster networks (attachments.py).

| route | what |
|---|---|
| POST /v1/attach | make an attachment task for the caller's node; answers when it has an address |
| POST /v1/attach/bind | the task's container |
| POST /v1/attach/release | the place is no longer needed |

For members, and each only for its own node.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TypeVar

import msgspec
from aiohttp import web
from msgspec.structs import replace

from swarm_agent.manager.control.lookup import find
from swarm_agent.model.errors import Forbidden, InvalidArgument, PermissionDenied, UnknownError
from swarm_agent.model.objects import Network, Task, TaskStatus
from swarm_agent.model.specs import NetworkAttachmentConfig, NetworkAttachmentSpec, TaskSpec
from swarm_agent.model.states import TaskState
from swarm_agent.pki.authority import Identity
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx

ATTACH, BIND, DETACH = "/v1/attach", "/v1/attach/bind", "/v1/attach/release"
RUNTIME = "attachment"
TIMEOUT = 15.0  # seconds for the allocator and the scheduler; Swarm's clients wait 20
PATIENCE = 5.0  # seconds, for who wants an address that another has

_ID = re.compile(r"[0-9a-z]{25}")

T = TypeVar("T")


class AttachRequest(msgspec.Struct, frozen=True):
    """Body of POST /v1/attach."""

    task_id: str  # a new id, chosen by the node
    network: str  # id, name or beginning of the id
    address: str = ""  # of IPv4, when the container is to have a certain one


class AttachAnswer(msgspec.Struct, frozen=True):
    """The task, with its address."""

    task: Task


class BindRequest(msgspec.Struct, frozen=True):
    """Body of the other two."""

    task_id: str
    container_id: str


def is_attachment(task: Task) -> bool:
    """Whether the task is a plain container's place on a network."""
    return task.spec.runtime == RUNTIME


def create_attachment(tx: Tx, task_id: str, node_id: str, term: str, address: str = "") -> Task:
    """The new task. Raises NotFound, BadRequest (ambiguous), PermissionDenied."""
    network = find(tx, Network, term)
    if not network.spec.attachable or network.spec.ingress:
        raise PermissionDenied(f"network {network.spec.name} not manually attachable")
    task = Task(
        id=task_id,
        node_id=node_id,
        spec=TaskSpec(
            runtime=RUNTIME,
            network_attachment_spec=NetworkAttachmentSpec(),
            networks=[NetworkAttachmentConfig(target=network.id)],
        ),
        status=TaskStatus(timestamp=tx.now, state=TaskState.NEW, message="created"),
        desired_state=TaskState.RUNNING,
        wanted_address=address,
    )
    return tx.create(task)


def own_attachment(tx: Tx, task_id: str, node_id: str) -> Task | None:
    """The node's attachment, or None when it is gone. Raises Forbidden for any other task."""
    task = tx.get(Task, task_id)
    if task is not None and (task.node_id != node_id or not is_attachment(task)):
        raise Forbidden(f"task {task_id} is no attachment of node {node_id}")
    return task


def bind(tx: Tx, task_id: str, node_id: str, container_id: str) -> None:
    """Note the container. Raises UnknownError when the task is gone."""
    task = own_attachment(tx, task_id, node_id)
    if task is None:
        raise UnknownError(f"the place on the network (task {task_id}) was given up meanwhile")
    spec = replace(task.spec, network_attachment_spec=NetworkAttachmentSpec(container_id=container_id))
    tx.update(replace(task, spec=spec))


def release(tx: Tx, task_id: str, node_id: str) -> None:
    """Delete the task, which frees its address."""
    if own_attachment(tx, task_id, node_id) is not None:
        tx.delete(Task, task_id)


class AttachmentRoutes:
    """Handlers. `member_of(request)` names the peer or refuses it; `lead()` refuses when this manager does not lead."""

    def __init__(
        self, store: Callable[[], Store], member_of: Callable[[web.Request], Identity], lead: Callable[[], object]
    ) -> None:
        self._store = store
        self._member_of = member_of
        self._lead = lead

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_post(ATTACH, self._attach)
        router.add_post(BIND, self._bind)
        router.add_post(DETACH, self._release)

    async def _asked(self, request: web.Request, kind: type[T]) -> tuple[str, T]:
        """The caller's node, and its body."""
        identity = self._member_of(request)
        self._lead()
        try:
            return identity.node_id, msgspec.json.decode(await request.read(), type=kind)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"the request for a place on a network cannot be read: {error}") from None

    async def _attach(self, request: web.Request) -> web.Response:
        node_id, asked = await self._asked(request, AttachRequest)
        if _ID.fullmatch(asked.task_id) is None:
            raise InvalidArgument(f"{asked.task_id!r} is no id for a task")
        task = await attach(self._store(), asked.task_id, node_id, asked.network, asked.address)
        return web.json_response(body=msgspec.json.encode(AttachAnswer(task)))

    async def _bind(self, request: web.Request) -> web.Response:
        node_id, asked = await self._asked(request, BindRequest)
        await self._store().update(lambda tx: bind(tx, asked.task_id, node_id, asked.container_id))
        return web.json_response({})

    async def _release(self, request: web.Request) -> web.Response:
        node_id, asked = await self._asked(request, BindRequest)
        await self._store().update(lambda tx: release(tx, asked.task_id, node_id))
        return web.json_response({})


async def attach(store: Store, task_id: str, node_id: str, term: str, address: str = "") -> Task:
    """Make an attachment and wait until it has its address and its node knows. Raises ClusterError when it gets none.

    One who wants a certain `address` waits less long: whoever gives it up does so within moments, or not soon.
    """
    changed = asyncio.Event()
    unsubscribe = store.subscribe(lambda changes: changed.set())
    try:
        await store.update(lambda tx: create_attachment(tx, task_id, node_id, term, address))
        async with asyncio.timeout(PATIENCE if address else TIMEOUT):
            while True:
                changed.clear()
                task = store.view().get(Task, task_id)
                if task is None:
                    raise UnknownError(f"the network was removed while task {task_id} was being attached")
                if task.status.state.rank >= TaskState.ASSIGNED.rank and task.networks_attachments:
                    return task
                await changed.wait()
    except TimeoutError:
        task = store.view().get(Task, task_id)
        why = task.status.err if task is not None and task.status.err else "context deadline exceeded"
        await store.update(lambda tx: release(tx, task_id, node_id))
        raise UnknownError(why) from None
    finally:
        unsubscribe()
