"""`LocalApi`: what this host's front door answers itself, whatever the node's role.

Three kinds of calls: those about this node (init, join, leave), those that join the cluster's part to the engine's
answer (/_ping, /version, /info, /networks), and those about the cluster's state, which `ClusterApi` carries out here,
or on the leader when this manager does not lead.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from swarm_agent.manager.control.services import PREDEFINED_NETWORKS, unknown_networks
from swarm_agent.model.errors import BadRequest, ClusterError, Forbidden
from swarm_agent.model.requests import InitRequest, JoinRequest, RestoreRequest, SnapshotRequest, UnlockRequest
from swarm_agent.model.specs import ServiceSpec
from swarm_agent.network.names import NETWORK_LABEL

from . import containers, events, logs
from .cluster import ClusterApi
from .cluster_networks import PRUNE_FILTERS
from .context import AbsentStore, read_json
from .control_protocol import ManagerHandle, NodeControl
from .engine import EngineClient, EngineDown, EngineRefused
from .engine_info import EngineInfo
from .filters import parse_filters
from .info import ping_word, swarm_section
from .local_networks import LocalNetworks, overlay_of
from .logs import open_logs, read_options
from .message import EMPTY, Request, Response, Stream, error_of, error_response, json_response
from .plain_containers import PlainContainers
from .remote import Place, RemoteContainers
from .routes import match
from .versions import NEWEST, adjust_init, adjust_service, parse_version, show

log = logging.getLogger(__name__)

Forward = Callable[[str, Request], Awaitable[Response]]
"""Sends a request to the leader's management plane (host:port) and returns its response. Raises ClusterError."""

_LOCAL = {
    ("GET", "/_ping"): "ping",
    ("HEAD", "/_ping"): "ping",
    ("GET", "/version"): "version",
    ("GET", "/info"): "info",
    ("GET", "/containers/json"): "container_list",
    ("POST", "/swarm/init"): "init",
    ("POST", "/swarm/join"): "join",
    ("POST", "/swarm/leave"): "leave",
    ("POST", "/swarm/unlock"): "unlock",
    ("GET", "/swarm-agent/v1/mesh"): "mesh",
    ("POST", "/swarm-agent/v1/snapshot"): "snapshot",
    ("POST", "/swarm-agent/v1/restore"): "restore",
    ("GET", "/swarm-agent/v1/members"): "members",
    ("GET", "/swarm-agent/v1/explain"): "explain",
    ("GET", "/swarm-agent/metrics"): "metrics",
}
_NETWORKS = {
    ("GET", "/networks"): "network_list",
    ("POST", "/networks/create"): "network_create",
    ("POST", "/networks/prune"): "network_prune",
}
_NETWORK_MEMBER = re.compile(r"/networks/([^/]+)/(connect|disconnect)")
_NETWORK = re.compile(r"/networks/([^/]+)")
_MAY_NAME_NETWORKS = re.compile(rb"networks|\\u", re.IGNORECASE)  # JSON may write any letter as \\u0000
_SERVICE_CHANGE = re.compile(r"/services/(?:create|[^/]+/update)")

NO_CACHE = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}


