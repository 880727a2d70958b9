"""Rebalancing: which task of a replicated service should stand elsewhere (moby #24103, swarmkit #310). Pure.

Swarm's scheduler never looks back: a new or returned node stays empty. Here one task after the other is taken off the
node that has most and placed anew by the scheduler's own rules, as long as that evens out: the part of a placement
preference, or the node, that it leaves has at least two more of the service's tasks than the one it goes to; or, the
service being even, its node has at least two more tasks in all. Each move makes a sum of squares smaller, so moving
ends. Filters are the scheduler's: a task only goes where it could have been placed in the first place.

A service is left alone while it is not as declared (an update, a restart), and, unless it is named or says
`swarm.rebalance=on`, when its tasks keep data on their node: a volume does not move along.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from swarm_agent.model.extensions import REBALANCE, may_rebalance
from swarm_agent.model.objects import Node, Service, Task

from .filters import Demand, Verdicts
from .nodeset import NodeInfo, NodeSet, failure_key, is_active
from .partition import descriptors
from .placement import Group
from .tasks import Cause, Mode, created_ns, has_ended, is_live, is_running, is_waiting, mode_of, was_assigned

LEAST = 2
"""A difference of one is as even as it gets."""

_ACTIVE_UPDATES = ("updating", "rollback_started")
_SOURCES = 16
"""Parts of a preference from which a move is tried; each try costs a look at the service's nodes."""

MOST_MOVES = 1000
"""Moves that one look ahead gives at most."""


@dataclass(frozen=True, slots=True)
class Move:
    """One task to be replaced; `target` is where the scheduler would put its replacement now."""

    service_id: str
    task_id: str
    slot: int
    source: str
    target: str
    reason: str


def why_not(service: Service, tasks: Iterable[Task], *, named: bool) -> str:
    """Why the service is left alone at present; empty when it may be moved. `named`: somebody asked for just it."""
    if mode_of(service) is not Mode.REPLICATED:
        return "only replicated services are moved"
    if not named:
        if not may_rebalance(service.spec.labels):
            return f"its label {REBALANCE} is off"
        if service.spec.labels.get(REBALANCE) != "on" and keeps_data(service):
            return "its tasks keep data on their nodes; name it, or label it swarm.rebalance=on"
    status = service.update_status
    if status is not None and status.state in _ACTIVE_UPDATES:
        return "it is being updated"
    mode = service.spec.mode.replicated
    wanted = 1 if mode is None or mode.replicas is None else mode.replicas
    live = [task for task in tasks if is_live(task)]
    if len(live) != wanted or not all(is_running(task) and not is_waiting(task) for task in live):
        return "not all of its tasks run"
    return ""


def keeps_data(service: Service) -> bool:
    """Its tasks write to something that stays behind on their node."""
    container = service.spec.task_template.container_spec
    return container is not None and any(
        mount.type in ("volume", "bind") and not mount.read_only and _is_local(mount.volume_options)
        for mount in container.mounts
    )


def _is_local(options: object) -> bool:
    driver = getattr(options, "driver_config", None)
    return driver is None or driver.name in ("", "local")


