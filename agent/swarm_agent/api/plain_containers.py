"""POST /containers/create and /networks/{id}/connect, disconnect: plain containers on attachable cluster networks.

A network that this host's engine does not have by itself is asked of the managers; they give an address, and the
network comes to this host. Then the engine carries out the request, with its own name of the network and the address
in it. A request that names only the engine's networks is passed on as it came.
"""

from __future__ import annotations

from typing import Any

import msgspec

from swarm_agent.model.addresses import is_ipv4
from swarm_agent.model.base import read_json
from swarm_agent.model.errors import BadRequest, ClusterError
from swarm_agent.network.names import NETWORK_LABEL

from .control_protocol import NetworkPlace, NodeControl
from .engine import EngineClient
from .message import Request, Response
from .versions import show

_MODES = ("", "default", "bridge", "host", "none", "nat", "private")
MAC_IN_ENDPOINT = (1, 44)  # older engines take one MAC for the whole container


class PlainContainers:
    """Answers while this host is in a cluster."""

    def __init__(self, node: NodeControl, engine: EngineClient) -> None:
        self._node = node
        self._engine = engine

    async def create(self, request: Request) -> Response:
        """POST /containers/create."""
        body = _decode(request.body)
        host = body.get("HostConfig") or {}
        networking = body.get("NetworkingConfig") or {}
        endpoints: dict[str, Any] = dict(networking.get("EndpointsConfig") or {})
        mode = str(host.get("NetworkMode") or "")
        names = dict.fromkeys([*([] if mode in _MODES or ":" in mode else [mode]), *endpoints])
        wanted = await self._cluster_networks([name for name in names if name not in _MODES])
        if not wanted:
            return await self._pass(request, request.body)
        places: dict[str, NetworkPlace] = {}
        done = False
        try:
            for name in wanted:
                place = await self._attach(name, endpoints.get(name))
                if place is not None:
                    places[name] = place
            for name, place in places.items():
                endpoints[place.engine_network] = _endpoint(endpoints.pop(name, None), place, request.version)
                if request.version < MAC_IN_ENDPOINT:
                    body["MacAddress"] = place.mac
                if mode == name:
                    host["NetworkMode"] = place.engine_network
                if not host.get("Dns") and place.resolvers:
                    host["Dns"] = list(place.resolvers)
            if places:
                body["HostConfig"] = host
                body["NetworkingConfig"] = {**networking, "EndpointsConfig": endpoints}
            reply = await self._pass(request, msgspec.json.encode(body) if places else request.body)
            if reply.status == 201:
                await self._bind(places, msgspec.json.decode(reply.body)["Id"])
                done = True
            return reply
        finally:
            if not done:
                await self._release(places)

    async def connect(self, request: Request, term: str) -> Response:
        """POST /networks/{id}/connect."""
        body = _decode(request.body)
        container = str(body.get("Container") or "")
        config = body.get("EndpointConfig")
        if not container or not await self._cluster_networks([term]):
            return await self._pass(request, request.body)
        found = await self._engine.call("GET", f"/containers/{container}/json")
        if found.status != 200:
            return found
        place = await self._attach(term, config)
        if place is None:
            return await self._pass(request, request.body)
        done = False
        try:
            changed = {**body, "EndpointConfig": _endpoint(config, place, request.version)}
            path = f"/v{show(request.version)}/networks/{place.engine_network}/connect"
            reply = await self._engine.call("POST", path, request.query, msgspec.json.encode(changed))
            if reply.status == 200:
                await self._bind({term: place}, msgspec.json.decode(found.body)["Id"])
                done = True
            return reply
        finally:
            if not done:
                await self._release({term: place})

    async def disconnect(self, request: Request, term: str) -> Response:
        """POST /networks/{id}/disconnect. The place is given back when the container is seen to be off the network."""
        name = next(
            (item["Name"] for item in await self._engine.get_json("/networks") if _overlay(item) and _is(item, term)),
            term,
        )
        path = f"/v{show(request.version)}/networks/{name}/disconnect"
        reply = await self._engine.call("POST", path, request.query, request.body)
        if self._node.attachments is not None:
            self._node.attachments.wake()
        return reply

    async def _cluster_networks(self, names: list[str]) -> list[str]:
        """Those that are not the engine's own."""
        if not names or self._node.attachments is None:
            return []
        own = [item for item in await self._engine.get_json("/networks") if not _overlay(item)]
        return [name for name in names if not any(name == item["Name"] or item["Id"].startswith(name) for item in own)]

    async def _attach(self, name: str, config: Any) -> NetworkPlace | None:
        """A place, or None when the cluster has no such network either: the engine says so in its own words."""
        attachments = self._node.attachments
        assert attachments is not None
        given = (config or {}).get("IPAMConfig") or {}
        if given.get("IPv6Address"):
            raise BadRequest(f"IPv6 addresses on network {name} follow from those of IPv4: ask for one of these (--ip)")
        address = str(given.get("IPv4Address") or "")
        if address and not is_ipv4(address):
            raise BadRequest(f"invalid IPv4 address: {address}")
        try:
            return await attachments.attach(name, address)
        except ClusterError as error:
            if error.status == 404:
                return None
            raise _NotAttached(name, error) from error

    async def _bind(self, places: dict[str, NetworkPlace], container_id: str) -> None:
        assert self._node.attachments is not None
        for place in places.values():
            await self._node.attachments.bind(place.task_id, container_id)

    async def _release(self, places: dict[str, NetworkPlace]) -> None:
        for place in places.values():
            if self._node.attachments is not None:
                await self._node.attachments.release(place.task_id)

    async def _pass(self, request: Request, body: bytes) -> Response:
        path = f"/v{show(request.version)}{request.path}"
        return await self._engine.call(request.method, path, request.query, body)


class _NotAttached(ClusterError):
    """Docker's words around the managers' refusal."""

    def __init__(self, network: str, error: ClusterError) -> None:
        self.status = error.status
        super().__init__(f"Could not attach to network {network}: {error}")


def _decode(body: bytes) -> dict[str, Any]:
    value = read_json(body or b"{}")
    if not isinstance(value, dict):
        raise BadRequest("invalid JSON: an object is needed here")
    return value


def _endpoint(config: Any, place: NetworkPlace, version: tuple[int, int]) -> dict[str, Any]:
    six = {"IPv6Address": place.ip6} if place.ip6 else {}
    changed = {**(config or {}), "IPAMConfig": {"IPv4Address": place.ip, **six}}
    if version >= MAC_IN_ENDPOINT:
        changed["MacAddress"] = place.mac
    return changed


def _overlay(network: dict[str, Any]) -> str:
    return str((network.get("Labels") or {}).get(NETWORK_LABEL, ""))


def _is(network: dict[str, Any], term: str) -> bool:
    return term in (network["Name"], network["Id"], _overlay(network)) or _overlay(network).startswith(term)
