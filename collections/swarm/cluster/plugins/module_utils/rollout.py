# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a service is what was declared: a verdict from what the API shows at one moment. Pure.

Tasks count by their observed state, on nodes that are up. The right number of running tasks is not yet success: they
have to stay for the monitor window, which is how long Swarm itself watches a task after an update. A rollback is a
failure, since the old spec is back.
"""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.swarm.cluster.plugins.module_utils.patch import read
from ansible_collections.swarm.cluster.plugins.module_utils.service_values import mode_of
from ansible_collections.swarm.cluster.plugins.module_utils.values import SECOND

MONITOR = 5 * SECOND
PROGRESS, STEADY, DONE, FAILED = "progress", "steady", "done", "failed"
ENDED_BADLY = {
    "paused": "the update was paused",
    "rollback_started": "the update failed and is being rolled back",
    "rollback_paused": "the update failed, and its rollback was paused",
    "rollback_completed": "the update failed and was rolled back",
}


@dataclass(frozen=True)
class Verdict:
    """`kind`: progress (wait), steady (done once it lasts `hold` nanoseconds), done, failed. `text`: what is seen."""

    kind: str
    text: str
    running: int
    desired: int
    hold: int = 0
    marker: tuple = ()  # tasks to stay the same while it holds


def monitor(spec):
    """How long tasks have to last, in nanoseconds."""
    return read(spec, "UpdateConfig.Monitor") or MONITOR


def judge(service, tasks, nodes):
    """The verdict. `tasks` are those of the service's newest spec, `nodes` all nodes."""
    spec, mode = service["Spec"], mode_of(service["Spec"])
    up = {node["ID"] for node in nodes if read(node, "Status.State") != "down"}
    status = service.get("UpdateStatus") or {}
    state = status.get("State", "")
    if mode.endswith("-job"):
        return _judge_job(service, tasks, nodes, mode)
    running = sorted(
        task["ID"]
        for task in tasks
        if task["Status"]["State"] == "running" and task["DesiredState"] == "running" and task.get("NodeID") in up
    )
    if mode == "global":
        waiting = {task.get("NodeID") for task in tasks if task["DesiredState"] == "running"} & up
        desired = max(len(waiting), read(service, "ServiceStatus.DesiredTasks") or 0)
    else:
        desired = read(spec, "Mode.Replicated.Replicas")
        desired = 1 if desired is None else desired
    text = describe(service["Spec"].get("Name", ""), len(running), desired, state, status.get("Message", ""), tasks)
    common = {"running": len(running), "desired": desired, "marker": tuple(running)}
    if state in ENDED_BADLY:
        return Verdict(FAILED if state != "rollback_started" else PROGRESS, text, **common)
    if state == "updating" or len(running) != desired:
        return Verdict(PROGRESS, text, **common)
    if state == "completed" or not running:
        return Verdict(DONE, text, **common)
    return Verdict(STEADY, text, hold=monitor(spec), **common)


def _judge_job(service, tasks, nodes, mode):
    iteration = read(service, "JobStatus.JobIteration.Index") or 0
    current = [task for task in tasks if (read(task, "JobIteration.Index") or 0) == iteration]
    complete = sum(task["Status"]["State"] == "complete" for task in current)
    if mode == "replicated-job":
        desired = read(service["Spec"], "Mode.ReplicatedJob.TotalCompletions")
        desired = 1 if desired is None else desired
    else:
        desired = max(len({task.get("NodeID") for task in current if task.get("NodeID")}), 1)
    text = describe(service["Spec"].get("Name", ""), complete, desired, "", "", current, "completed")
    return Verdict(DONE if complete >= desired else PROGRESS, text, complete, desired)


def describe(name, running, desired, state, message, tasks, word="running"):
    """What is seen, with the newest reasons of tasks that do not run, for a person."""
    lines = [f"service {name}: {running} of {desired} tasks {word}"]
    if state in ENDED_BADLY:
        lines[0] += f"; {ENDED_BADLY[state]}" + (f" ({message})" if message else "")
    elif state:
        lines[0] += f"; the update is {state}"
    seen = {}
    for task in sorted(tasks, key=lambda task: task["Status"].get("Timestamp", ""), reverse=True):
        status = task["Status"]
        reason = status.get("Err") or ("" if status["State"] == "running" else status.get("Message", ""))
        if reason and status["State"] not in ("shutdown", "complete"):
            seen.setdefault((status["State"], reason), task.get("NodeID") or "no node")
    lines += [f"task {state} on {node}: {reason}" for (state, reason), node in list(seen.items())[:5]]
    return "\n".join(lines)
