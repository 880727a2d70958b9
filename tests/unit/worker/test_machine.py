"""The task state machine, decision by decision, and as a whole against a small model of an engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_agent.model.states import TaskState
from swarm_agent.worker.machine import Decision, Facts, Step, decide, failed
from swarm_agent.worker.observe import ENGINE_WENT, HealthState, Life, View

S = TaskState
CREATED = View("c", Life.CREATED)
RUNNING = View("c", Life.RUNNING, pid=7)
SICK = View("c", Life.RUNNING, health=HealthState.UNHEALTHY)
WAITING = View("c", Life.RUNNING, health=HealthState.STARTING)
WELL = View("c", Life.RUNNING, health=HealthState.HEALTHY)
DONE = View("c", Life.ENDED)
BROKEN = View("c", Life.ENDED, exit_code=3)


@pytest.mark.parametrize(
    ("state", "message"), [(S.ASSIGNED, "accepted"), (S.ACCEPTED, "preparing"), (S.READY, "starting")]
)
def test_some_states_are_only_reported(state: TaskState, message: str) -> None:
    decision = decide(Facts(state, S.RUNNING, None))
    assert (decision.step, decision.message) == (Step.REPORT, message)


@pytest.mark.parametrize(
    ("facts", "step"),
    [
        (Facts(S.PREPARING, S.RUNNING, None), Step.PREPARE),
        (Facts(S.PREPARING, S.READY, None), Step.PREPARE),
        (Facts(S.READY, S.READY, CREATED), Step.WAIT),
        (Facts(S.STARTING, S.RUNNING, CREATED), Step.START),
        (Facts(S.STARTING, S.RUNNING, CREATED, networked=True), Step.ANNOUNCE),
        (Facts(S.STARTING, S.RUNNING, CREATED, networked=True, announced=True), Step.START),
        (Facts(S.STARTING, S.RUNNING, RUNNING), Step.ACTIVATE),
        (Facts(S.STARTING, S.RUNNING, WAITING, networked=True), Step.ANNOUNCE),  # adopted while it gets healthy
        (Facts(S.STARTING, S.RUNNING, RUNNING, networked=True), Step.ACTIVATE),
        (Facts(S.STARTING, S.RUNNING, WELL), Step.ACTIVATE),
        (Facts(S.STARTING, S.RUNNING, WAITING), Step.WAIT),
        (Facts(S.STARTING, S.RUNNING, SICK), Step.STOP_UNHEALTHY),
        (Facts(S.RUNNING, S.RUNNING, SICK, announced=True, active=True), Step.STOP_UNHEALTHY),
        (Facts(S.RUNNING, S.RUNNING, RUNNING, announced=True, active=True), Step.WAIT),
        (Facts(S.RUNNING, S.COMPLETE, RUNNING, announced=True, active=True), Step.WAIT),
        (Facts(S.RUNNING, S.RUNNING, RUNNING), Step.ACTIVATE),  # adopted after a restart
        (Facts(S.RUNNING, S.RUNNING, DONE, announced=True, active=True), Step.WITHDRAW),
        (Facts(S.RUNNING, S.SHUTDOWN, RUNNING, announced=True, active=True), Step.STOP),
        (Facts(S.RUNNING, S.REMOVE, RUNNING), Step.STOP),
        (Facts(S.FAILED, S.RUNNING, RUNNING), Step.STOP),  # someone started it again by hand
        (Facts(S.FAILED, S.RUNNING, BROKEN), Step.WAIT),
        (Facts(S.FAILED, S.SHUTDOWN, BROKEN), Step.WAIT),
        (Facts(S.SHUTDOWN, S.SHUTDOWN, CREATED, networked=True, announced=True), Step.WITHDRAW),
    ],
)
def test_the_next_step(facts: Facts, step: Step) -> None:
    assert decide(facts).step is step


def test_running_is_reported_after_traffic_was_let_in() -> None:
    facts = Facts(S.STARTING, S.RUNNING, RUNNING, announced=True, active=True)
    assert decide(facts) == Decision(Step.REPORT, S.RUNNING, "started")


@pytest.mark.parametrize("state", [S.ASSIGNED, S.ACCEPTED, S.PREPARING, S.READY, S.STARTING, S.RUNNING])
@pytest.mark.parametrize("view", [None, CREATED, DONE, BROKEN])
def test_what_does_not_run_is_shut_down_at_once(state: TaskState, view: View | None) -> None:
    assert decide(Facts(state, S.SHUTDOWN, view)) == Decision(Step.REPORT, S.SHUTDOWN, "shutdown")


@pytest.mark.parametrize(
    ("view", "unhealthy", "state", "err"),
    [
        (DONE, False, S.COMPLETE, ""),
        (BROKEN, False, S.FAILED, "task: non-zero exit (3)"),
        (replace(BROKEN, error="oom"), False, S.FAILED, "task: non-zero exit (3): oom"),
        (BROKEN, True, S.FAILED, "task: non-zero exit (3): unhealthy container"),
        (DONE, True, S.FAILED, "task: unhealthy container"),
        (replace(DONE, cut_off=ENGINE_WENT), False, S.FAILED, f"task: {ENGINE_WENT}"),
        (None, False, S.FAILED, "container vanished: removed by someone else"),
    ],
)
def test_how_an_end_is_judged(view: View | None, unhealthy: bool, state: TaskState, err: str) -> None:
    decision = decide(Facts(S.RUNNING, S.RUNNING, view, unhealthy=unhealthy))
    assert (decision.step, decision.state, decision.err) == (Step.REPORT, state, err)


def test_an_error_before_the_start_is_a_rejection() -> None:
    assert failed(S.PREPARING, "no") == Decision(Step.REPORT, S.REJECTED, "preparing", "no")
    assert failed(S.STARTING, "no") == Decision(Step.REPORT, S.FAILED, "starting", "no")


states = st.sampled_from(list(TaskState))
views = st.sampled_from([None, CREATED, RUNNING, WAITING, WELL, SICK, DONE, BROKEN])
wishes = st.sampled_from([S.READY, S.RUNNING, S.COMPLETE, S.SHUTDOWN, S.REMOVE])


@given(states, wishes, views, st.booleans(), st.booleans(), st.booleans())
def test_from_anywhere_every_wish_comes_to_rest(
    state: TaskState, desired: TaskState, view: View | None, networked: bool, announced: bool, unhealthy: bool
) -> None:
    """Carrying out steps ends in WAIT soon, observed states only rise, and what rests agrees with the wish."""
    facts = Facts(state, desired, view, networked=networked, announced=announced, unhealthy=unhealthy)
    for _ in range(20):
        decision = decide(facts)
        if decision.step is Step.WAIT:
            break
        if decision.state is not None:
            assert decision.state.rank > facts.state.rank
        facts = carried_out(facts, decision)
    else:
        raise AssertionError(f"no rest from {state} → {desired} with {view}: {facts}")
    runs = facts.container is not None and facts.container.life is Life.RUNNING
    if desired in (S.SHUTDOWN, S.REMOVE):
        assert not runs and facts.state.is_terminal
    elif facts.state is S.RUNNING:
        assert runs and facts.active
    elif facts.state.is_terminal:
        assert not runs and not facts.active
    else:
        assert desired is S.READY or (
            runs and facts.container is not None and facts.container.health is HealthState.STARTING
        )


def carried_out(facts: Facts, decision: Decision) -> Facts:
    """What an engine makes of a step."""
    match decision.step:
        case Step.PREPARE:
            facts = replace(facts, container=facts.container or CREATED)
        case Step.START:
            facts = replace(facts, container=RUNNING)
        case Step.ANNOUNCE:
            facts = replace(facts, announced=True)
        case Step.ACTIVATE:
            facts = replace(facts, announced=True, active=True)
        case Step.WITHDRAW:
            facts = replace(facts, announced=False, active=False)
        case Step.STOP:
            facts = replace(facts, container=BROKEN, active=False)
        case Step.STOP_UNHEALTHY:
            facts = replace(facts, container=BROKEN, active=False, unhealthy=True)
    return replace(facts, state=decision.state) if decision.state is not None else facts
