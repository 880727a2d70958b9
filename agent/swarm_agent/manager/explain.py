"""Why things are as they are: why a task waits, why it was replaced or moved, why a node is empty (swarm.md §5).

All of it is read off the store: the reasons are kept where they arise (`Task.cause`, the observed error, the update's
message), so any manager can answer, also about what a former leader did. Pure: objects in, sentences out.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

from swarm_agent.model.explanation import Explanation, NodeVerdict, Step
from swarm_agent.model.extensions import CRON, schedule
from swarm_agent.model.objects import Node, Service, Task
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import SECOND, parse_rfc3339, rfc3339
from swarm_agent.store.view import Reader

from .defaults import restart_policy
from .filters import Verdicts
from .nodeset import NodeSet
from .objections import objections
from .restart import should_restart
from .tasks import (
    Cause,
    SlotKey,
    age_order,
    has_ended,
    is_drained,
    is_live,
    is_running,
    is_waiting,
    iteration_of,
    mode_of,
    node_is_lost,
    slot_of,
    was_assigned,
)

STORY = 20
"""Tasks in a story at most."""

WAITING_SHOWN = 3
"""Waiting tasks of a service that are explained one by one."""


class Facts:
    """What explanations are made from, read from one view, so that the rest may be done in a thread."""

    def __init__(self, reader: Reader) -> None:
        self.nodes: dict[str, Node] = {node.id: node for node in reader.all(Node)}
        self.services: dict[str, Service] = {service.id: service for service in reader.all(Service)}
        self.tasks: list[Task] = reader.all(Task)
        self.by_service: dict[str, list[Task]] = {}
        for task in self.tasks:
            self.by_service.setdefault(task.service_id, []).append(task)

    def picture(self) -> NodeSet:
        """The nodes as the scheduler sees them."""
        nodes = NodeSet(Verdicts().forget)
        for node in self.nodes.values():
            nodes.put_node(node)
        for task in self.tasks:
            if task.node_id and was_assigned(task) and not has_ended(task):
                nodes.charge(task)
        return nodes

    def host(self, node_id: str) -> str:
        node = self.nodes.get(node_id)
        return (node.description.hostname or node.id) if node is not None else node_id

    def of_service(self, service_id: str) -> dict[SlotKey, list[Task]]:
        """A service's tasks by slot, oldest first."""
        service = self.services.get(service_id)
        found: dict[SlotKey, list[Task]] = {}
        for task in sorted(self.by_service.get(service_id, ()), key=age_order):
            key: SlotKey = slot_of(task, mode_of(service)) if service is not None else task.slot or task.node_id
            found.setdefault(key, []).append(task)
        return found


# --- a task ----------------------------------------------------------------------------------------------------------


def explain_task(facts: Facts, task: Task, now: int) -> Explanation:
    """Why the task is where and what it is, and the story of its slot."""
    service = facts.services.get(task.service_id)
    history = next((tasks for tasks in facts.of_service(task.service_id).values() if task in tasks), [task])
    sentences = [_state_of(facts, task, now)]
    nodes = []
    if _waits_for_node(task):
        nodes = verdicts(facts, task)
        fit = sum(1 for node in nodes if not node.objections)
        sentences.append(f"{fit} of {len(nodes)} nodes could take it now")
    if has_ended(task) and task is history[-1] and is_live_slot_dead(service, task, history):
        policy = restart_policy(task.spec)
        attempts = f" and {policy.attempts} attempts" if policy.attempts else ""
        sentences.append(f"it is not replaced: its restart policy is {policy.condition.value}{attempts}")
    sentences.append(f"made because {why_made(facts, task, history)}")
    return Explanation(
        kind="task",
        id=task.id,
        name=task.name,
        facts=sentences,
        nodes=nodes,
        story=[step(facts, one, history) for one in reversed(history[-STORY:])],
    )


def is_live_slot_dead(service: Service | None, task: Task, history: Sequence[Task]) -> bool:
    """The slot's last task ended, and nothing will come in its place."""
    return service is not None and not any(is_live(one) for one in history) and not should_restart(task, history)


def verdicts(facts: Facts, task: Task) -> list[NodeVerdict]:
    """For each node that comes into question what keeps the task off it."""
    picture = facts.picture()
    wanted = [task.node_id] if task.node_id else list(facts.nodes)
    found = [
        NodeVerdict(node_id=node_id, hostname=facts.host(node_id), objections=objections(task, picture.nodes[node_id]))
        for node_id in wanted
        if node_id in picture.nodes
    ]
    return sorted(found, key=lambda node: (len(node.objections), node.hostname))


