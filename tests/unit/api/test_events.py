"""GET /events on a manager: the engine's events and the cluster's in one stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, unquote

import pytest
from msgspec.structs import replace

from swarm_agent.api.events import matches, moment
from swarm_agent.manager.events import History, event_of
from swarm_agent.model import times
from swarm_agent.model.objects import Cluster, ManagerStatus, Node, NodeStatus, Service, Task, UpdateStatus
from swarm_agent.model.specs import NodeSpec, ServiceSpec
from swarm_agent.store.memory import memory_store
from swarm_agent.store.view import Change
from tests.unit.api.kit import NODE_ID, Door, HttpEngine, make_node

WEB = Service(id="s1", spec=ServiceSpec(name="web"))


class Listener:
    """A client of the stream."""

    def __init__(self, lines: AsyncIterator[bytes]) -> None:
        self._lines = lines

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            event: dict[str, Any] = json.loads(await anext(self._lines))
        return event


@asynccontextmanager
async def listening(door: Door, path: str = "/events") -> AsyncIterator[Listener]:
    async with door.session.get(f"http://door{path}") as reply:
        assert reply.status == 200
        yield Listener(aiter(reply.content))


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_both_kinds_of_events_arrive_as_they_happen(swarm: Door, engine: HttpEngine) -> None:
    async with listening(swarm) as events:
        await engine.events.put({"Type": "container", "Action": "start"})
        assert await events.next() == {"Type": "container", "Action": "start"}
        await swarm.call("POST", "/secrets/create", {"Name": "key", "Data": "YQ=="})
        event = await events.next()
        assert (event["Type"], event["Action"], event["scope"]) == ("secret", "create", "swarm")
        assert event["Actor"]["Attributes"] == {"name": "key"}
        assert event["timeNano"] // 10**9 == event["time"]
        await swarm.call("POST", f"/nodes/{NODE_ID}/update?version=1", {"Role": "manager", "Availability": "drain"})
        changed = {"name": "first", "availability.old": "active", "availability.new": "drain"}
        assert (await events.next())["Actor"] == {"ID": NODE_ID, "Attributes": changed}
        await swarm.call("DELETE", "/secrets/key")
        assert (await events.next())["Action"] == "remove"


async def test_the_stream_ends_with_the_engines(swarm: Door, engine: HttpEngine) -> None:
    async with swarm.session.get("http://door/events?until=1") as reply:
        await engine.events.put(None)
        assert await reply.read() == b""


def told(text: str) -> list[str]:
    """What a listing of the past says, in short."""
    events = [json.loads(line) for line in text.splitlines()]
    return [f"{event['Type']} {event['Action']} {event['Actor']['Attributes'].get('name')}" for event in events]


async def test_the_past_is_told_to_those_who_ask(swarm: Door, engine: HttpEngine) -> None:
    """In the order in which it happened, and the engine's own events in their places."""

    def container(name: str, at: int) -> dict[str, Any]:
        return {
            "Type": "container",
            "Action": "start",
            "Actor": {"ID": name, "Attributes": {"name": name}},
            "timeNano": at,
        }

    await swarm.call("POST", "/secrets/create", {"Name": "one", "Data": "YQ=="})
    between = time.time_ns()
    await swarm.call("POST", "/secrets/create", {"Name": "two", "Data": "YQ=="})
    await swarm.call("DELETE", "/secrets/one")
    end = time.time_ns()
    founded = ["node create first", "network create ingress"]
    first, rest = ["secret create one"], ["secret create two", "secret remove one"]

    async def listing(query: str, *lines: dict[str, Any]) -> list[str]:
        for line in lines:
            await engine.events.put(line)
        await engine.events.put(None)
        async with swarm.session.get(f"http://door/events?{query}") as reply:
            return told(await reply.text())

    ran = container("c", between)
    assert await listing(f"since=1&until={end // 10**9 + 1}", ran) == [*founded, *first, "container start c", *rest]
    assert await listing(f"until={end // 10**9 + 1}") == [*founded, *first, *rest]
    precise = f"{between // 10**9}.{between % 10**9:09d}"
    assert await listing(f"since={precise}&until={end // 10**9 + 1}") == rest
    assert await listing(f"since=1&until={precise}") == [*founded, *first]
    assert await listing('since=1&filters={"event":["remove"]}') == ["secret remove one"]
    assert await listing("", ran) == ["container start c"]


async def test_the_past_does_not_wait_for_the_engine(swarm: Door, engine: HttpEngine) -> None:
    await swarm.call("POST", "/secrets/create", {"Name": "one", "Data": "YQ=="})
    filters = quote(json.dumps({"type": ["secret"]}))
    async with listening(swarm, f"/events?since=1&filters={filters}") as events:
        assert (await events.next())["Actor"]["Attributes"] == {"name": "one"}
        await swarm.call("POST", "/secrets/create", {"Name": "two", "Data": "YQ=="})
        assert (await events.next())["Actor"]["Attributes"] == {"name": "two"}


async def test_a_manager_remembers_no_more_than_swarm(swarm: Door) -> None:
    history = swarm.node.manager().history
    for number in range(History.LIMIT + 5):
        await swarm.store.update(lambda tx, number=number: tx.create(make_node(f"n{number}", f"h{number}")))
    known = history.between(0, 0)
    assert len(known) == History.LIMIT and known[-1]["Actor"]["ID"] == f"n{History.LIMIT + 4}"


