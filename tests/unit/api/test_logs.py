"""Logs of services and tasks: the frames that a client gets, from the engines of several nodes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from msgspec.structs import replace

from swarm_agent.api import logs
from swarm_agent.model.objects import ContainerStatus, Service, Task, TaskStatus
from swarm_agent.model.specs import ContainerSpec, ServiceSpec, TaskSpec
from swarm_agent.model.states import TaskState
from tests.unit.api.kit import NODE_ID, Door, make_node

WEB = "web0000000000000000000000"
OTHER = "node00000000000000000000b"
STAMP = "2026-01-02T03:04:05.000000006Z"


def frames(data: bytes) -> list[tuple[int, str]]:
    """What Docker's clients make of a multiplexed stream."""
    found = []
    while data:
        stream, length = struct.unpack(">BxxxL", data[:8])
        found.append((stream, data[8 : 8 + length].decode()))
        data = data[8 + length :]
    return found


@dataclass
class LogEngine:
    """An engine with containers that have said something: id → (stream, details, line)."""

    logs: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    queries: list[dict[str, str]] = field(default_factory=list)
    tty: bool = False
    more: asyncio.Queue[tuple[int, str, str] | None] = field(default_factory=asyncio.Queue)
    open: int = 0
    created: set[str] = field(default_factory=set)  # not started: their logs end at once, followed or not
    refusal: str = ""  # what it says instead of any log

    async def handle(self, request: web.Request) -> web.StreamResponse:
        container = request.path.split("/")[-2]
        self.queries.append(dict(request.query))
        if self.refusal:
            return web.json_response({"message": self.refusal}, status=501)
        if container not in self.logs:
            return web.json_response({"message": f"No such container: {container}"}, status=404)
        reply = web.StreamResponse()
        await reply.prepare(request)
        self.open += 1
        try:
            for line in self.logs[container]:
                await reply.write(self.encode(*line))
            follow = request.query["follow"] == "1" and container not in self.created
            while follow and (line := await self.more.get()) is not None:
                await reply.write(self.encode(*line))
        finally:
            self.open -= 1
        return reply

    def encode(self, stream: int, details: str, line: str) -> bytes:
        if self.tty:
            return line.encode()
        payload = f"{STAMP} {details} {line}".encode()
        return struct.pack(">BxxxL", stream, len(payload)) + payload


