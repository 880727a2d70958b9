"""What outlives the agent."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

from swarm_agent.model.objects import Task, TaskStatus
from swarm_agent.model.states import TaskState
from swarm_agent.worker.statefile import SavedState, StateFile, load, save, snapshot

TASK = Task(id="t", service_name="web", registry_auth="hidden", status=TaskStatus(state=TaskState.RUNNING))


def test_tasks_come_back_with_their_state_and_without_passwords(tmp_path: Path) -> None:
    path = tmp_path / "new" / "worker.json"
    save(path, snapshot("n", "boot", [TASK]))
    found = load(path, "n")
    assert found is not None and found.boot == "boot"
    (task,) = found.tasks
    assert (task.id, task.service_name, task.status.state) == ("t", "web", TaskState.RUNNING)
    assert b"hidden" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_state_of_another_node_is_not_ours(tmp_path: Path) -> None:
    save(tmp_path / "f", snapshot("n", "boot", [TASK]))
    assert load(tmp_path / "f", "other") is None


def test_an_absent_or_broken_file_is_as_good_as_none(tmp_path: Path) -> None:
    assert load(tmp_path / "none", "n") is None
    (tmp_path / "broken").write_bytes(b'{"tasks": [')
    assert load(tmp_path / "broken", "n") is None


async def test_a_write_that_nobody_waits_for_any_more_ends_before_the_next(tmp_path: Path) -> None:
    path, begun, go_on = tmp_path / "worker.json", threading.Event(), threading.Event()

    def write(path: Path, state: SavedState) -> None:
        if not state.tasks:
            begun.set()
            go_on.wait(30)
        save(path, state)

    file = StateFile(path, write)
    first = asyncio.create_task(file.save(snapshot("n", "boot", [])))
    await asyncio.to_thread(begun.wait, 30)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    second = asyncio.create_task(file.save(snapshot("n", "boot", [TASK])))
    await asyncio.sleep(0.05)
    assert not second.done()
    go_on.set()
    await second
    found = load(path, "n")
    assert found is not None and [task.id for task in found.tasks] == ["t"]
