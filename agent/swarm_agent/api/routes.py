"""The table of the cluster's calls. `write` marks those that only the leader can carry out.

What is neither here nor in local.py's tables is the engine's.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from . import cluster_networks, nodes, operations, secrets, services, swarm, tasks
from .context import Handler


@dataclass(frozen=True, slots=True)
class ClusterRoute:
    """A call about the cluster's state."""

    method: str
    pattern: re.Pattern[str]
    handler: Handler
    write: bool


def _route(method: str, path: str, handler: Handler) -> ClusterRoute:
    pattern = re.compile(path.replace("{id}", r"(?P<id>[^/]+)"))
    return ClusterRoute(method, pattern, handler, write=method != "GET")


CLUSTER = (
    _route("GET", "/swarm", swarm.inspect_swarm),
    _route("POST", "/swarm/update", swarm.update_swarm),
    _route("GET", "/swarm/unlockkey", swarm.unlock_key),
    _route("GET", "/services", services.list_services),
    _route("POST", "/services/create", services.create_service),
    _route("GET", "/services/{id}", services.inspect_service),
    _route("POST", "/services/{id}/update", services.update_service),
    _route("DELETE", "/services/{id}", services.remove_service),
    _route("GET", "/tasks", tasks.list_tasks),
    _route("GET", "/tasks/{id}", tasks.inspect_task),
    _route("GET", "/nodes", nodes.list_nodes),
    _route("GET", "/nodes/{id}", nodes.inspect_node),
    _route("POST", "/nodes/{id}/update", nodes.update_node),
    _route("DELETE", "/nodes/{id}", nodes.remove_node),
    _route("GET", "/secrets", secrets.list_secrets),
    _route("POST", "/secrets/create", secrets.create_secret),
    _route("GET", "/secrets/{id}", secrets.inspect_secret),
    _route("POST", "/secrets/{id}/update", secrets.update_secret),
    _route("DELETE", "/secrets/{id}", secrets.remove_secret),
    _route("GET", "/configs", secrets.list_configs),
    _route("POST", "/configs/create", secrets.create_config),
    _route("GET", "/configs/{id}", secrets.inspect_config),
    _route("POST", "/configs/{id}/update", secrets.update_config),
    _route("DELETE", "/configs/{id}", secrets.remove_config),
    _route("GET", "/swarm-agent/v1/explain/{id}", operations.explain_object),
    _route("POST", "/swarm-agent/v1/rebalance", operations.rebalance),
)

NETWORKS = (
    _route("POST", "/networks/create", cluster_networks.create_network),
    _route("POST", "/networks/prune", cluster_networks.prune_networks),
    _route("DELETE", "/networks/{id}", cluster_networks.remove_network),
)
"""The cluster's half of calls that also concern the engine's networks; reached only through local_networks.py."""


def match(method: str, path: str, table: tuple[ClusterRoute, ...] = CLUSTER) -> tuple[ClusterRoute, str] | None:
    """The route of a call and the term in its path, or None."""
    for route in _candidates(table).get((method, _first(path)), ()):
        found = route.pattern.fullmatch(path)
        if found is not None:
            return route, found.groupdict().get("id", "")
    return None


def _first(path: str) -> str:
    """The first part of a path, which tells most calls apart without looking at their patterns."""
    return path[1:].partition("/")[0]


@functools.cache
def _candidates(table: tuple[ClusterRoute, ...]) -> dict[tuple[str, str], list[ClusterRoute]]:
    found: dict[tuple[str, str], list[ClusterRoute]] = {}
    for route in table:
        found.setdefault((route.method, _first(route.pattern.pattern)), []).append(route)
    return found