@asynccontextmanager
async def listening(path: Path) -> AsyncIterator[LogEngine]:
    engine = LogEngine()
    runner = web.ServerRunner(web.Server(engine.handle, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield engine
    finally:
        await runner.cleanup()


def task_of(slot: int, node_id: str = NODE_ID, container: str = "", **fields: Any) -> Task:
    status = TaskStatus(
        state=TaskState.RUNNING if container else TaskState.ASSIGNED,
        container_status=ContainerStatus(container_id=container) if container else None,
    )
    return Task(
        id=f"task{slot:021d}",
        service_id=WEB,
        slot=slot,
        node_id=node_id,
        spec=TaskSpec(container_spec=ContainerSpec(image="alpine")),
        status=status,
        desired_state=TaskState.RUNNING,
        **fields,
    )


def origin(slot: int, node_id: str = NODE_ID) -> str:
    prefix = "com.docker.swarm"
    return f"{prefix}.node.id={node_id},{prefix}.service.id={WEB},{prefix}.task.id=task{slot:021d}"


@pytest.fixture
async def world(swarm: Door, tmp_path: Path):
    """A service `web` on two nodes; returns the door and the two engines."""
    spec = ServiceSpec(name="web", task_template=TaskSpec(container_spec=ContainerSpec(image="alpine")))
    await put(swarm, Service(id=WEB, spec=spec), make_node(OTHER, "second"))
    async with AsyncExitStack() as stack:
        engines = {}
        for node_id in (NODE_ID, OTHER):
            swarm.node.engines[node_id] = tmp_path / f"{node_id}.sock"
            engines[node_id] = await stack.enter_async_context(listening(swarm.node.engines[node_id]))
        yield swarm, engines[NODE_ID], engines[OTHER]


async def put(door: Door, *objects: Any) -> None:
    def write(tx: Any) -> None:
        for obj in objects:
            old = tx.get(type(obj), obj.id)
            tx.create(obj) if old is None else tx.update(replace(obj, version=old.version))

    await door.store.update(write)


async def get(door: Door, path: str) -> tuple[int, str, bytes]:
    async with asyncio.timeout(10), door.session.get(f"http://door{path}") as reply:
        return reply.status, reply.headers["Content-Type"], await reply.read()


async def test_lines_of_all_nodes_come_with_their_origin(world):
    door, first, second = world
    await put(door, task_of(1, container="aa"), task_of(2, OTHER, container="bb"))
    first.logs["aa"] = [(1, "", "hello\n"), (2, "", "oops\n")]
    second.logs["bb"] = [(1, "tag=x", "from afar\n")]
    status, kind, body = await get(door, "/services/web/logs?stdout=1&stderr=1&details=1")
    assert (status, kind) == (200, "application/vnd.docker.raw-stream")
    assert sorted(frames(body)) == sorted(
        [
            (1, f"{origin(1)} hello\n"),
            (2, f"{origin(1)} oops\n"),
            (1, f"{origin(2, OTHER)},tag=x from afar\n"),
        ]
    )


async def test_time_stamps_come_first_and_without_details_there_are_no_pairs(world):
    door, first, _ = world
    await put(door, task_of(1, container="aa"))
    first.logs["aa"] = [(1, "", "two  words \n")]
    assert frames((await get(door, "/services/web/logs?stdout=1"))[2]) == [(1, "two  words \n")]
    body = (await get(door, "/services/web/logs?stdout=1&timestamps=1&details=1"))[2]
    assert frames(body) == [(1, f"{STAMP} {origin(1)} two  words \n")]


async def test_a_task_alone(world):
    door, first, second = world
    await put(door, task_of(1, container="aa"), task_of(2, OTHER, container="bb"))
    first.logs["aa"], second.logs["bb"] = [(1, "", "one\n")], [(1, "", "two\n")]
    assert frames((await get(door, f"/tasks/task{2:021d}/logs?stdout=1"))[2]) == [(1, "two\n")]


async def test_the_engine_is_asked_for_what_the_client_wants(world):
    door, first, _ = world
    await put(door, task_of(1, container="aa"))
    first.logs["aa"] = []
    await get(door, "/services/web/logs?stderr=1&tail=5&since=1700000000.5&until=1800000000")
    assert first.queries == [
        {
            "stdout": "0",
            "stderr": "1",
            "follow": "0",
            "timestamps": "1",
            "details": "1",
            "tail": "5",
            "since": "1700000000.5",
            "until": "1800000000",
        }
    ]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "Bad parameters: you must choose at least one stream"),
        ("stdout=1&tail=many", 'tail value must be a positive integer or "all"'),
        ("stdout=1&tail=-3", "negative tail values not supported"),
        ("stdout=1&since=never", 'could not parse since timestamp: strconv.ParseInt: parsing "never": invalid syntax'),
        ("stdout=1&until=never", 'could not parse until timestamp: strconv.ParseInt: parsing "never": invalid syntax'),
    ],
)
async def test_what_cannot_be_read_is_refused(world, query, text):
    assert await world[0].call("GET", f"/services/web/logs?{query}") == (500, {"message": text})


async def test_unknown_services_and_tasks(world):
    assert await world[0].call("GET", "/services/no-id/logs?stdout=1") == (404, {"message": "service no-id not found"})
    assert await world[0].call("GET", "/tasks/no-id/logs?stdout=1") == (404, {"message": "task no-id not found"})


def incomplete(*reasons: str) -> tuple[int, str]:
    """The last frame of a log that lacks something."""
    text = "warning: incomplete log stream. some logs could not be retrieved for the following reasons: "
    return 3, f"Error grabbing logs: rpc error: code = Unknown desc = {text}{', '.join(reasons)}\n"


