"""GET /containers/json with the filters `is-task` and `network`, in a cluster: to this host's engine the containers of
tasks are like any others, and an overlay is the bridge that stands for it here.

Other lists of containers go to the engine as they are.
"""

from __future__ import annotations

from typing import Any

import msgspec

from swarm_agent.model.errors import BadRequest

from .engine import EngineClient
from .filters import parse_filters
from .local_networks import overlay_of
from .message import Request, Response, json_response
from .versions import show

FILTER, NETWORK = "is-task", "network"
TASK_LABEL = "com.docker.swarm.task.id"
_WORDS = {"true": True, "1": True, "false": False, "0": False}


async def list_containers(request: Request, engine: EngineClient) -> Response:
    """The engine's containers that are, or that are not, those of tasks. Raises ClusterError."""
    filters = dict(parse_filters(request, None))
    wanted = {_truth(word) for word in filters.pop(FILTER, [])}
    if filters.get(NETWORK):
        filters[NETWORK] = [*filters[NETWORK], *await _bridges(request, engine, tuple(filters[NETWORK]))]
    query = {**request.query, "filters": msgspec.json.encode(filters).decode()}
    limit = query.pop("limit", "")  # applies to what is left; with it the engine shows stopped containers too
    limited = limit.isdigit() and int(limit) > 0
    if limited:
        query["all"] = "1"
    found: list[dict[str, Any]] = await engine.get_json(f"/v{show(request.version)}/containers/json", query)
    if len(wanted) == 1:
        found = [item for item in found if (TASK_LABEL in (item.get("Labels") or {})) in wanted]
    return json_response(found[: int(limit)] if limited else found)


async def _bridges(request: Request, engine: EngineClient, terms: tuple[str, ...]) -> list[str]:
    """The engine's names of the overlays whose ids begin with one of the terms."""
    networks: list[dict[str, Any]] = await engine.get_json(f"/v{show(request.version)}/networks")
    return [item["Name"] for item in networks if overlay_of(item).startswith(terms)]


def _truth(word: str) -> bool:
    if word.lower() not in _WORDS:
        raise BadRequest(f"invalid filter '{FILTER}=[{word}]'")
    return _WORDS[word.lower()]
