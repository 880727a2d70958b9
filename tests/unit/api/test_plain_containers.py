"""Creating and connecting plain containers: what the engine is asked when a network is the cluster's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from swarm_agent.api.plain_containers import _endpoint
from swarm_agent.model.errors import NotFound, PermissionDenied
from swarm_agent.network.names import NETWORK_LABEL
from tests.unit.api.kit import Door, open_door


@dataclass
class Place:
    task_id: str = "place1"
    engine_network: str = "net-here"
    ip: str = "10.0.1.7"
    mac: str = "02:42:0a:00:01:07"
    resolvers: tuple[str, ...] = ("10.0.1.2",)
    ip6: str = ""


class Attachments:
    """The managers' side: `open` may be attached, `closed` not, others are not there."""

    def __init__(self) -> None:
        self.bound: list[tuple[str, str]] = []
        self.released: list[str] = []
        self.asked: list[str] = []
        self.wanted: list[str] = []
        self.woken = 0

    async def attach(self, network: str, address: str = "") -> Place:
        self.asked.append(network)
        self.wanted.append(address)
        if network == "closed":
            raise PermissionDenied("network closed not manually attachable")
        if network != "open":
            raise NotFound(f"network {network} not found")
        return Place()

    async def bind(self, task_id: str, container_id: str) -> None:
        self.bound.append((task_id, container_id))

    async def release(self, task_id: str) -> None:
        self.released.append(task_id)

    def wake(self) -> None:
        self.woken += 1