class LocalApi:
    """The front door's own calls. `forward` reaches the leader from a follower; without it only the leader writes."""

    def __init__(self, node: NodeControl, engine: EngineClient, *, forward: Forward | None = None) -> None:
        self.engine = engine
        self._node = node
        self._forward = forward
        self._networks = LocalNetworks(node, engine)
        self._containers = PlainContainers(node, engine)
        self.remote = RemoteContainers(node, engine)
        self.engine_info = EngineInfo(engine)

    def owns(self, method: str, path: str, query: str = "") -> bool:
        """True for calls to answer here; all others are the engine's. `path` is without the version prefix."""
        if path == "/containers/json" and containers.FILTER not in query:
            return containers.NETWORK in query and self._node.local_state != "inactive" and method == "GET"
        return self._handler(method, path) is not None or match(method, path) is not None

    def _handler(self, method: str, path: str) -> tuple[str, str] | None:
        """The name of our method for a call, and the term in its path."""
        name = _LOCAL.get((method, path))
        if name is not None:
            return name, ""
        if (method, path) == ("GET", "/events") and self._node.is_manager:
            return "events", ""
        if method == "GET" and logs.PATH.fullmatch(path) is not None:
            return "logs", ""
        if (method, path) == ("POST", "/containers/create") and self._node.attachments is not None:
            return "container_create", ""
        # Outside a cluster the engine's networks are all there is, and it answers for itself.
        if not path.startswith("/networks") or self._node.local_state == "inactive":
            return None
        name = _NETWORKS.get((method, path))
        if name is not None:
            return name, ""
        joined = _NETWORK_MEMBER.fullmatch(path)
        if joined is not None and method == "POST":
            return f"network_{joined[2]}", joined[1]
        found = _NETWORK.fullmatch(path)
        if found is not None and method in ("GET", "DELETE"):
            return ("network_inspect" if method == "GET" else "network_remove"), found[1]
        return None

    async def handle(self, request: Request) -> Response | Stream:
        """Answer a call that `owns` accepted. Every failure is a response."""
        try:
            handler = self._handler(request.method, request.path)
            if handler is None:
                return await self._cluster(request)
            name, term = handler
            with self.engine_info.during(request.method):
                response: Response | Stream = await getattr(self, f"_{name}")(request, *([term] if term else []))
            return response
        except EngineRefused as refusal:
            return refusal.reply
        except ClusterError as error:
            return error_of(error)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return error_response(500, "internal error: see the agent's log")

    # --- merged with the engine's answers ----------------------------------------------------------------------------

    async def _ping(self, request: Request) -> Response:
        """Without an engine clients still learn versions and the cluster's state, from the headers of a 500."""
        headers = {**NO_CACHE, "Swarm": ping_word(self._node)}
        try:
            reply = await self.engine.call("GET", "/_ping")
        except EngineDown as error:
            return replace(error_response(500, str(error)), headers=headers)
        return replace(reply, headers={**reply.headers, **headers})

    async def _version(self, request: Request) -> Response:
        answer = await self.engine.get_json(f"/v{show(request.version)}/version")
        return json_response(limit_version(answer))

    async def _info(self, request: Request) -> Response:
        answer = await self.engine_info.get(request.version)
        if self._node.local_state != "inactive" or self._node.error:
            answer["Swarm"] = await swarm_section(self._node)
        return json_response(answer)

    async def _events(self, request: Request) -> Stream:
        """Only clients of API 1.30 and later are told the cluster's events."""
        manager = self._node.manager() if request.version >= (1, 30) else None
        parts = events.merged(request, parse_filters(request, None), self.engine, manager)
        await anext(parts)  # the engine accepts the request, or its refusal is the answer
        return Stream(parts)

    async def _logs(self, request: Request) -> Stream:
        options = read_options(request)
        return await open_logs(request, options, self._node.manager().store, self._node.connect_engine)

    # --- containers of other hosts -----------------------------------------------------------------------------------

    async def answer_remote(self, place: Place, request: Request) -> Response:
        """Make an exec in a task's container, or show it. Every failure is a response."""
        try:
            return await self.remote.answer(place, request)
        except ClusterError as error:
            return error_of(error)

    # --- this node's membership --------------------------------------------------------------------------------------

    async def _init(self, request: Request) -> Response:
        wanted = adjust_init(read_json(request, InitRequest), request.version)
        return json_response(await self._node.init(wanted))

    async def _join(self, request: Request) -> Response:
        await self._node.join(read_json(request, JoinRequest))
        return EMPTY

    async def _leave(self, request: Request) -> Response:
        await self._node.leave(request.flag("force"))
        return EMPTY

    async def _unlock(self, request: Request) -> Response:
        await self._node.unlock(read_json(request, UnlockRequest).unlock_key)
        return EMPTY

    # --- what Swarm does not have: swarmctl's calls -------------------------------------------------------------------

    async def _mesh(self, request: Request) -> Response:
        return json_response(await self._node.mesh_report())

    async def _snapshot(self, request: Request) -> Stream:
        wanted = read_json(request, SnapshotRequest)
        pieces = await self._node.save_snapshot(read_secret(wanted.secret))
        return Stream(pieces, "application/octet-stream")

    async def _restore(self, request: Request) -> Response:
        wanted = read_json(request, RestoreRequest)
        return json_response(await self._node.restore(wanted, read_secret(wanted.secret)))

    async def _members(self, request: Request) -> Response:
        return json_response(self._node.introspection.members())

    async def _explain(self, request: Request) -> Response:
        return json_response({"Lines": self._node.introspection.explain(request.query.get("term", ""))})

    async def _metrics(self, request: Request) -> Response:
        text = self._node.introspection.metrics()
        return Response(body=text.encode(), content_type="text/plain; version=0.0.4; charset=utf-8")

    # --- networks ----------------------------------------------------------------------------------------------------

    async def _container_list(self, request: Request) -> Response:
        return await containers.list_containers(request, self.engine)

    async def _container_create(self, request: Request) -> Response:
        return await self._containers.create(request)

    async def _network_connect(self, request: Request, term: str) -> Response:
        return await self._containers.connect(request, term)

    async def _network_disconnect(self, request: Request, term: str) -> Response:
        return await self._containers.disconnect(request, term)

    async def _network_list(self, request: Request) -> Response:
        return await self._networks.list_networks(request)

    async def _network_inspect(self, request: Request, term: str) -> Response:
        return await self._networks.inspect(request, term)

    async def _network_create(self, request: Request) -> Response:
        reply = await self._networks.create(request)
        return reply if reply is not None else await self._cluster(request)

    async def _network_remove(self, request: Request, term: str) -> Response:
        overlay = await self._networks.find_overlay(request, term)
        if overlay is None:
            return await self._networks.to_engine(request)
        return await self._cluster(replace(request, path=f"/networks/{overlay.id}"))

    async def _network_prune(self, request: Request) -> Response:
        """The engine's and the cluster's. Our bridges of overlays are kept from the engine's broom."""
        filters = parse_filters(request, PRUNE_FILTERS)  # nothing is pruned by a filter that was not understood
        filters = {**filters, "label!": [*filters.get("label!", []), NETWORK_LABEL]}
        query = {**request.query, "filters": msgspec.json.encode(filters).decode()}
        reply = await self._networks.to_engine(replace(request, query=query))
        if reply.status != 200 or not self._node.is_manager:
            return reply
        own = await self._cluster(request)
        if own.status != 200:
            return own
        names = [msgspec.json.decode(item.body)["NetworksDeleted"] or [] for item in (own, reply)]
        return json_response({"NetworksDeleted": (names[0] + names[1]) or None})

    # --- the cluster's state -----------------------------------------------------------------------------------------

    async def _cluster(self, request: Request) -> Response:
        try:
            manager = self._node.manager()
        except ClusterError as absence:  # what is wrong with the request in itself is said before that, as by Swarm
            return await ClusterApi(AbsentStore(absence)).handle(request)
        if request.method == "POST" and _SERVICE_CHANGE.fullmatch(request.path):
            request = await self._resolve_host_networks(manager, request)
        if request.method != "GET" and not manager.is_leader and self._forward is not None:
            return await self._forward(manager.leader_addr, request)
        return await ClusterApi(manager.store, quorum=manager, external=manager).handle(request)

    async def _resolve_host_networks(self, manager: ManagerHandle, request: Request) -> Request:
        """A service may name a host's own `host`, `bridge`, `none`, also by the id that this host's engine gave it; any
        other network of one host is refused. Only this host's engine can tell, so it is done here, not on the leader.
        """
        if not _MAY_NAME_NETWORKS.search(request.body):  # the leader reads it anyway; reading it twice costs
            return request
        spec = adjust_service(read_json(request, ServiceSpec), request.version)
        unknown = unknown_networks(manager.store.view(), spec) if spec.task_template.networks else []
        if not unknown:
            return request
        local = [item for item in await self.engine.get_json("/networks") if not overlay_of(item)]
        names: dict[str, str] = {}
        for target in unknown:
            found = next((item for item in local if target in (item["Name"], item["Id"])), None)
            if found is None:
                continue  # the leader says that it does not exist
            if found["Name"] not in PREDEFINED_NETWORKS:
                raise Forbidden(
                    f"The network {found['Name']} cannot be used with services. Only networks scoped to the swarm can "
                    "be used, such as those created with the overlay driver."
                )
            names[target] = found["Name"]
        body = msgspec.json.decode(request.body)
        for part in (body, body.get("TaskTemplate") or {}):
            for network in part.get("Networks") or ():
                network["Target"] = names.get(network.get("Target"), network.get("Target"))
        return replace(request, body=msgspec.json.encode(body))


def read_secret(text: str) -> bytes:
    """The bytes of a secret in base64. Raises BadRequest."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise BadRequest("the secret must be base64") from None


def limit_version(answer: dict[str, Any]) -> dict[str, Any]:
    """GET /version of the engine with no newer API version than this front door speaks."""
    theirs = parse_version(str(answer.get("ApiVersion", "")))
    if theirs is None or theirs <= NEWEST:
        return answer
    answer = {**answer, "ApiVersion": show(NEWEST)}
    for component in answer.get("Components") or ():
        if component.get("Name") == "Engine" and isinstance(component.get("Details"), dict):
            component["Details"]["ApiVersion"] = show(NEWEST)
    return answer
