"""/nodes of the cluster's API (swarm.md §1.5)."""

from __future__ import annotations

import functools

from swarm_agent.manager.control import nodes as control
from swarm_agent.manager.control.lookup import find
from swarm_agent.model.objects import Node
from swarm_agent.model.specs import NodeSpec
from swarm_agent.store.errors import TooLarge
from swarm_agent.store.tx import Tx

from .context import Context
from .filters import check_words, has_labels, has_prefix, is_in, parse_filters
from .message import EMPTY, Response, raw_json

FILTERS = ("name", "id", "label", "role", "membership", "node.label")


async def list_nodes(context: Context) -> Response:
    filters = parse_filters(context.request, FILTERS)
    roles = check_words("role", filters.get("role"), control.ROLES)
    # Swarm's nodes are always accepted; the filter is left over from a plan to accept them by hand.
    membership = check_words("membership", filters.get("membership"), ("accepted", "pending"))
    view = await context.read()
    return context.encoded(
        node
        for node in view.all(Node)
        if has_prefix(node.description.hostname, filters.get("name"))
        and has_prefix(node.id, filters.get("id"))
        and has_labels(node.description.engine.labels, filters.get("label"))
        and has_labels(node.spec.labels, filters.get("node.label"))
        and is_in(node.spec.role, roles)
        and is_in("accepted", membership)
    )


async def inspect_node(context: Context) -> Response:
    return raw_json(context.store.encoded(find(await context.read(), Node, context.term)))


async def update_node(context: Context) -> Response:
    spec = context.body(NodeSpec)
    version = context.request.object_version("node")
    can_remove = context.quorum.can_remove if context.quorum is not None else lambda node_id: True
    await context.update(lambda tx: control.update_node(tx, context.term, version, spec, can_remove=can_remove))
    return EMPTY


async def remove_node(context: Context) -> Response:
    force = context.request.flag("force")
    is_member = context.quorum.is_raft_member if context.quorum is not None else None

    def remove(tx: Tx, *, with_tasks: bool = True) -> None:
        control.remove_node(tx, context.term, force=force, is_member=is_member, with_tasks=with_tasks)

    try:
        await context.update(remove)
    except TooLarge:
        await context.update(functools.partial(remove, with_tasks=False))
    return EMPTY