async def test_what_is_missing_is_said_at_the_end(world):
    door, first, second = world
    gone = make_node("node00000000000000000000c", "third", state="down")
    await put(door, gone, task_of(1, container="aa"), task_of(2, OTHER, "bb"), task_of(3, gone.id, "cc"))
    first.logs["aa"], second.refusal = [(1, "", "hello\n")], "configured logging driver does not support reading"
    (line, end) = frames((await get(door, "/services/web/logs?stdout=1"))[2])
    assert line == (1, "hello\n")
    assert end == incomplete(f"node {gone.id} is not available", f"task task{2:021d}: {second.refusal}")


async def test_a_node_that_goes_away_while_it_is_read_is_named(world):
    door, first, _ = world
    await put(door, task_of(1, container="aa"))
    first.logs["aa"] = [(1, "", "cut off\n")]
    first.encode = lambda *line: (_ for _ in ()).throw(ConnectionResetError)  # type: ignore[method-assign]
    end = incomplete(f"node {NODE_ID} disconnected unexpectedly")
    assert frames((await get(door, "/services/web/logs?stdout=1"))[2]) == [end]


async def test_a_task_that_waits_for_a_node_lacks_in_its_own_log_only(world):
    """As in Swarm, where a service's log is of the tasks that have begun: `docker service logs` ends with 0."""
    door, first, _ = world
    waiting = replace(task_of(4, node_id=""), status=TaskStatus(state=TaskState.PENDING))
    await put(door, task_of(1, container="aa"), waiting)
    first.logs["aa"] = [(1, "", "hello\n")]
    assert frames((await get(door, "/services/web/logs?stdout=1"))[2]) == [(1, "hello\n")]
    end = incomplete(f"task {waiting.id} has not been scheduled")
    assert frames((await get(door, f"/tasks/{waiting.id}/logs?stdout=1"))[2]) == [end]


async def test_a_container_that_is_gone_is_no_problem(world):
    door, first, _ = world
    await put(door, task_of(1, container="aa"), task_of(2, container="removed"))
    first.logs["aa"] = [(1, "", "hello\n")]
    assert frames((await get(door, "/services/web/logs?stdout=1"))[2]) == [(1, "hello\n")]


async def test_a_terminals_log_is_passed_on_as_it_is(world):
    door, first, _ = world
    spec = TaskSpec(container_spec=ContainerSpec(image="alpine", tty=True))
    await put(door, Service(id=WEB, spec=ServiceSpec(name="web", task_template=spec)))
    await put(door, replace(task_of(1, container="aa"), spec=spec))
    first.tty, first.logs["aa"] = True, [(1, "", "prompt> ")]
    for path in ("/services/web", f"/tasks/task{1:021d}"):
        assert (await get(door, f"{path}/logs?stdout=1"))[1:] == ("application/vnd.docker.raw-stream", b"prompt> ")


def test_the_content_type_tells_newer_clients_how_to_read_the_stream():
    assert logs.content_type(False, (1, 42)) == "application/vnd.docker.multiplexed-stream"
    assert logs.content_type(False, (1, 41)) == logs.content_type(True, (1, 51)) == "application/vnd.docker.raw-stream"


async def next_frame(reply: aiohttp.ClientResponse) -> tuple[int, str]:
    async with asyncio.timeout(10):
        head = await reply.content.readexactly(8)
        return head[0], (await reply.content.readexactly(int.from_bytes(head[4:], "big"))).decode()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_following_takes_in_tasks_that_appear_later_and_lets_engines_go(world):
    door, first, second = world
    await put(door, task_of(1, container="aa"), task_of(2, OTHER))
    first.logs["aa"] = [(1, "", "old\n")]
    async with door.session.get("http://door/services/web/logs?stdout=1&follow=1&tail=1") as reply:
        assert await next_frame(reply) == (1, "old\n")
        first.more.put_nowait((1, "", "new\n"))
        assert await next_frame(reply) == (1, "new\n")
        second.logs["bb"] = [(1, "", "late\n")]
        await put(door, task_of(2, OTHER, container="bb"))
        assert await next_frame(reply) == (1, "late\n")
        assert (first.queries[0]["tail"], second.queries[0]["tail"]) == ("1", "all")
        reply.close()
    await until(lambda: first.open == second.open == 0)


