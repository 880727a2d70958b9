"""Containers of tasks on other hosts: which host a call goes to, and what its engine gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from swarm_agent.api.http1 import parse_head
from swarm_agent.api.remote import Place
from swarm_agent.model.objects import ContainerStatus, Service, Task, TaskStatus
from swarm_agent.model.specs import ContainerSpec, ServiceSpec, TaskSpec
from swarm_agent.model.states import TaskState
from tests.unit.api.kit import NODE_ID, Door, make_node, open_door

SERVICE = "service000000000000000000"
OTHER = "node00000000000000000000b"
CONTAINER = "c0ffee" + "0" * 58
EXEC = "e" * 64


class Engine:
    """An engine with some containers; it tells what it was asked."""

    def __init__(self, *containers: str) -> None:
        self.containers = containers
        self.execs: list[str] = []
        self.seen: list[str] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/_ping":
            return web.Response(text="OK")
        self.seen.append(f"{request.method} {request.path_qs}")
        parts = request.path.removeprefix("/v1.47").split("/")
        if parts[1] == "containers" and not any(name.startswith(parts[2]) for name in self.containers):
            return web.json_response({"message": f"No such container: {parts[2]}"}, status=404)
        if parts[1] == "exec" and parts[2] not in self.execs:
            return web.json_response({"message": f"No such exec instance: {parts[2]}"}, status=404)
        if parts[-1] == "exec":
            assert await request.json() == {"Cmd": ["ls"]}
            self.execs.append(EXEC)
            return web.json_response({"Id": EXEC}, status=201)
        return web.json_response({"by": self.containers, "path": request.path})


@pytest.fixture
async def engines(tmp_path: Path) -> AsyncIterator[tuple[Engine, Engine]]:
    """This host's and the other one's, listening."""
    runners, made = [], []
    for name, engine in (("engine", Engine("mine")), (OTHER, Engine(CONTAINER))):
        runner = web.ServerRunner(web.Server(engine.handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(tmp_path / f"{name}.sock")).start()
        runners.append(runner)
        made.append(engine)
    yield made[0], made[1]
    for runner in runners:
        await runner.cleanup()


def task(**fields: Any) -> Task:
    return replace(
        Task(
            id="task000000000000000000001",
            service_id=SERVICE,
            slot=1,
            node_id=OTHER,
            service_name="web",
            spec=TaskSpec(container_spec=ContainerSpec(image="alpine")),
            status=TaskStatus(state=TaskState.RUNNING, container_status=ContainerStatus(container_id=CONTAINER)),
            desired_state=TaskState.RUNNING,
        ),
        **fields,
    )


@pytest.fixture
async def door(engines: tuple[Engine, Engine], tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path, tmp_path / "engine.sock") as door:
        await door.call("POST", "/swarm/init", {})
        door.node.engines[OTHER] = tmp_path / f"{OTHER}.sock"
        web_service = Service(id=SERVICE, spec=ServiceSpec(name="web"))
        await door.store.update(lambda tx: [tx.create(o) for o in (make_node(OTHER, "second"), web_service, task())])
        yield door


@pytest.mark.parametrize(
    "term",
    [
        "task000000000000000000001",
        "task00000000000000000000",
        "web.1.task000000000000000000001",
        "web.1",
        CONTAINER,
        CONTAINER[:12],
    ],
)
async def test_a_container_elsewhere_is_found_by(door, engines, term):
    status, answer = await door.call("GET", f"/v1.47/containers/{term}/top?ps_args=aux")
    assert status == 200
    assert answer["path"] == f"/v1.47/containers/{CONTAINER}/top"
    assert engines[1].seen == [f"GET /v1.47/containers/{CONTAINER}/top?ps_args=aux"]


async def test_a_tasks_id_shows_the_task_with_its_container(door, engines):
    """`docker inspect ID` asks for a container first, and `docker exec ID` asks the same."""
    for term in ("task000000000000000000001", "task00000000000000000000"):
        status, answer = await door.call("GET", f"/v1.47/containers/{term}/json?size=1")
        assert status == 200
        assert engines[1].seen[-1] == f"GET /v1.47/containers/{CONTAINER}/json?size=1"
        assert answer["path"] == f"/v1.47/containers/{CONTAINER}/json"
        assert (answer["ID"], answer["NodeID"], answer["DesiredState"]) == (task().id, OTHER, "running")
        assert answer["Status"]["ContainerStatus"]["ContainerID"] == CONTAINER
        assert not [key for key in answer if key.startswith("_")]
    assert list(answer)[-1] == "Volumes", "the task's members come last: of Id and ID clients keep the last"
    for term in ("web.1", CONTAINER):
        assert "DesiredState" not in (await door.call("GET", f"/containers/{term}/json"))[1]


async def test_a_task_on_a_lost_node_is_no_container_so_that_inspect_goes_on_to_the_task(door):
    door.node.engines.clear()
    status, answer = await door.call("GET", f"/containers/{task().id}/json")
    assert status == 404 and f"node {OTHER} is not available" in answer["message"]


async def test_this_hosts_containers_come_first(door, engines):
    engines[0].containers = (CONTAINER,)
    assert (await door.call("GET", f"/containers/{CONTAINER[:12]}/json"))[0] == 200
    assert engines[1].seen == []


async def test_a_task_of_this_host_is_found_by_its_id_too(door, engines, tmp_path):
    here = task(id="task000000000000000000002", slot=2, node_id=NODE_ID)
    here = replace(here, status=replace(here.status, container_status=ContainerStatus(container_id="mine")))
    door.node.engines[NODE_ID] = tmp_path / "engine.sock"
    await door.store.update(lambda tx: tx.create(here))
    assert (await door.call("GET", f"/v1.47/containers/{here.id}/json"))[1]["path"] == "/v1.47/containers/mine/json"


async def test_what_nobody_knows_is_answered_by_this_hosts_engine(door, engines):
    for term in ("nothing", "web.7", "db.1", "ab"):
        assert await door.call("GET", f"/containers/{term}/json") == (
            404,
            {"message": f"No such container: {term}"},
        )
    assert engines[1].seen == []


async def test_several_matches_are_refused(door):
    await door.store.update(lambda tx: tx.create(task(id="task000000000000000000003", slot=3)))
    assert await door.call("GET", "/containers/task0000/json") == (
        400,
        {"message": "container task0000 is ambiguous (2 matches found)"},
    )


async def test_a_task_without_a_container_says_so(door):
    await door.store.update(lambda tx: tx.create(task(id="task4", status=TaskStatus(state=TaskState.REJECTED))))
    assert await door.call("GET", "/containers/task4/json") == (
        404,
        {"message": "task task4 has no container (it is rejected)"},
    )


async def test_a_node_that_cannot_be_reached_is_an_error(door):
    door.node.engines.clear()
    for method, path in (("GET", "json"), ("POST", "exec")):
        body = {"Cmd": ["ls"]} if method == "POST" else None
        assert await door.call(method, f"/containers/web.1/{path}", body) == (
            503,
            {"message": f"node {OTHER} is not available"},
        )


async def test_an_exec_is_remembered(door, engines):
    assert await door.call("POST", "/containers/web.1/exec", {"Cmd": ["ls"]}) == (201, {"Id": EXEC})
    assert (await door.call("GET", f"/exec/{EXEC}/json"))[1]["by"] == [CONTAINER]
    assert (await door.call("POST", f"/exec/{EXEC}/resize?h=1&w=2"))[1]["by"] == [CONTAINER]


async def test_an_exec_that_was_made_before_a_restart_is_found(door, engines):
    engines[1].execs = [EXEC]
    for _ in range(2):
        assert (await door.call("GET", f"/exec/{EXEC}/json"))[1]["by"] == [CONTAINER]
    assert engines[0].seen == [f"GET /exec/{EXEC}/json"], "asked once, then remembered"
    assert (await door.call("POST", "/exec/nobodys/start", {}))[0] == 404
    door.node.engines.clear()
    assert (await door.call("POST", "/exec/nobodys/start", {}))[0] == 404


async def test_lists_and_creation_stay_here(door, engines):
    engines[0].containers = ("json", "create", "prune")
    for method, path in (("GET", "json"), ("POST", "create"), ("POST", "prune")):
        assert (await door.call(method, f"/containers/{path}"))[0] == 200
    assert engines[1].seen == []


async def test_a_worker_asks_its_own_engine_only(door, engines):
    door.node.role = None
    assert (await door.call("GET", "/containers/web.1/json"))[0] == 404
    assert engines[1].seen == []


async def test_upgraded_connections_are_joined(door, tmp_path):
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + head.split(b" ")[1])
        writer.write((await reader.read()).upper())
        writer.close()

    door.node.engines[OTHER] = tmp_path / "hijack.sock"
    server = await asyncio.start_unix_server(talk, str(door.node.engines[OTHER]))
    request = b"POST /containers/web.1/attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\ninput"
    answer = await door.raw(request, end=True)
    server.close()
    assert answer.endswith(f"/containers/{CONTAINER}/attachINPUT".encode())


def test_only_the_path_of_a_request_is_changed():
    raw = b"POST /v1.41/containers/web.1/attach?x=/containers/a HTTP/1.1\r\nHost: a\r\nX: web.1\r\n\r\n"
    head = Place(OTHER, "c0ffee").head(parse_head(raw))
    assert head.raw == raw.replace(b"containers/web.1", b"containers/c0ffee")
    assert head.target == "/v1.41/containers/c0ffee/attach?x=/containers/a"