def find_move(
    nodes: NodeSet,
    verdicts: Verdicts,
    service: Service,
    tasks: Iterable[Task],
    *,
    now: int,
    moved: Collection[int] = (),
) -> Move | None:
    """The best move of the service, None when it is even. `moved`: slots that have had their turn. The node set is as
    it was when this returns."""
    template = service.spec.task_template
    preferences = template.placement.preferences if template.placement is not None else []
    labels = descriptors(preferences)
    paths = nodes.partition(labels).paths
    counts: Counter[tuple[str, ...]] = Counter()
    for info in nodes.running.get(service.id, {}).values():
        path = paths.get(info.id)
        if path is not None:
            for level in range(1, len(path) + 1):
                counts[path[:level]] += info.by_service[service.id]

    def weight(task: Task) -> tuple[tuple[int, ...], int, int]:
        path, info = paths[task.node_id], nodes.nodes[task.node_id]
        levels = tuple(counts[path[:level]] for level in range(1, len(path) + 1))
        return levels, info.by_service.get(service.id, 0), info.active

    # Only from nodes that take tasks: others are emptied (drain) or left in peace (pause) by others' rules.
    movable = [task for task in tasks if is_live(task) and task.slot not in moved and task.node_id in paths]
    movable.sort(key=lambda task: (weight(task), task.created_at), reverse=True)
    heaviest: dict[tuple[str, ...], Task] = {}
    for task in movable:
        heaviest.setdefault(paths[task.node_id], task)
    for task in list(heaviest.values())[:_SOURCES]:
        wanted = msgspec.structs.replace(task, spec=template)
        source = nodes.nodes[task.node_id]
        nodes.release(task.id, task.node_id)
        target = Group(nodes, Demand(wanted, verdicts), failure_key(wanted), preferences, now).next()
        nodes.charge(task)
        if target is None or target.id == source.id:
            continue
        reason = _gain(service.id, labels, counts, paths, source, target)
        if reason:
            return Move(service.id, task.id, task.slot, source.id, target.id, reason)
    return None


def _gain(
    service_id: str,
    labels: Sequence[str],
    counts: Counter[tuple[str, ...]],
    paths: dict[str, tuple[str, ...]],
    source: NodeInfo,
    target: NodeInfo,
) -> str:
    """What the move makes more even, in words; empty when it does not."""
    here, there = paths[source.id], paths[target.id]
    for level, label in enumerate(labels, 1):
        if here[:level] != there[:level]:
            more, less = counts[here[:level]], counts[there[:level]]
            if more - less >= LEAST:
                return (
                    f"{label}={here[level - 1]} has {more} tasks of the service, {label}={there[level - 1]} has {less}"
                )
            return ""
    more, less = source.by_service.get(service_id, 0), target.by_service.get(service_id, 0)
    if more - less >= LEAST:
        return f"node {_name(source)} has {more} tasks of the service, node {_name(target)} has {less}"
    if more > less and source.active - target.active >= LEAST:
        return f"node {_name(source)} has {source.active} tasks in all, node {_name(target)} has {target.active}"
    return ""


def _name(info: NodeInfo) -> str:
    return info.node.description.hostname or info.id if info.node is not None else info.id


def look_ahead(
    nodes: Sequence[Node], tasks: Sequence[Task], services: Sequence[Service], *, named: bool, now: int
) -> tuple[list[Move], dict[str, str]]:
    """All moves until everything is even, as they would follow if nothing else happened, and for each service that is
    left alone the reason. Works on its own picture, so it may run in a thread."""
    verdicts = Verdicts()
    picture = NodeSet(verdicts.forget)
    for node in nodes:
        picture.put_node(node)
    of_service: dict[str, dict[int, Task]] = {service.id: {} for service in services}
    history: dict[str, list[Task]] = {service.id: [] for service in services}
    for task in tasks:
        if task.node_id and was_assigned(task) and not has_ended(task):
            picture.charge(task)
            if is_active(task) and task.service_id in of_service:
                of_service[task.service_id][task.slot] = task
        if task.service_id in history:
            history[task.service_id].append(task)
    left = {it.id: reason for it in services if (reason := why_not(it, history[it.id], named=named))}
    open_ones = [service for service in services if service.id not in left]
    moves: list[Move] = []
    going = True
    while going and len(moves) < MOST_MOVES:
        going = False  # a pass without a move ends it: what one service does may open the way for another
        for service in open_ones:
            standing = of_service[service.id]
            move = find_move(picture, verdicts, service, standing.values(), now=now)
            if move is None:
                continue
            going = True
            moves.append(move)
            task = standing[move.slot]
            picture.release(task.id, task.node_id)
            standing[move.slot] = msgspec.structs.replace(task, node_id=move.target)
            picture.charge(standing[move.slot])
    return moves, left


def moved_since(tasks: Iterable[Task], since: int) -> set[int]:
    """Slots that were moved, or tried to be, after this time (ns)."""
    return {task.slot for task in tasks if task.cause == Cause.REBALANCE and created_ns(task) >= since}
