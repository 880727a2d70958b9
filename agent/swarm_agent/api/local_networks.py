"""/networks on a host of the cluster: the engine's own networks and the cluster's overlays as one list (swarm.md §1.7).

For each overlay in use a host has a plain bridge network in its engine, labelled with the overlay's id. Clients never
see those: where the engine's answer has one, the overlay stands in its place, and only its containers are taken over.
A manager knows all overlays; a worker, and a manager that cannot answer now, those that this host has, as in Swarm.
A term is looked for as the engine does: exact id anywhere, else names, else beginnings of ids; on both sides at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from swarm_agent.manager.control.networks import PREDEFINED_LABEL, is_swarm_scoped
from swarm_agent.manager.control.services import PREDEFINED_NETWORKS
from swarm_agent.model.errors import BadRequest, ClusterError, Conflict, NotFound
from swarm_agent.model.objects import Network, Service
from swarm_agent.model.requests import NetworkCreateRequest
from swarm_agent.model.specs import IPAMConfig, IPAMOptions, NetworkSpec
from swarm_agent.network.names import NETWORK_LABEL
from swarm_agent.store.view import View

from .cluster_networks import peers, resource, services
from .context import read_json
from .control_protocol import NodeControl
from .engine import EngineClient
from .filters import Filters, has_labels, is_in, parse_filters
from .message import Request, Response, json_response
from .versions import show

FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")

EngineNetwork = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A network that a term names: one of the cluster's, or one of the engine's."""

    cluster: Network | None = None
    engine: EngineNetwork | None = None


def overlay_of(network: EngineNetwork) -> str:
    """The id of the overlay that an engine network is this host's part of; empty for the engine's own."""
    return str((network.get("Labels") or {}).get(NETWORK_LABEL, ""))


class LocalNetworks:
    """Answers /networks while this host is in a cluster."""

    def __init__(self, node: NodeControl, engine: EngineClient) -> None:
        self._node = node
        self._engine = engine

    async def list_networks(self, request: Request) -> Response:
        filters = parse_filters(request, FILTERS)
        local = await self._engine_networks(request, request.query)
        view = await self._view()
        known = view.all(Network) if view is not None else self._here(await self._engine_networks(request, {}))
        overlays = [resource(item, request.version) for item in known if _matches(item, filters, view)]
        return json_response([*overlays, *(item for item in local if not overlay_of(item))])

    async def inspect(self, request: Request, term: str) -> Response:
        scope, verbose = request.query.get("scope", ""), request.strict_flag("verbose")
        found = await self._find(request, term, scope)
        if found.engine is not None:
            if scope == "swarm":
                return json_response(_for_services(found.engine))
            path = f"/v{show(request.version)}/networks/{found.engine['Id']}"
            return await self._engine.call("GET", path, request.query)
        assert found.cluster is not None
        shown = resource(found.cluster, request.version)
        containers = await self._containers(request, found.cluster)
        view = await self._view()
        if view is not None:
            on_it = peers(found.cluster, view) if containers is not None else []  # this host is on it
            using = services(found.cluster, view) if verbose else {}
            shown |= ({"Peers": on_it} if on_it else {}) | ({"Services": using} if using else {})
        return json_response({**shown, "Containers": containers})

    async def create(self, request: Request) -> Response | None:
        """The engine's answer for a network of this host; None when the network is the cluster's to create."""
        wanted = read_json(request, NetworkCreateRequest)
        view = await self._view()
        if view is not None and view.by_name(Network, wanted.name) is not None:
            raise Conflict(f"network with name {wanted.name} already exists")
        if not is_swarm_scoped(wanted):
            return await self.to_engine(request)
        # Services know the hosts' `bridge` and `host`, so these names are taken; `none` is refused by the managers.
        for item in await self._engine_networks(request, {}) if wanted.name != "none" else ():
            if item["Name"] == wanted.name:
                raise Conflict(f"network with name {wanted.name} already exists")
        return None

    async def find_overlay(self, request: Request, term: str) -> Network | None:
        """The overlay to delete, or None when the term names one of the engine's own networks."""
        return (await self._find(request, term, "")).cluster

    async def to_engine(self, request: Request) -> Response:
        """Have the engine carry out the request."""
        path = f"/v{show(request.version)}{request.path}"
        return await self._engine.call(request.method, path, request.query, request.body)

    async def _find(self, request: Request, term: str, scope: str) -> Found:
        view = await self._view()
        local = await self._engine_networks(request, {})
        overlays = view.all(Network) if view is not None else self._here(local)
        overlays = overlays if scope in ("", "swarm") else []
        local = [item for item in local if not overlay_of(item)]
        if scope == "swarm":
            local = [item for item in local if item["Name"] in PREDEFINED_NETWORKS]
        elif scope:
            local = [item for item in local if item["Scope"] == scope]
        everything = [Found(cluster=item) for item in overlays] + [Found(engine=item) for item in local]
        named = [(found, *_names(found)) for found in everything]
        for found, id_, _ in named:
            if id_ == term:
                return found
        by_name = [found for found, _, name in named if name == term]
        by_prefix = [found for found, id_, _ in named if id_.startswith(term)]
        for hits, how in ((by_name, "name"), (by_prefix, "ID prefix")):
            if len(hits) == 1:
                return hits[0]
            if hits:
                raise BadRequest(f"{len(hits)} matches found based on {how}: network {term} is ambiguous")
        raise NotFound(f"network {term} not found")

    async def _view(self) -> View | None:
        """The cluster's state; None on a worker, and on a manager that cannot answer now (as in Swarm)."""
        try:
            return await self._node.manager().store.read()
        except ClusterError:
            return None

    def _here(self, local: list[EngineNetwork]) -> list[Network]:
        """The overlays that this host has: as the leader told of them, or as our bridges tell."""
        attachments = self._node.attachments
        told = {network.id: network for network in attachments.networks} if attachments is not None else {}
        bridges = [item for item in local if overlay_of(item) and overlay_of(item) not in told]
        return [*told.values(), *map(_as_network, bridges)]

    async def _engine_networks(self, request: Request, query: dict[str, str]) -> list[EngineNetwork]:
        networks: list[EngineNetwork] = await self._engine.get_json(f"/v{show(request.version)}/networks", query)
        return networks

    async def _containers(self, request: Request, network: Network) -> Any:
        """The containers of this host on an overlay, as the engine lists them on our bridge."""
        for item in await self._engine_networks(request, {}):
            if overlay_of(item) == network.id:
                inspected = await self._engine.get_json(f"/v{show(request.version)}/networks/{item['Id']}")
                return inspected.get("Containers")
        return None