def _waits_for_node(task: Task) -> bool:
    return not was_assigned(task) and is_live(task) and task.status.state is not TaskState.NEW


def _state_of(facts: Facts, task: Task, now: int) -> str:
    state, where = task.status.state, f" on node {facts.host(task.node_id)}" if task.node_id else ""
    error = f": {task.status.err}" if task.status.err else ""
    if has_ended(task):
        asked = "" if is_live(task) else "; it is not wanted any more" if not error else ""
        return f"it ended as {state}{where}{error}{asked}"
    if not is_live(task):
        return f"it is being stopped{where} (state {state}){error}"
    if state is TaskState.NEW:
        return f"it waits for addresses and ports{error or ': none are free, or they are being given out right now'}"
    if state is TaskState.PENDING:
        return f"it waits for a node{where}{error or ': it was not looked at yet'}"
    if is_waiting(task):
        due = parse_rfc3339(task.restart_after) if task.restart_after else 0
        if due > now:
            return f"it is prepared{where} and starts in {(due - now) / SECOND:.0f} s, when its restart delay is over"
        return f"it is prepared{where} (state {state}) and starts when the task before it has stopped"
    if is_running(task):
        return f"it runs{where} since {task.status.timestamp}"
    return f"it comes up{where}: {state}{error or _message(task)}"


def _message(task: Task) -> str:
    return f" ({task.status.message})" if task.status.message else ""


def why_made(facts: Facts, task: Task, history: Sequence[Task]) -> str:
    """Why a task was made, with what befell the task before it."""
    index = next((number for number, one in enumerate(history) if one.id == task.id), 0)
    before = history[index - 1] if index else None
    node = facts.host(before.node_id) if before is not None and before.node_id else ""
    match task.cause:
        case Cause.SCALE:
            return "the service wants this slot filled"
        case Cause.NODE:
            return f"the service runs on every node that suits it, and node {facts.host(task.node_id)} does"
        case Cause.UPDATE:
            return f"an update replaced the task before it{f' (begun {task.update})' if task.update else ''}"
        case Cause.JOB:
            return "a run of the job was due"
        case Cause.DRAIN:
            return f"node {node or 'of the task before it'} is drained"
        case Cause.NODE_LOST:
            return f"node {node or 'of the task before it'} was lost"
        case Cause.REBALANCE:
            return f"node {node or 'of the task before it'} had more than its share (rebalancing)"
        case Cause.RESTART if before is not None:
            what = f"{before.status.state}{': ' + before.status.err if before.status.err else ''}"
            return f"the task before it ended on node {node}: {what}" if node else f"the task before it ended: {what}"
        case Cause.RESTART:
            return "the task before it ended"
    return task.cause or "of a reason that was not kept"


def step(facts: Facts, task: Task, history: Sequence[Task]) -> Step:
    """The task in the story of its slot."""
    return Step(
        task_id=task.id,
        service_id=task.service_id,
        name=task.name,
        node_id=task.node_id,
        hostname=facts.host(task.node_id) if task.node_id else "",
        created_at=task.created_at,
        desired_state=task.desired_state.value,
        state=task.status.state.value,
        since=task.status.timestamp,
        cause=task.cause,
        why=why_made(facts, task, history),
    )


# --- a service -------------------------------------------------------------------------------------------------------


