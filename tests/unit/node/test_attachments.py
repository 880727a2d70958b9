"""Plain containers on cluster networks: the tasks that hold their places, and what a node makes of them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from swarm_agent.model.errors import Forbidden, NotFound, PermissionDenied, UnknownError
from swarm_agent.model.objects import Network, NetworkAttachment, Task, TaskStatus
from swarm_agent.model.rows import EndpointRow
from swarm_agent.model.session import Assignments
from swarm_agent.model.specs import NetworkAttachmentSpec, NetworkSpec, TaskSpec
from swarm_agent.model.states import TaskState
from swarm_agent.node import attachment_routes as routes
from swarm_agent.node.attachments import Attachments
from swarm_agent.store.memory import memory_store
from swarm_agent.worker.engine import Container, EngineError

replace = msgspec.structs.replace
NETWORK = Network(id="net1", spec=NetworkSpec(name="open", attachable=True, scope="swarm"))
TASK_ID = "t" * 25


def placed(task: Task, container: str = "") -> Task:
    """As the allocator and the scheduler leave it."""
    spec = replace(task.spec, network_attachment_spec=NetworkAttachmentSpec(container_id=container))
    return replace(
        task,
        spec=spec,
        status=TaskStatus(state=TaskState.ASSIGNED),
        networks_attachments=[NetworkAttachment(network=NETWORK, addresses=["10.0.1.7/24"])],
    )


@pytest.fixture
async def store():
    store = memory_store()
    networks = (NETWORK, Network(id="net2", spec=NetworkSpec(name="closed")))
    await store.update(lambda tx: [tx.create(network) for network in networks])
    yield store
    await store.close()


async def test_a_place_is_given_when_it_has_an_address(store):
    waiting = asyncio.create_task(routes.attach(store, TASK_ID, "n1", "open"))
    while store.view().get(Task, TASK_ID) is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    made = store.view().get(Task, TASK_ID)
    assert (made.node_id, made.service_id, made.desired_state) == ("n1", "", TaskState.RUNNING)
    assert routes.is_attachment(made) and made.spec.networks[0].target == "net1"
    await store.update(lambda tx: tx.update(placed(tx.get(Task, TASK_ID))))
    assert (await waiting).networks_attachments[0].addresses == ["10.0.1.7/24"]


async def test_an_address_that_is_not_to_be_had_is_waited_for_less_long(store, monkeypatch):
    monkeypatch.setattr(routes, "PATIENCE", 0.05)
    waiting = asyncio.create_task(routes.attach(store, TASK_ID, "n1", "open", "10.0.1.9"))
    while store.view().get(Task, TASK_ID) is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    made = store.view().get(Task, TASK_ID)
    assert made.wanted_address == "10.0.1.9"
    await store.update(lambda tx: tx.update(replace(made, status=TaskStatus(state=TaskState.NEW, err="it is in use"))))
    with pytest.raises(UnknownError, match="it is in use"):
        await waiting
    assert store.view().get(Task, TASK_ID) is None


async def test_what_cannot_be_attached_leaves_nothing(store, monkeypatch):
    monkeypatch.setattr(routes, "TIMEOUT", 0.05)
    for term, error, text in (
        ("closed", PermissionDenied, "network closed not manually attachable"),
        ("nowhere", NotFound, "network nowhere not found"),
        ("open", UnknownError, "context deadline exceeded"),
    ):
        with pytest.raises(error, match=text):
            await routes.attach(store, TASK_ID, "n1", term)
    assert store.view().all(Task) == []


async def test_a_node_changes_its_own_places_only(store):
    await store.update(lambda tx: routes.create_attachment(tx, TASK_ID, "n1", "open"))
    service_task = Task(id="s" * 25, node_id="n2")
    await store.update(lambda tx: tx.create(service_task))
    for task_id in (TASK_ID, service_task.id):
        with pytest.raises(Forbidden):
            await store.update(lambda tx, task_id=task_id: routes.release(tx, task_id, "n2"))
        with pytest.raises(Forbidden):
            await store.update(lambda tx, task_id=task_id: routes.bind(tx, task_id, "n2", "c"))
    await store.update(lambda tx: routes.bind(tx, TASK_ID, "n1", "c0ffee"))
    assert store.view().get(Task, TASK_ID).spec.network_attachment_spec.container_id == "c0ffee"
    await store.update(lambda tx: routes.release(tx, TASK_ID, "n1"))
    await store.update(lambda tx: routes.release(tx, TASK_ID, "n1"))  # twice is fine
    with pytest.raises(UnknownError):
        await store.update(lambda tx: routes.bind(tx, TASK_ID, "n1", "c"))


class Plane:
    """What the data plane was told, and an engine that has some containers."""

    def __init__(self) -> None:
        self.rows: dict[str, EndpointRow] = {}
        self.containers: dict[str, Container] = {}
        self.asked: list[tuple[str, Any]] = []
        self.changed: asyncio.Queue[None] = asyncio.Queue()

    async def attach(self, network_id: str) -> str:
        return "open"

    def resolvers(self, task: Task) -> list[str]:
        return ["10.0.1.2"]

    async def activate(self, row: EndpointRow) -> None:
        self.rows[row.task_id] = row

    async def deactivate(self, task_id: str) -> None:
        pass

    async def withdraw(self, task_id: str) -> None:
        self.rows.pop(task_id)

    async def ask(self, path: str, body: bytes) -> bytes:
        message = msgspec.json.decode(body)
        self.asked.append((path, message))
        if path != routes.ATTACH:
            return b"{}"
        return msgspec.json.encode(routes.AttachAnswer(placed(attachment(id=message["task_id"]))))

    async def inspect(self, container: str) -> Container:
        if container not in self.containers:
            raise EngineError(404, "No such container")
        return self.containers[container]

    async def events(self, labels: list[str]) -> Any:
        while True:
            yield await self.changed.get()

    def has(self, container: str, *, running: bool = True, ip: str = "10.0.1.7") -> None:
        told = {
            "Id": container,
            "Name": "/box",
            "State": {"Running": running},
            "NetworkSettings": {
                "Networks": {
                    "open": {"IPAddress": "", "IPAMConfig": {"IPv4Address": ip}, "Aliases": ["pair"]},
                    "bridge": {"IPAddress": "172.17.0.2", "IPAMConfig": None, "Aliases": None},
                }
            },
        }
        self.containers[container] = msgspec.convert(told, Container)
        self.changed.put_nowait(None)


def attachment(**fields: Any) -> Task:
    return Task(node_id="n1", spec=TaskSpec(runtime=routes.RUNTIME), **fields)


@pytest.fixture
async def plane():
    return Plane()


@pytest.fixture
async def attachments(plane):
    reported: list[Any] = []
    made = Attachments(plane, plane, plane.ask, reported.extend)
    made.reported = reported
    made.start()
    yield made
    await made.stop()


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def assigned(*tasks: Task, complete: bool = False) -> Assignments:
    return Assignments(complete=complete, tasks=list(tasks))


def released(plane: Plane) -> list[str]:
    return [body["task_id"] for path, body in plane.asked if path == routes.DETACH]


async def test_the_worker_never_hears_of_places(attachments):
    service_task = Task(id="s1")
    rest = attachments.assign(assigned(placed(attachment(id="a1"), "box1"), service_task, complete=True))
    assert (rest.tasks, rest.complete) == ([service_task], True)


async def test_a_running_container_is_told_to_all_and_silenced_when_it_stops(attachments, plane):
    plane.has("box1")
    attachments.assign(assigned(placed(attachment(id="a1"), "box1")))
    await until(lambda: "a1" in plane.rows)
    row = plane.rows["a1"]
    assert (row.hostname, row.service_name, row.container_id) == ("box", "", "box1")
    assert (row.addresses[0].ip, row.addresses[0].mac, row.addresses[0].aliases) == (
        "10.0.1.7",
        "02:42:0a:00:01:07",
        ("pair",),
    )
    assert [update.status.state for update in attachments.reported] == [TaskState.RUNNING]
    plane.has("box1", running=False)
    await until(lambda: not plane.rows)
    assert released(plane) == []
    plane.has("box1")
    await until(lambda: plane.rows)


@pytest.mark.parametrize("accident", ["removed", "disconnected"])
async def test_the_place_is_given_back_with_the_container(attachments, plane, accident):
    plane.has("box1")
    attachments.assign(assigned(placed(attachment(id="a1"), "box1")))
    await until(lambda: plane.rows)
    if accident == "removed":
        plane.containers.clear()
        plane.changed.put_nowait(None)
    else:
        plane.has("box1", ip="10.0.2.9")
    await until(lambda: released(plane) == ["a1"])
    assert plane.rows == {}


async def test_a_place_is_kept_while_its_container_is_being_made(attachments, plane):
    place = await attachments.attach("open")
    assert (place.engine_network, place.ip, place.resolvers) == ("open", "10.0.1.7", ("10.0.1.2",))
    task = attachment(id=place.task_id)
    attachments.assign(assigned(placed(task)))
    plane.has("box1")
    await attachments.bind(place.task_id, "box1")
    attachments.wake()
    await asyncio.sleep(0.02)
    assert released(plane) == []
    attachments.assign(assigned(placed(task, "box1")))
    await until(lambda: place.task_id in plane.rows)


async def test_a_place_is_kept_when_its_container_comes_while_another_is_looked_at(attachments, plane):
    """It was judged by what the leader had said before, as a place without a container, and given back."""
    plane.has("box1")
    place = await attachments.attach("open")
    task = attachment(id=place.task_id)
    slow, looking = asyncio.Event(), asyncio.Event()
    inspect = plane.inspect

    async def inspect_slowly(container):
        looking.set()
        await slow.wait()
        return await inspect(container)

    plane.inspect = inspect_slowly
    attachments.assign(assigned(placed(attachment(id="a1"), "box1"), placed(task)))
    await looking.wait()
    plane.has("box2")
    attachments.assign(assigned(placed(task, "box2")))
    slow.set()
    await until(lambda: place.task_id in plane.rows)
    assert released(plane) == []


async def test_a_place_that_nobody_uses_is_given_back(attachments, plane):
    attachments.assign(assigned(placed(attachment(id="a1")), complete=True))
    await until(lambda: released(plane) == ["a1"])


async def test_a_place_that_the_managers_took_away_is_silenced(attachments, plane):
    plane.has("box1")
    attachments.assign(assigned(placed(attachment(id="a1"), "box1")))
    await until(lambda: plane.rows)
    attachments.assign(Assignments(gone_tasks=["a1"]))
    await until(lambda: not plane.rows)