def _names(found: Found) -> tuple[str, str]:
    if found.cluster is not None:
        return found.cluster.id, found.cluster.spec.name
    assert found.engine is not None
    return found.engine["Id"], found.engine["Name"]


def _as_network(bridge: EngineNetwork) -> Network:
    """The overlay that our bridge is part of, as far as the bridge tells. It may outlive the overlay for a while."""
    pools = [
        IPAMConfig(subnet=pool.get("Subnet", ""), gateway=pool.get("Gateway", ""))
        for pool in (bridge.get("IPAM") or {}).get("Config") or ()
    ]
    spec = NetworkSpec(
        name=bridge["Name"],
        internal=bool(bridge.get("Internal")),
        ipv6_enabled=bool(bridge.get("EnableIPv6")),
        scope="swarm",
    )
    network = Network(id=overlay_of(bridge), spec=spec, ipam_options=IPAMOptions(configs=pools))
    return replace(network, created_at=bridge["Created"]) if bridge.get("Created") else network


def _for_services(network: EngineNetwork) -> EngineNetwork:
    """A host's own network as services may use it: by its name, which is the same on every host."""
    unknown = {"Containers": None, "Options": None, "Labels": {PREDEFINED_LABEL: "true"}}
    return {**network, "Id": network["Name"], "Scope": "swarm", **unknown}


def _matches(network: Network, filters: Filters, view: View | None) -> bool:
    """The engine's filters on an overlay. Names and ids match by any part."""
    return (
        _contains(network.spec.name, filters.get("name"))
        and _contains(network.id, filters.get("id"))
        and is_in("overlay", filters.get("driver"))
        and is_in("swarm", filters.get("scope"))
        and is_in("custom", filters.get("type"))
        and has_labels(network.spec.labels, filters.get("label"))
        and _dangling(network, filters.get("dangling"), view)
    )


def _contains(value: str, wanted: list[str] | None) -> bool:
    return not wanted or any(item in value for item in wanted)


def _dangling(network: Network, wanted: list[str] | None, view: View | None) -> bool:
    if not wanted:
        return True
    unused = view is not None and not view.find(Service, network_id=network.id)  # a worker has what is in use on it
    return (wanted[0].lower() in ("1", "true")) is unused
