"""The task state machine: given what is wanted and what was seen, the next step. Pure; `runner` carries the steps out.

Idea: no step is remembered. Each is chosen anew from three facts: the task's observed state (what was reported last),
its desired state, and its container as last seen. So a step that was cut off by a crash of the agent or the engine is
simply chosen again, and a container that is there already is adopted instead of made twice.

The path of states is SwarmKit's (agent/exec/controller.go, Do): assigned → accepted → preparing → ready → starting →
running → complete or failed; an error before starting is REJECTED, after that FAILED; a stop on request is SHUTDOWN.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from swarm_agent.model.states import TaskState

from .observe import HealthState, Life, View, exit_text


class Step(enum.Enum):
    """What to do next. Steps named after a state only report it."""

    WAIT = "wait"  # for a new wish or a new sight of the container
    REPORT = "report"  # a new state that needs nothing else
    PREPARE = "prepare"  # image, networks, files, container; then READY
    START = "start"  # start the container; then look again
    ANNOUNCE = "announce"  # tell the other hosts where its addresses are, before it can need them
    ACTIVATE = "activate"  # let traffic in
    WITHDRAW = "withdraw"  # the container ended: no host needs to know it any more
    STOP = "stop"  # traffic out, stop signal, grace, kill
    STOP_UNHEALTHY = "stop unhealthy"


@dataclass(frozen=True, slots=True)
class Decision:
    step: Step
    state: TaskState | None = None  # the state that holds once the step is done
    message: str = ""
    err: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """`networked`: it has addresses of its own on cluster networks. `announced`: peers know them. `active`: peers may
    send traffic to it. `unhealthy`: we stopped it because its healthcheck failed."""

    state: TaskState
    desired: TaskState
    container: View | None
    networked: bool = False
    announced: bool = False
    active: bool = False
    unhealthy: bool = False


WAIT = Decision(Step.WAIT)
UNHEALTHY = "unhealthy container"
GONE = "container vanished: removed by someone else"

# Observed state → the state to report next and Swarm's word for it, where nothing is to be done in between.
_REPORTS = {
    TaskState.ASSIGNED: (TaskState.ACCEPTED, "accepted"),
    TaskState.ACCEPTED: (TaskState.PREPARING, "preparing"),
    TaskState.READY: (TaskState.STARTING, "starting"),
}


def decide(facts: Facts) -> Decision:
    """The next step of a task."""
    state, view = facts.state, facts.container
    runs = view is not None and view.life is Life.RUNNING
    if facts.announced and not runs and (view is None or view.life is Life.ENDED or state.is_terminal):
        return Decision(Step.WITHDRAW)
    if facts.desired.rank >= TaskState.SHUTDOWN.rank:
        if runs:
            return Decision(Step.STOP)
        return WAIT if state.is_terminal else Decision(Step.REPORT, TaskState.SHUTDOWN, "shutdown")
    if state.is_terminal:
        # Swarm never restarts a task. A container that runs although its task is over must not go on.
        return Decision(Step.STOP) if runs else WAIT
    if state.rank >= TaskState.STARTING.rank:
        return _alive(facts)
    if state.rank < TaskState.ASSIGNED.rank:
        state = TaskState.ASSIGNED
    if state.rank >= facts.desired.rank:
        return WAIT  # READY, until it is lifted to RUNNING
    if state is TaskState.PREPARING:
        return Decision(Step.PREPARE, TaskState.READY, "prepared")
    after, message = _REPORTS[state]
    return Decision(Step.REPORT, after, message)


def _alive(facts: Facts) -> Decision:
    """A task in STARTING or RUNNING that is wanted."""
    view = facts.container
    if view is None:
        return Decision(Step.REPORT, TaskState.FAILED, facts_message(facts), GONE)
    starts = view.life is Life.CREATED or (view.life is Life.RUNNING and view.health is HealthState.STARTING)
    if starts and facts.networked and not facts.announced:
        return Decision(Step.ANNOUNCE)
    if view.life is Life.CREATED:
        if facts.state is TaskState.STARTING:
            return Decision(Step.START)
        return Decision(Step.REPORT, TaskState.FAILED, facts_message(facts), "task: container was never started")
    if view.life is Life.ENDED:
        return finish(facts)
    if view.health is HealthState.UNHEALTHY:
        return Decision(Step.STOP_UNHEALTHY)
    if view.health is HealthState.STARTING and facts.state is TaskState.STARTING:
        return WAIT
    if not facts.active:
        return Decision(Step.ACTIVATE)
    if facts.state is TaskState.STARTING:
        return Decision(Step.REPORT, TaskState.RUNNING, "started")
    return WAIT


def finish(facts: Facts) -> Decision:
    """The container ended by itself, or because it was unhealthy."""
    view = facts.container
    assert view is not None
    cause = UNHEALTHY if facts.unhealthy else ""
    if view.exit_code == 0 and not cause and not view.error and not view.cut_off:
        return Decision(Step.REPORT, TaskState.COMPLETE, "finished")
    return Decision(Step.REPORT, TaskState.FAILED, facts_message(facts), exit_text(view, cause))


def facts_message(facts: Facts) -> str:
    """The message beside an error is that of the last state reached, as in Swarm."""
    return "started" if facts.state is TaskState.RUNNING else "starting"


def failed(state: TaskState, error: str) -> Decision:
    """A step failed for good: REJECTED before the task was to start, FAILED after."""
    if state.rank < TaskState.STARTING.rank:
        return Decision(Step.REPORT, TaskState.REJECTED, state.value, error)
    return Decision(Step.REPORT, TaskState.FAILED, "starting", error)