@pytest.mark.parametrize("tty", [False, True])
async def test_following_does_not_lose_a_container_that_has_yet_to_start(world, monkeypatch, tty):
    monkeypatch.setattr(logs, "RETRY", 0.01)
    door, first, _ = world
    first.tty, first.logs["aa"] = tty, []
    first.created.add("aa")
    spec = TaskSpec(container_spec=ContainerSpec(image="alpine", tty=tty))
    await put(door, replace(task_of(1, container="aa"), spec=spec))
    await door.store.update(
        lambda tx: tx.update(replace(tx.get(Service, WEB), spec=ServiceSpec(name="web", task_template=spec)))
    )
    async with door.session.get("http://door/services/web/logs?stdout=1&follow=1&tail=0") as reply:
        await until(lambda: len(first.queries) == 2)
        first.created.clear()
        first.more.put_nowait((1, "", "begun\n"))
        async with asyncio.timeout(10):
            assert (await reply.content.readline()).endswith(b"begun\n")
        asked = len(first.queries)
        first.more.put_nowait(None)
        if tty:  # a terminal's log that has begun is not asked for again: there is no telling where
            await door.store.update(lambda tx: tx.delete(Service, WEB))
            async with asyncio.timeout(10):
                assert await reply.content.read() == b""
            assert len(first.queries) == asked
        else:
            await until(lambda: len(first.queries) > asked)
        reply.close()


async def test_following_ends_with_the_service(world):
    door, first, _ = world
    await put(door, task_of(1, container="aa"))
    first.logs["aa"] = [(1, "", "last\n")]
    async with door.session.get("http://door/services/web/logs?stdout=1&follow=1") as reply:
        assert await next_frame(reply) == (1, "last\n")
        await door.store.update(lambda tx: tx.delete(Service, WEB))
        first.more.put_nowait(None)
        async with asyncio.timeout(10):
            assert await reply.content.read() == b""


async def test_following_ends_at_the_moment_until_which_was_asked_for(world):
    door, first, _ = world
    await put(door, task_of(1, container="aa"), task_of(2, OTHER))
    first.logs["aa"] = [(1, "", "old\n")]
    first.more.put_nowait(None)  # as the engine ends its stream
    assert frames((await get(door, "/services/web/logs?stdout=1&follow=1&until=1700000000"))[2]) == [(1, "old\n")]


async def test_a_broken_stream_goes_on_where_it_stopped(world, monkeypatch):
    monkeypatch.setattr(logs, "RETRY", 0.01)
    door, first, _ = world
    await put(door, task_of(1, container="aa"))
    first.logs["aa"] = [(1, "", "before\n")]
    async with door.session.get("http://door/services/web/logs?stdout=1&follow=1&tail=9") as reply:
        assert await next_frame(reply) == (1, "before\n")
        connect, door.node.engines = door.node.engines, {}
        await until(lambda: first.open == 1)
        first.logs["aa"] = [(1, "", "after\n")]
        # Cut the connection in the middle of its chunked body.
        first.encode = lambda *line: (_ for _ in ()).throw(ConnectionResetError)  # type: ignore[method-assign]
        first.more.put_nowait((1, "", "never\n"))
        await until(lambda: first.open == 0)
        del first.encode
        door.node.engines = connect
        assert await next_frame(reply) == (1, "after\n")
        assert first.queries[1]["since"] == "1767323045.000000007"
        assert first.queries[1]["tail"] == "all"
        reply.close()


def test_frames_are_split_wherever_the_bytes_were_cut():
    data = logs.frame(1, b"one") + logs.frame(2, b"") + logs.frame(2, b"three")
    for cut in range(len(data)):
        found, rest = logs.split_frames(data[:cut])
        more, rest = logs.split_frames(rest + data[cut:])
        assert (found + more, rest) == ([(1, b"one"), (2, b""), (2, b"three")], b"")


def test_details_are_escaped_and_in_order():
    options = logs.Options(stdout=True, stderr=True, follow=False, timestamps=False, details=True, tail="all", since="")
    payload = logs.render(f"{STAMP} z=1,a=%3D line".encode(), {"m&n": "x y"}, options)
    assert payload == b"a=%3D,m%26n=x+y,z=1 line"