async def test_a_manager_that_starts_does_not_take_old_removals_for_new() -> None:
    """It reads in its log what was made when, but not when it was removed."""
    then, now = [1_000 * times.SECOND], [50_000 * times.SECOND]
    store = memory_store(clock=lambda: times.rfc3339(then[0]))
    history = History(store, clock=lambda: now[0])
    await store.update(lambda tx: tx.create(make_node("n1", "h1")))
    await store.update(lambda tx: tx.delete(Node, "n1"))
    assert [(event["Action"], event["time"]) for event in history.between(0, 0)] == [("create", 1_000)]
    then[0] = now[0]
    await store.update(lambda tx: tx.create(make_node("n2", "h2")))
    await store.update(lambda tx: tx.delete(Node, "n2"))
    assert [event["Action"] for event in history.between(2_000 * times.SECOND, 0)] == ["create", "remove"]
    await store.close()


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [("", 0), ("0", 0), ("12", 12 * 10**9), ("12.5", 12_500_000_000), ("soon", 0)]
)
def test_moments(text: str, nanoseconds: int) -> None:
    assert moment(text) == nanoseconds


async def test_a_client_that_leaves_is_forgotten(swarm: Door, engine: HttpEngine) -> None:
    async with listening(swarm):
        await until(lambda: engine.listeners == 1)
    await until(lambda: len(swarm.store._subscribers) == 1)  # the manager's own memory

    def engine_noticed() -> bool:
        engine.events.put_nowait({"Type": "container"})  # it notices when it writes to a closed connection
        return engine.listeners == 0

    await until(engine_noticed)


async def test_filters_hold_for_both(swarm: Door, engine: HttpEngine) -> None:
    filters = quote(json.dumps({"type": ["config"]}))
    async with listening(swarm, f"/events?filters={filters}") as events:
        await swarm.call("POST", "/secrets/create", {"Name": "key", "Data": "YQ=="})
        await swarm.call("POST", "/configs/create", {"Name": "conf", "Data": "YQ=="})
        assert (await events.next())["Actor"]["Attributes"] == {"name": "conf"}
    (query,) = (query for _, path, query in engine.seen if path == "/events")
    assert unquote(query) == 'filters={"type": ["config"]}'


async def test_what_the_engine_refuses_is_refused(swarm: Door) -> None:
    filters = quote(json.dumps({"refused": ["x"]}))
    assert await swarm.call("GET", f"/events?filters={filters}") == (400, {"message": "invalid filter 'refused'"})


async def test_old_clients_get_the_engines_events_only(swarm: Door, engine: HttpEngine) -> None:
    async with listening(swarm, "/v1.29/events") as events:
        await swarm.call("POST", "/secrets/create", {"Name": "key", "Data": "YQ=="})
        await engine.events.put({"Type": "container"})
        assert await events.next() == {"Type": "container"}


def test_what_an_update_tells() -> None:
    changed = replace(WEB, update_status=UpdateStatus(state="updating"))
    event = event_of(Change(Service, WEB, changed), 1)
    assert event is not None
    assert event["Actor"] == {"ID": "s1", "Attributes": {"name": "web", "updatestate.new": "updating"}}
    paused = replace(changed, update_status=UpdateStatus(state="paused"))
    event = event_of(Change(Service, changed, paused), 1)
    assert event is not None
    attributes = {"name": "web", "updatestate.old": "updating", "updatestate.new": "paused"}
    assert event["Actor"]["Attributes"] == attributes
    event = event_of(Change(Service, paused, WEB), 1)
    assert event is not None and event["Actor"]["Attributes"] == {"name": "web"}
    before = make_node("n1", "host")
    after = replace(before, status=NodeStatus(state="down"), spec=NodeSpec(name="nick", role="worker"))
    event = event_of(Change(Node, before, after), 1)
    assert event is not None
    assert event["Actor"]["Attributes"] == {
        "name": "nick",
        "state.old": "ready",
        "state.new": "down",
    }


def test_what_a_managers_update_tells() -> None:
    """Leadership and reachability of managers; a node that becomes one, or is one no more, changes its role."""
    worker, leader = make_node("n1", "host"), make_node("n1", "host", role="manager")
    event = event_of(Change(Node, worker, leader), 1)
    assert event is not None
    promoted = {"name": "host", "role.old": "worker", "role.new": "manager"}
    assert event["Actor"]["Attributes"] == promoted
    lost = replace(leader, manager_status=ManagerStatus(reachability="unreachable", addr="10.1.1.1:2377"))
    event = event_of(Change(Node, leader, lost), 1)
    assert event is not None
    assert event["Actor"]["Attributes"] == {
        "name": "host",
        "leader.old": "true",
        "leader.new": "false",
        "reachability.old": "reachable",
        "reachability.new": "unreachable",
    }


def test_tasks_and_the_cluster_make_no_events() -> None:
    for kind, obj in ((Task, Task(id="t")), (Cluster, Cluster(id="c"))):
        assert event_of(Change(kind, None, obj), 1) is None


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ({}, True),
        ({"scope": ["swarm"]}, True),
        ({"scope": ["local"]}, False),
        ({"type": ["service", "node"]}, True),
        ({"type": ["container"]}, False),
        ({"event": ["create"]}, True),
        ({"event": ["remove"]}, False),
        ({"service": ["we"]}, True),
        ({"service": ["s1"]}, True),
        ({"service": ["other"]}, False),
        ({"container": ["c"]}, False),
        ({"label": ["a"]}, False),
        ({"label": ["name=web"]}, True),
        ({"image": ["web"]}, False),
    ],
)
def test_event_filters(filters: dict[str, list[str]], passes: bool) -> None:
    event = event_of(Change(Service, None, WEB), 1)
    assert event is not None
    assert matches(event, filters) is passes