class Engine:
    """Keeps what it was asked; `refuse` makes creation and connection fail."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.refuse = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/v1.41").removeprefix("/v1.44")
        headers = {"Api-Version": "1.44"}
        if path == "/networks":
            networks = [
                {"Name": "mine", "Id": "f" * 64, "Labels": {}},
                {"Name": "net-here", "Id": "e" * 64, "Labels": {NETWORK_LABEL: "open" + "0" * 21}},
            ]
            return web.json_response(networks, headers=headers)
        if request.method == "GET":
            return web.json_response({"Id": "c0ffee"}, headers=headers)
        self.seen.append((path, await request.json()))
        if self.refuse:
            return web.json_response({"message": "No such image: x"}, status=404, headers=headers)
        return web.json_response({"Id": "c0ffee"}, status=201 if path.endswith("create") else 200, headers=headers)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    engine = Engine()
    runner = web.ServerRunner(web.Server(engine.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "engine.sock")).start()
    yield engine
    await runner.cleanup()


@pytest.fixture
async def door(engine: Engine, tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path, tmp_path / "engine.sock") as door:
        door.node.local_state = "active"  # a worker
        door.node.attachments = Attachments()
        yield door


def created(network: str, **endpoint: Any) -> dict[str, Any]:
    """What `docker run --network NET` sends."""
    return {
        "Image": "alpine",
        "HostConfig": {"NetworkMode": network, "Memory": 1 << 40},
        "NetworkingConfig": {"EndpointsConfig": {network: endpoint}},
    }


async def test_the_engine_gets_its_own_name_and_the_managers_address(door, engine):
    body = created("open", Aliases=["pair"])
    assert await door.call("POST", "/v1.41/containers/create?name=box", body) == (201, {"Id": "c0ffee"})
    ((path, sent),) = engine.seen
    assert path == "/containers/create"
    assert sent == {
        "Image": "alpine",
        "MacAddress": "02:42:0a:00:01:07",
        "HostConfig": {"NetworkMode": "net-here", "Memory": 1 << 40, "Dns": ["10.0.1.2"]},
        "NetworkingConfig": {
            "EndpointsConfig": {"net-here": {"Aliases": ["pair"], "IPAMConfig": {"IPv4Address": "10.0.1.7"}}}
        },
    }
    assert door.node.attachments.bound == [("place1", "c0ffee")]
    assert door.node.attachments.released == []


async def test_newer_engines_get_the_mac_with_the_network(door, engine):
    await door.call("POST", "/v1.44/containers/create", created("open"))
    ((_, sent),) = engine.seen
    assert sent["NetworkingConfig"]["EndpointsConfig"]["net-here"]["MacAddress"] == "02:42:0a:00:01:07"
    assert "MacAddress" not in sent


@pytest.mark.parametrize("network", ["mine", "f" * 12, "bridge", "default", "host", "container:abc", "nowhere"])
async def test_what_is_the_engines_is_passed_on_as_it_came(door, engine, network):
    body = {**created(network), "Weird": {"order": [3, 1, 2]}}
    assert (await door.call("POST", "/v1.41/containers/create", body))[0] == 201
    assert json.dumps(engine.seen[0][1]) == json.dumps(body)
    assert door.node.attachments.bound == []


async def test_a_users_own_dns_servers_are_kept(door, engine):
    body = created("open")
    body["HostConfig"]["Dns"] = ["9.9.9.9"]
    await door.call("POST", "/v1.41/containers/create", body)
    assert engine.seen[0][1]["HostConfig"]["Dns"] == ["9.9.9.9"]


async def test_a_network_that_is_not_attachable_is_refused(door, engine):
    text = (
        "Could not attach to network closed: rpc error: code = PermissionDenied desc = "
        "network closed not manually attachable"
    )
    assert await door.call("POST", "/v1.41/containers/create", created("closed")) == (403, {"message": text})
    answer = await door.call("POST", "/v1.41/networks/closed/connect", {"Container": "box"})
    assert answer == (403, {"message": text})
    assert engine.seen == []


async def test_a_place_is_given_back_when_the_engine_refuses(door, engine):
    engine.refuse = True
    assert (await door.call("POST", "/v1.41/containers/create", created("open")))[0] == 404
    assert (await door.call("POST", "/v1.41/networks/open/connect", {"Container": "box"}))[0] == 404
    assert door.node.attachments.released == ["place1", "place1"]
    assert door.node.attachments.bound == []


async def test_an_address_is_asked_for(door):
    body = created("open", IPAMConfig={"IPv4Address": "10.0.1.99"})
    assert (await door.call("POST", "/v1.41/containers/create", body))[0] == 201
    config = {"Container": "box", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.0.1.98"}}}
    assert (await door.call("POST", "/v1.41/networks/open/connect", config))[0] == 200
    assert door.node.attachments.wanted == ["10.0.1.99", "10.0.1.98"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"IPv4Address": "odd"}, "invalid IPv4 address: odd"),
        ({"IPv6Address": "fd00::9"}, "follow from those of IPv4"),
    ],
)
async def test_addresses_that_are_none_or_cannot_be_chosen(door, given, text):
    status, answer = await door.call("POST", "/v1.41/containers/create", created("open", IPAMConfig=given))
    assert status == 400 and text in answer["message"]
    assert door.node.attachments.asked == []


async def test_connecting_and_disconnecting(door, engine):
    config = {"Container": "box", "EndpointConfig": {"Aliases": ["late"]}}
    assert (await door.call("POST", "/v1.41/networks/open/connect", config))[0] == 200
    assert engine.seen[0] == (
        "/networks/net-here/connect",
        {
            "Container": "box",
            "EndpointConfig": {"Aliases": ["late"], "IPAMConfig": {"IPv4Address": "10.0.1.7"}},
        },
    )
    assert door.node.attachments.bound == [("place1", "c0ffee")]
    await door.call("POST", "/v1.41/networks/open/disconnect", {"Container": "box"})
    assert engine.seen[1] == ("/networks/net-here/disconnect", {"Container": "box"})
    assert door.node.attachments.woken == 1


async def test_the_engines_own_networks_are_connected_by_the_engine(door, engine):
    await door.call("POST", "/v1.41/networks/mine/connect", {"Container": "box"})
    await door.call("POST", "/v1.41/networks/mine/disconnect", {"Container": "box"})
    assert [path for path, _ in engine.seen] == ["/networks/mine/connect", "/networks/mine/disconnect"]
    assert door.node.attachments.asked == []


def test_a_place_on_a_network_with_ipv6_has_both_addresses() -> None:
    place = Place(ip6="fd00:1::7")
    assert _endpoint({}, place, (1, 41))["IPAMConfig"] == {"IPv4Address": "10.0.1.7", "IPv6Address": "fd00:1::7"}
