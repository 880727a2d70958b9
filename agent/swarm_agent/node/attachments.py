"""Plain containers on cluster networks: `docker run --network NET`, `docker network connect` (swarm.md §1.7).

As in Swarm such a place is a task, with the runtime "attachment" and no service: it holds the address, keeps the
network from being removed and makes the managers bring the network to this host. The task names the container once
that exists. All state is the managers'; this part compares the tasks with the engine whenever a container here changes:
a running container's row is gossiped, so that others reach it by address and name, and when the container is gone or
off the network, the task is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from swarm_agent.model import times
from swarm_agent.model.addresses import ip_of, mac_of
from swarm_agent.model.errors import ClusterError
from swarm_agent.model.ids import new_id
from swarm_agent.model.objects import Network, Task, TaskStatus
from swarm_agent.model.rows import AddressRow, EndpointRow
from swarm_agent.model.session import Assignments, TaskStatusUpdate
from swarm_agent.model.states import TaskState
from swarm_agent.worker.engine import Container, EngineApi, EngineError, EngineGone

from .attachment_routes import ATTACH, BIND, DETACH, AttachAnswer, AttachRequest, BindRequest, is_attachment

log = logging.getLogger(__name__)

RETRY = 1.0


class Plane(Protocol):
    """The data plane, as far as it is needed here."""

    @property
    def networks(self) -> Sequence[Network]: ...
    async def attach(self, network_id: str) -> str: ...
    async def activate(self, row: EndpointRow) -> None: ...
    async def deactivate(self, task_id: str) -> None: ...
    async def withdraw(self, task_id: str) -> None: ...
    def resolvers(self, task: Task) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Place:
    """A place on a network for one container of this host."""

    task_id: str
    engine_network: str
    ip: str
    mac: str
    resolvers: tuple[str, ...]
    ip6: str = ""  # on networks with IPv6


class Attachments:
    """`ask(path, body)` asks the leader. `report` tells it what became of tasks."""

    def __init__(
        self,
        engine: EngineApi,
        plane: Plane,
        ask: Callable[[str, bytes], Awaitable[bytes]],
        report: Callable[[list[TaskStatusUpdate]], None],
    ) -> None:
        self._engine = engine
        self._plane = plane
        self._ask = ask
        self._report = report
        self._rng = secrets.SystemRandom()
        self._tasks: dict[str, Task] = {}
        self._rows: dict[str, EndpointRow] = {}
        # Places that are asked for, until the leader sends them with a container.
        self._being_made: set[str] = set()
        self._wake = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []

    @property
    def networks(self) -> Sequence[Network]:
        """The cluster networks that this host has, as the leader last told of them."""
        return self._plane.networks

    def start(self) -> None:
        self._running = [
            asyncio.create_task(self._run(), name="attachments"),
            asyncio.create_task(self._watch(), name="attachments-events"),
        ]

    async def stop(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running = []

    def assign(self, message: Assignments) -> Assignments:
        """Take the attachments out of what the leader says; the rest is the worker's."""
        own = [task for task in message.tasks if is_attachment(task)]
        if message.complete:
            self._tasks.clear()
        for task_id in message.gone_tasks:
            self._tasks.pop(task_id, None)
        self._tasks.update({task.id: task for task in own})
        self._being_made -= {task.id for task in own if _container_id(task)}
        self._wake.set()
        if not own:
            return message
        return msgspec.structs.replace(message, tasks=[task for task in message.tasks if not is_attachment(task)])

    def wake(self) -> None:
        """Containers or their networks may have changed."""
        self._wake.set()

    # --- for the front door ------------------------------------------------------------------------------------------

    async def attach(self, network: str, address: str = "") -> Place:
        """A place on the network (id, name or beginning of id), for a container to be. `bind` or `release` it.
        `address`: of IPv4, when it has to be a certain one.

        Raises ClusterError: 404 when the cluster has no such network, 403 when it is not attachable, 500 when it has
        no address to give, or not this one.
        """
        task_id = new_id(self._rng)  # known before the task can come with the assignments
        self._being_made.add(task_id)
        try:
            answer = await self._ask(ATTACH, _encode(AttachRequest(task_id, network, address)))
        except BaseException:
            self._being_made.discard(task_id)
            raise
        task = msgspec.json.decode(answer, type=AttachAnswer).task
        try:
            attachment = task.networks_attachments[0]
            name = await self._plane.attach(attachment.network.id)
            ip = ip_of(attachment.addresses[0])
            ip6 = next((ip_of(address) for address in attachment.addresses if ":" in address), "")
            return Place(task.id, name, ip, mac_of(ip), tuple(self._plane.resolvers(task)), ip6)
        except BaseException:
            await self.release(task.id)
            raise

    async def bind(self, task_id: str, container_id: str) -> None:
        """The place is this container's. Raises ClusterError."""
        await self._ask(BIND, _encode(BindRequest(task_id, container_id)))

    async def release(self, task_id: str) -> None:
        """Give a place back; a failure is made good later."""
        self._being_made.discard(task_id)
        try:
            await self._ask(DETACH, _encode(BindRequest(task_id, "")))
        except (ClusterError, TimeoutError) as error:
            log.warning("place %s could not be given back yet: %s", task_id, error)

    # --- keeping up --------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Every event of a container is a reason to look."""
        while True:
            with contextlib.suppress(EngineError):
                async for _ in self._engine.events([]):
                    if self._tasks or self._rows:
                        self._wake.set()
            await asyncio.sleep(RETRY)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._compare()
            except EngineGone as error:
                log.info("places on networks cannot be checked now: %s", error)
                await asyncio.sleep(RETRY)
                self._wake.set()
            except Exception:
                log.exception("checking places on networks failed")
                await asyncio.sleep(RETRY)

    async def _compare(self) -> None:
        for task_id in self._rows.keys() - self._tasks.keys():
            await self._silence(task_id)
        for task_id in list(self._tasks):
            task = self._tasks.get(task_id)
            if task is None or task_id in self._being_made:
                continue
            container = await self._container(task)
            if self._tasks.get(task_id) is not task:
                continue  # the leader has told of it anew, which is a reason to look again
            if container is None:
                await self._silence(task.id)
                self._tasks.pop(task.id, None)
                await self.release(task.id)
            elif container.state.running:
                await self._tell(task, row_of(task, container))
            else:
                await self._silence(task.id)

    async def _container(self, task: Task) -> Container | None:
        """The task's container, while it is on the network with the task's address."""
        container_id = _container_id(task)
        if not container_id:
            return None  # whoever asked for the place died before there was a container
        try:
            container = await self._engine.inspect(container_id)
        except EngineGone:
            raise
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        ip = ip_of(task.networks_attachments[0].addresses[0])
        return container if any(ip in place.addresses for place in container.places) else None

    async def _tell(self, task: Task, row: EndpointRow) -> None:
        if self._rows.get(task.id) != row:
            self._rows[task.id] = row
            await self._plane.activate(row)
            log.info("container %s is on network %s", row.hostname, task.networks_attachments[0].network.spec.name)
            self._report([TaskStatusUpdate(task.id, _status(TaskState.RUNNING, "started"))])

    async def _silence(self, task_id: str) -> None:
        if self._rows.pop(task_id, None) is not None:
            await self._plane.deactivate(task_id)
            await self._plane.withdraw(task_id)


def _container_id(task: Task) -> str:
    spec = task.spec.network_attachment_spec
    return spec.container_id if spec is not None else ""


def row_of(task: Task, container: Container) -> EndpointRow:
    """What others are told of the container: its name and aliases belong to no service."""
    attachment = task.networks_attachments[0]
    ip = ip_of(attachment.addresses[0])
    aliases = {alias for place in container.places if ip in place.addresses for alias in place.aliases or ()}
    name = container.name.removeprefix("/")
    return EndpointRow(
        task_id=task.id,
        service_id="",
        service_name="",
        slot=0,
        container_id=container.id,
        addresses=(AddressRow(attachment.network.id, ip, mac_of(ip), aliases=tuple(sorted(aliases - {name}))),),
        hostname=name,
    )


def _status(state: TaskState, message: str) -> TaskStatus:
    return TaskStatus(timestamp=times.now(), state=state, message=message)


def _encode(message: object) -> bytes:
    return msgspec.json.encode(message)
