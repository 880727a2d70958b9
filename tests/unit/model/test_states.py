"""The states of tasks (reference/swarm.md §3.1)."""

from __future__ import annotations

from swarm_agent.model.states import TaskState


def test_states_have_swarmkit_s_numbers_and_end_after_running() -> None:
    assert {state.value: state.rank for state in TaskState} == {
        "new": 0,
        "pending": 64,
        "assigned": 192,
        "accepted": 256,
        "preparing": 320,
        "ready": 384,
        "starting": 448,
        "running": 512,
        "complete": 576,
        "shutdown": 640,
        "failed": 704,
        "rejected": 768,
        "remove": 800,
        "orphaned": 832,
    }
    assert [state.value for state in TaskState if state.is_terminal] == [
        "complete",
        "shutdown",
        "failed",
        "rejected",
        "remove",
        "orphaned",
    ]
