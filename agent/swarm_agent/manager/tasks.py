"""Tasks as the orchestrators see them: making one, and what can be said of one.

A task belongs to a *slot*: a number for replicated services and jobs, a node for global ones. Over time a slot holds
many tasks, each replacing the one before. Those with a desired state up to COMPLETE are *live*: somebody wants them to
run (services want RUNNING, jobs COMPLETE, waiting replacements READY). The others are history, or on their way out.
"""

from __future__ import annotations

import enum

import msgspec

from swarm_agent.model.extensions import publish_addresses, publish_nodes, task_options
from swarm_agent.model.objects import ZERO_TIME, Cluster, Endpoint, Node, Service, Task, TaskStatus, Version
from swarm_agent.model.specs import EndpointSpec, PortConfig, TaskSpec
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import parse_rfc3339

from . import constraints
from .ports import complete

SlotKey = int | str
"""A slot's number, or the node's id for global services."""


class Cause(enum.StrEnum):
    """Why a task was made."""

    SCALE = "scale"  # the service wants more slots than it has
    NODE = "node"  # a global service reached a node
    UPDATE = "update"  # an update's worker
    RESTART = "restart"  # its predecessor ended
    DRAIN = "drain"  # its predecessor's node is being drained
    NODE_LOST = "node-lost"  # its predecessor's node is down or gone
    JOB = "job"  # a job's run
    REBALANCE = "rebalance"  # its predecessor's node has more than its share


class Mode(enum.Enum):
    """The four kinds of service."""

    REPLICATED = "replicated"
    GLOBAL = "global"
    REPLICATED_JOB = "replicated-job"
    GLOBAL_JOB = "global-job"

    @property
    def is_job(self) -> bool:
        return self in (Mode.REPLICATED_JOB, Mode.GLOBAL_JOB)

    @property
    def is_per_node(self) -> bool:
        """Slots are nodes."""
        return self in (Mode.GLOBAL, Mode.GLOBAL_JOB)


def mode_of(service: Service) -> Mode:
    """The service's mode; replicated when none is given."""
    mode = service.spec.mode
    if mode.global_ is not None:
        return Mode.GLOBAL
    if mode.replicated_job is not None:
        return Mode.REPLICATED_JOB
    if mode.global_job is not None:
        return Mode.GLOBAL_JOB
    return Mode.REPLICATED


def iteration_of(service: Service) -> int:
    """Which run of a job is the present one."""
    return service.job_status.job_iteration.index if service.job_status is not None else 0


def new_task(
    service: Service,
    *,
    slot: int,
    node_id: str,
    task_id: str,
    now: str,
    cluster: Cluster | None = None,
    cause: Cause = Cause.SCALE,
    desired: TaskState | None = None,
    restart_after: str = "",
    update: str = "",
) -> Task:
    """A task of the service as it is declared now, in state NEW.

    `node_id` only for services that run once a node. Desired state: RUNNING, for jobs COMPLETE, unless given. `now` is
    RFC 3339.
    """
    job = mode_of(service).is_job
    spec = service.spec.task_template
    defaults = cluster.spec.task_defaults if cluster is not None else None
    return Task(
        id=task_id,
        spec=spec,
        spec_version=service.spec_version,
        service_id=service.id,
        service_name=service.spec.name,
        service_labels=service.spec.labels,
        slot=slot,
        node_id=node_id,
        status=TaskStatus(timestamp=now, state=TaskState.NEW, message="created"),
        desired_state=desired or (TaskState.COMPLETE if job else TaskState.RUNNING),
        endpoint=Endpoint(spec=service.spec.endpoint_spec) if service.spec.endpoint_spec is not None else None,
        registry_auth=service.registry_auth,
        job_iteration=Version(index=iteration_of(service)) if job else None,
        restart_after=restart_after,
        cause=cause.value,
        update=update,
        log_driver=defaults.log_driver if defaults is not None and spec.log_driver is None else None,
    )


def slot_of(task: Task, mode: Mode) -> SlotKey:
    """The slot that the task belongs to."""
    return task.node_id if mode.is_per_node else task.slot


