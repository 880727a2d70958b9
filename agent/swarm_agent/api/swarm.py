"""/swarm of the cluster's API: what managers answer from the store (swarm.md §1.2)."""

from __future__ import annotations

import datetime

from msgspec.structs import replace

from swarm_agent.manager.control import cluster as control
from swarm_agent.manager.control.roots import new_reliance, no_external, public_ca
from swarm_agent.model.base import encode
from swarm_agent.model.objects import Cluster
from swarm_agent.model.specs import SwarmSpec

from .context import Context
from .message import EMPTY, Response, json_response, raw_json


async def inspect_swarm(context: Context) -> Response:
    return raw_json(encode(_shown(control.get_cluster(await context.read()))))


def cluster_info(cluster: Cluster) -> Cluster:
    """The cluster as /info shows it: without tokens."""
    return replace(_shown(cluster), join_tokens=None)


def _shown(cluster: Cluster) -> Cluster:
    """Nothing of the signing root's is returned, see `roots.public_ca`."""
    return replace(cluster, spec=replace(cluster.spec, ca_config=public_ca(cluster.spec.ca_config)))


async def update_swarm(context: Context) -> Response:
    request = context.request
    spec = context.body(SwarmSpec)
    version = request.object_version("swarm")
    rotate_worker, rotate_manager = (
        request.strict_flag(f"rotate{role}Token", detailed=False) for role in ("Worker", "Manager")
    )
    rotate_unlock_key = request.strict_flag("rotateManagerUnlockKey", detailed=False)
    await _check_reliance(context, spec)
    await context.update(
        lambda tx: control.update_cluster(
            tx,
            version,
            spec,
            context.rng,
            rotate_worker_token=rotate_worker,
            rotate_manager_token=rotate_manager,
            rotate_unlock_key=rotate_unlock_key,
        )
    )
    return EMPTY


async def _check_reliance(context: Context, spec: SwarmSpec) -> None:
    """An external CA that is not there could not sign for any node. Raises InvalidArgument."""
    cluster = control.get_cluster(context.store.view())
    needed = new_reliance(cluster, spec.ca_config, datetime.datetime.now(datetime.UTC))
    if needed is None or context.external is None:
        return
    if not await context.external.reaches_external(needed.root, needed.urls):
        raise no_external(needed.which)


async def unlock_key(context: Context) -> Response:
    cluster = control.get_cluster(await context.read())
    return json_response({"UnlockKey": cluster.unlock_key})