def explain_service(facts: Facts, service: Service, now: int) -> Explanation:
    """Whether the service is as declared, what its update and its schedule say, and why tasks wait or were replaced."""
    slots = facts.of_service(service.id)
    tasks = [task for history in slots.values() for task in history]
    live = [task for task in tasks if is_live(task)]
    sentences = [_counts(service, live)]
    status = service.update_status
    if status is not None and status.state:
        sentences.append(f"update {status.state}: {status.message}")
    sentences += _schedule_facts(service, now)
    if service.rebalance:
        sentences.append(f"its tasks are being spread anew, as asked at {service.rebalance}")
    dead = [key for key, history in slots.items() if is_live_slot_dead(service, history[-1], history)]
    if dead and not mode_of(service).is_job:
        shown = ", ".join(str(key) for key in dead[:5])
        sentences.append(f"{len(dead)} slots stay empty, their restart policy is used up ({shown}); update or force it")
    waiting = [task for task in live if _waits_for_node(task) or task.status.state is TaskState.NEW]
    reasons = Counter(_state_of(facts, task, now) for task in waiting)
    for reason, count in reasons.most_common(WAITING_SHOWN):
        sentences.append(f"{count} {'tasks' if count > 1 else 'task'}: {reason}")
    sample = next((task for task in waiting if _waits_for_node(task)), None)
    replaced = [(it, history) for history in slots.values() for it in history if it.cause not in ("", Cause.SCALE)]
    replaced.sort(key=lambda one: age_order(one[0]), reverse=True)
    return Explanation(
        kind="service",
        id=service.id,
        name=service.spec.name,
        facts=sentences,
        nodes=verdicts(facts, sample) if sample is not None else [],
        story=[step(facts, task, history) for task, history in replaced[:STORY]],
    )


def _counts(service: Service, live: Iterable[Task]) -> str:
    live = list(live)
    running = sum(1 for task in live if is_running(task) and not is_waiting(task))
    mode = service.spec.mode
    if mode.replicated is not None:
        return f"{running} of {mode.replicated.replicas or 0} replicas run"
    if mode_of(service).is_job:
        present = [task for task in live if task.job_iteration and task.job_iteration.index == iteration_of(service)]
        done = sum(1 for task in present if task.status.state is TaskState.COMPLETE)
        return f"run {iteration_of(service)} of the job: {done} tasks completed, {len(present) - done} under way"
    return f"{running} of {len(live)} tasks run"


def _schedule_facts(service: Service, now: int) -> list[str]:
    plan = schedule(service.spec.labels)
    if plan is None:
        return []
    following = plan.next_after(now)
    last = service.job_status.last_execution if service.job_status is not None else ""
    return [
        f"schedule {service.spec.labels[CRON]!r} (UTC): next run {rfc3339(following) if following else 'never'}, "
        f"last run {last or 'none yet'}"
    ]


# --- a node ----------------------------------------------------------------------------------------------------------


def explain_node(facts: Facts, node: Node, now: int) -> Explanation:
    """Whether the node takes tasks, what it has, and what came or went."""
    here = [task for task in facts.tasks if task.node_id == node.id]
    active = [task for task in here if is_live(task) and not has_ended(task)]
    leaving = [task for task in here if not is_live(task) and not has_ended(task)]
    sentences = []
    if node_is_lost(node):
        why = f": {node.status.message}" if node.status.message else ""
        sentences.append(f"it is down{why}; its tasks are replaced")
    elif node.status.state != "ready":
        sentences.append(f"it is {node.status.state or 'unknown'}: it has not reported to this leader yet")
    elif is_drained(node):
        sentences.append("it is drained: it gets no tasks, and those it had are replaced elsewhere")
    elif node.spec.availability == "pause":
        sentences.append("it is paused: it keeps its tasks and gets no new ones")
    else:
        sentences.append("it takes tasks")
    sentences.append(f"{len(active)} tasks are to run on it, {len(leaving)} are being stopped")
    counts = Counter(task.node_id for task in facts.tasks if is_live(task) and not has_ended(task))
    loads = sorted(counts[node_id] for node_id in facts.nodes)
    if len(loads) > 1:
        sentences.append(f"nodes have {loads[0]} to {loads[-1]} tasks, {loads[len(loads) // 2]} in the middle")
    story: list[tuple[Task, list[Task]]] = []
    by_service = {task.service_id for task in here}
    for service_id in by_service:
        for history in facts.of_service(service_id).values():
            for before, task in itertools.pairwise(history):
                if node.id in (before.node_id, task.node_id) and before.node_id != task.node_id:
                    story.append((task, history))
    story.sort(key=lambda one: age_order(one[0]), reverse=True)
    return Explanation(
        kind="node",
        id=node.id,
        name=node.description.hostname,
        facts=sentences,
        story=[step(facts, task, history) for task, history in story[:STORY]],
    )


def explain(facts: Facts, obj: Service | Task | Node, now: int) -> Explanation:
    """Explain any of the three."""
    if isinstance(obj, Service):
        return explain_service(facts, obj, now)
    if isinstance(obj, Task):
        return explain_task(facts, obj, now)
    return explain_node(facts, obj, now)
