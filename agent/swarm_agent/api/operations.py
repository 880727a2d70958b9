"""What Swarm does not have, for operators (`swarmctl`): explanations, and rebalancing.

GET  /swarm-agent/v1/explain/TERM?kind=service|task|node     model/explanation.Explanation
POST /swarm-agent/v1/rebalance                               RebalanceRequest → RebalanceAnswer
"""

from __future__ import annotations

import asyncio
import time

from msgspec.structs import replace

from swarm_agent.manager.control.lookup import candidates, find
from swarm_agent.manager.explain import Facts, explain
from swarm_agent.manager.rebalance import look_ahead
from swarm_agent.manager.tasks import age_order
from swarm_agent.model.base import encode
from swarm_agent.model.errors import BadRequest, NotFound
from swarm_agent.model.explanation import LeftAlone, PlannedMove, RebalanceAnswer, RebalanceRequest
from swarm_agent.model.objects import Node, Service, Task
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import View

from .context import Context
from .message import Response, raw_json

_KINDS: dict[str, type[Service] | type[Task] | type[Node]] = {"service": Service, "task": Task, "node": Node}


async def explain_object(context: Context) -> Response:
    """Why a service, task or node is as it is."""
    view = await context.read()
    obj = _meant(view, context.term, context.request.query.get("kind", ""))
    facts = Facts(view)
    # In a thread: with 100,000 tasks it takes longer than the event loop may be held.
    return raw_json(encode(await asyncio.to_thread(explain, facts, obj, time.time_ns())))


def _meant(view: View, term: str, kind: str) -> Service | Task | Node:
    """The object that a term means; services before tasks before nodes. Raises NotFound, BadRequest."""
    if kind:
        if kind not in _KINDS:
            raise BadRequest(f"kind {kind!r} is not one of {', '.join(_KINDS)}")
        newest = newest_of_slot(view, term) if kind == "task" else None
        return newest if newest is not None else find(view, _KINDS[kind], term)
    for one in _KINDS.values():
        if candidates(view, one, term):
            return find(view, one, term)
    newest = newest_of_slot(view, term)
    if newest is not None:
        return newest
    raise NotFound(f"no service, task or node {term}")


def newest_of_slot(view: View, term: str) -> Task | None:
    """The last task that was made for a slot, said as `docker service ps` shows it: SERVICE.SLOT."""
    name, _, slot = term.rpartition(".")
    service = view.by_name(Service, name)
    if service is None or not slot.isdecimal():
        return None
    tasks = [task for task in view.find(Task, service_id=service.id) if task.slot == int(slot)]
    return max(tasks, key=age_order, default=None)


async def rebalance(context: Context) -> Response:
    """Say what would be moved, and have it moved unless it is a dry run."""
    wanted = context.body(RebalanceRequest)
    view = await context.read()
    services = [find(view, Service, wanted.service)] if wanted.service else view.all(Service)
    nodes, tasks = view.all(Node), view.all(Task)
    moves, left = await asyncio.to_thread(
        look_ahead, nodes, tasks, services, named=bool(wanted.service), now=time.time_ns()
    )
    names = {service.id: service.spec.name for service in services}
    hosts = {node.id: node.description.hostname or node.id for node in nodes}
    marked = {move.service_id: None for move in moves}
    if marked and not wanted.dry_run:
        await context.update(lambda tx: _mark(tx, marked))
    answer = RebalanceAnswer(
        moves=[
            PlannedMove(
                service=names[move.service_id],
                task_id=move.task_id,
                slot=move.slot,
                source=hosts.get(move.source, move.source),
                target=hosts.get(move.target, move.target),
                reason=move.reason,
            )
            for move in moves
        ],
        left_alone=[LeftAlone(service=names[id_], reason=reason) for id_, reason in left.items()],
    )
    return raw_json(encode(answer))


def _mark(tx: Tx, service_ids: dict[str, None]) -> None:
    for service_id in service_ids:
        service = tx.get(Service, service_id)
        if service is not None:
            tx.update(replace(service, rebalance=tx.now))
