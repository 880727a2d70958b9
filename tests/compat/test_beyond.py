"""What Swarm never had, as people use it: labels through the docker CLI, `swarmctl explain`, `swarmctl rebalance`."""

from __future__ import annotations

import re

import pytest

from tests.lab.clusterkit import cluster, running
from tests.lab.labkit import Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

CTL = "/opt/swarm-agent/current/bin/swarmctl"


@pytest.fixture(scope="module")
def first(lab: Lab) -> Host:
    return cluster(lab)


@pytest.fixture(autouse=True)
def nothing_left(first):
    yield
    left = first.docker("service ls -q").lines
    if left:
        first.docker("service", "rm", *left)
    eventually(lambda: not first.docker("service ls -q").lines)


def create(first: Host, name: str, *options: str, **how):
    return first.docker("service", "create", "--name", name, *options, "alpine", "sleep", "1d", timeout=90, **how)


def explained(first: Host, *words: str) -> str:
    return first.exec(f"COLUMNS=200 {CTL} explain {' '.join(words)}").out


def test_a_task_that_waits_is_explained_node_by_node_until_it_runs(first):
    create(first, "picky", "--detach", "--constraint", "node.labels.disk==ssd")
    why = "no suitable node (scheduling constraints not satisfied on 3 nodes)"
    eventually(lambda: why in explained(first, "picky"))
    shown = explained(first, "picky")
    assert "0 of 1 replicas run" in shown
    assert "host2: constraint node.labels.disk==ssd does not hold: it is not set" in shown
    first.docker("node update --label-add disk=ssd host2")
    eventually(lambda: "1 of 1 replicas run" in explained(first, "picky"))
    task = running(first, "picky")[0]
    assert "it runs on node host2" in explained(first, task["id"])
    first.docker("node update --label-rm disk host2")
    eventually(lambda: "assigned node no longer meets constraints" in explained(first, "picky"))
    nobody = first.exec(f"{CTL} explain nobody", check=False)
    assert nobody.code == 1 and "no service, task or node nobody" in nobody.err


def test_tasks_are_spread_anew_on_request_and_each_move_has_its_reason(first):
    first.docker("node update --availability drain host3")
    create(first, "web", "--replicas", "4", "--update-order", "start-first")
    assert {task["node"] for task in running(first, "web")} == {"host1", "host2"}
    first.docker("node update --availability active host3")
    plan = first.exec(f"COLUMNS=200 {CTL} rebalance --dry-run").out
    assert "1 tasks would be moved" in plan and "host3" in plan
    assert "host3" not in {task["node"] for task in running(first, "web")}
    assert "1 tasks are being moved" in first.exec(f"COLUMNS=200 {CTL} rebalance web").out
    eventually(lambda: sorted(task["node"] for task in running(first, "web")) in (
        ["host1", "host1", "host2", "host3"], ["host1", "host2", "host2", "host3"]))  # fmt: skip
    eventually(lambda: "everything is even" in first.exec(f"{CTL} rebalance --dry-run").out)
    assert "had more than its share (rebalancing)" in explained(first, "--kind", "node", "host3")
    assert "rebalancing by itself is on" in first.exec(f"{CTL} rebalance --auto on").out
    assert '"swarm.rebalance":"auto"' in first.docker("info --format '{{json .Swarm.Cluster.Spec.Labels}}'").out
    first.exec(f"{CTL} rebalance --auto off")


def test_a_job_runs_by_its_schedule_and_tells_when(first):
    job = ("--mode", "replicated-job", "--detach", "--restart-condition", "none")
    refused = create(first, "bad", *job, "--label", "swarm.job.cron=61 * * * *", check=False)
    assert "label swarm.job.cron: '61' in the minute is not within 0-59" in refused.err
    labels = ("--label", "swarm.job.cron=* * * * *", "--label", "swarm.job.overlap=replace")
    first.docker("service", "create", "--name", "night", *job, *labels, "alpine", "true")
    shown = explained(first, "night")
    assert "schedule '* * * * *' (UTC): next run 20" in shown and "last run none yet" in shown
    eventually(lambda: "Complete" in first.docker("service ps night").out, timeout=90)
    assert re.search(r"last run 20..-..-..T..:..:0", explained(first, "night"))


def test_shared_memory_and_a_device_through_labels(first):
    labels = ("--label", "swarm.task.shm_size=80m", "--label", "swarm.task.devices=/dev/null:/dev/nothing")
    create(first, "odd", *labels, "--constraint", "node.hostname==host1")
    container = running(first, "odd")[0]
    name = f"odd.1.{container['id']}"
    form = "{{.HostConfig.ShmSize}} {{(index .HostConfig.Devices 0).PathInContainer}}"
    assert first.docker(f"inspect --type container --format '{form}' {name}").out == f"{80 << 20} /dev/nothing"
    changed = first.docker("service update --label-add swarm.task.shm_size=96m odd", timeout=90)
    assert "converged" in changed.out
    name = f"odd.1.{running(first, 'odd')[0]['id']}"
    assert str(96 << 20) in first.docker(f"inspect --type container --format '{form}' {name}").out