_LIVE = frozenset(state for state in TaskState if state.rank <= TaskState.COMPLETE.rank)
_WAITING = frozenset(state for state in TaskState if state.rank < TaskState.RUNNING.rank)
_ENDED = frozenset(state for state in TaskState if state.is_terminal)


def is_live(task: Task) -> bool:
    """Somebody wants it to run, or (jobs) to have run."""
    return task.desired_state in _LIVE


def is_waiting(task: Task) -> bool:
    """A replacement that is prepared but not yet to be started."""
    return task.desired_state in _WAITING


def is_running(task: Task) -> bool:
    return task.status.state is TaskState.RUNNING


def has_ended(task: Task) -> bool:
    """It was observed to run no more, or to never have run."""
    return task.status.state in _ENDED


def ended_by_itself(task: Task) -> bool:
    """It ended without having been asked to."""
    return task.status.state in (TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED)


def was_assigned(task: Task) -> bool:
    """A node may have something of it."""
    return task.status.state.rank >= TaskState.ASSIGNED.rank


def will_never_run(task: Task) -> bool:
    """Given up before a node got it: no node will ever report on it."""
    return not is_live(task) and not was_assigned(task)


def node_is_lost(node: Node | None) -> bool:
    """Down, or removed from the cluster. A node of unknown state (after a change of leader) is not lost."""
    return node is None or node.status.state == "down"


def is_drained(node: Node | None) -> bool:
    return node is not None and node.spec.availability == "drain"


def is_paused(node: Node | None) -> bool:
    return node is not None and node.spec.availability == "pause"


def constraints_of(spec: TaskSpec) -> list[str]:
    return [] if spec.placement is None else spec.placement.constraints


def may_run_on(service: Service, node: Node) -> bool:
    """Whether the node satisfies the service's present constraints."""
    wanted = constraints_of(service.spec.task_template)
    return not wanted or constraints.node_satisfies(wanted, node)


def is_dirty(service: Service, task: Task, node: Node | None) -> bool:
    """Whether the task has to be replaced for the service to be as declared.

    It has not when only things outside of the task changed (replicas, labels other than `swarm.task.*`), nor when only
    the placement did and the task's node suits the new one. New credentials matter to a task that has no image yet, or
    was rejected (it may be for want of them).
    """
    if task.spec_version == service.spec_version:
        return False
    wanted = service.spec.task_template
    if node is not None and may_run_on(service, node):
        differs = _without_placement(wanted) != _without_placement(task.spec)
    else:
        differs = wanted != task.spec
    if differs or (service.registry_auth != task.registry_auth and not _has_image(task)):
        return True
    if task_options(task.service_labels) != task_options(service.spec.labels):
        return True
    if any(each(task.service_labels) != each(service.spec.labels) for each in (publish_addresses, publish_nodes)):
        return True
    there = task.endpoint.spec if task.endpoint is not None else None
    return _published(there) != _published(service.spec.endpoint_spec)


def _has_image(task: Task) -> bool:
    state = task.status.state
    return state.rank >= TaskState.READY.rank and state is not TaskState.REJECTED


def _published(spec: EndpointSpec | None) -> tuple[str, list[PortConfig]]:
    """What is published, with defaults filled in as the allocator does in its copy."""
    return ("vip", []) if spec is None else (spec.mode or "vip", [complete(port) for port in spec.ports])


def _without_placement(spec: TaskSpec) -> TaskSpec:
    return spec if spec.placement is None else msgspec.structs.replace(spec, placement=None)


def created_ns(task: Task) -> int:
    """When the task was made, by the managers' clock."""
    return 0 if task.created_at == ZERO_TIME else parse_rfc3339(task.created_at)


def changed_ns(task: Task) -> int:
    """When the task was last written, by the managers' clock. For a task just seen to run or end: when that became
    known."""
    return 0 if task.updated_at == ZERO_TIME else parse_rfc3339(task.updated_at)


def age_order(task: Task) -> tuple[str, bool, str]:
    """Sort key: older tasks first. RFC 3339 with nine decimals sorts as text."""
    return task.created_at, is_live(task), task.id
