"""What Swarm never had, through the real docker CLI and swarmctl: labels on services, explanations, rebalancing."""

from __future__ import annotations

import re

import pytest

from tests.lab.clusterkit import cluster, running, tasks
from tests.lab.labkit import Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

CTL = "/opt/swarm-agent/current/bin/swarmctl"


@pytest.fixture(scope="module")
def first(lab: Lab) -> Host:
    return cluster(lab)


@pytest.fixture(autouse=True)
def nothing_left(first: Host):
    yield
    left = first.docker("service ls -q").lines
    if left:
        first.docker("service", "rm", *left)
    for number in (1, 2, 3):
        first.docker(f"node update --availability active host{number}")
    eventually(lambda: not first.docker("service ls -q").lines)


def create(first: Host, name: str, *options: str, command: tuple[str, ...] = ("sleep", "1d"), **how):
    return first.docker("service", "create", "--name", name, *options, "alpine", *command, timeout=90, **how)


def update_state(first: Host, name: str) -> str:
    form = "{{if .UpdateStatus}}{{.UpdateStatus.State}}: {{.UpdateStatus.Message}}{{end}}"
    return first.docker("service", "inspect", "--format", form, name).out


def on_each(first: Host, name: str) -> list[str]:
    return sorted(task["node"] for task in running(first, name))


# --- why is it so ----------------------------------------------------------------------------------------------------


def test_a_waiting_task_is_explained_node_by_node(first):
    create(first, "lost", "--detach", "--constraint", "node.labels.disk==ssd", "--constraint", "node.role==worker")
    eventually(lambda: "no suitable node" in first.docker("service ps --format {{.Error}} --no-trunc lost").out)
    said = first.exec(CTL, "explain", "lost").out
    assert "0 of 1 replicas run" in said
    assert "no suitable node (scheduling constraints not satisfied on 3 nodes)" in said
    task = tasks(first, "lost")[0]["id"]
    for name in ("lost.1", f"lost.1.{task}", task, task[:9]):
        told = first.exec(CTL, "explain", name).out
        assert "0 of 3 nodes could take it now" in told
        assert "constraint node.role==worker does not hold: it is 'manager'" in told
        assert len(re.findall("constraint node.labels.disk==ssd does not hold: it is not set", told)) == 3
    first.docker("node update --label-add disk=ssd host3")
    eventually(lambda: on_each(first, "lost") == ["host3"])
    first.docker("node update --label-rm disk host3")


def test_a_reservation_that_fits_nowhere_is_told_in_figures(first):
    create(first, "huge", "--detach", "--reserve-memory", "100t")
    eventually(lambda: "insufficient resources" in first.exec(CTL, "explain", "huge").out)
    told = first.exec(CTL, "explain", "huge.1").out
    assert len(re.findall(r"host\d: 100 TiB of memory are to be reserved, [\d.]+ GiB are free", told)) == 3


def test_the_story_of_a_slot_says_why_each_task_was_made(first):
    create(first, "web", "--restart-delay", "0s", "--constraint", "node.role==worker")
    born = running(first, "web")[0]
    first.docker("exec", born["id"], "kill", "-9", "1", check=False)
    first.docker("rm", "-f", born["id"], check=False)
    eventually(lambda: [task["id"] for task in running(first, "web")] not in ([], [born["id"]]))
    second = running(first, "web")[0]
    first.docker(f"node update --availability drain {second['node']}")
    eventually(lambda: [it["node"] for it in running(first, "web")] not in ([], [second["node"]]))
    told = first.exec(CTL, "explain", "web.1").out
    assert "the service wants this slot filled" in told
    assert f"the task before it ended on node {born['node']}" in told
    assert f"node {second['node']} is drained" in told
    emptied = first.exec(CTL, "explain", second["node"]).out
    assert "it is drained: it gets no tasks" in emptied and "0 tasks are to run on it" in emptied


# --- rebalancing -----------------------------------------------------------------------------------------------------


def test_a_returned_node_gets_its_share_when_it_is_asked_for(first):
    first.docker("node update --availability drain host3")
    create(first, "web", "--replicas", "6", "--update-order", "start-first", "--stop-grace-period", "0s")
    first.docker("node update --availability active host3")
    assert on_each(first, "web") == ["host1"] * 3 + ["host2"] * 3
    planned = " ".join(first.exec(CTL, "rebalance", "--dry-run").out.split())
    assert "2 tasks would be moved" in planned, planned
    assert "tasks of the service, node host3 has 0" in planned and "node host3 has 1" in planned, planned
    assert on_each(first, "web") == ["host1"] * 3 + ["host2"] * 3
    assert "2 tasks are being moved" in first.exec(CTL, "rebalance").out
    eventually(lambda: on_each(first, "web") == ["host1"] * 2 + ["host2"] * 2 + ["host3"] * 2, timeout=60)
    eventually(lambda: "everything is even" in first.exec(CTL, "rebalance").out)
    moved = next(task for task in running(first, "web") if task["node"] == "host3")
    assert "had more than its share (rebalancing)" in first.exec(CTL, "explain", moved["id"]).out


def test_a_service_that_keeps_data_moves_only_by_name(first):
    first.docker("node update --availability drain host3")
    create(first, "data", "--replicas", "4", "--mount", "type=volume,target=/data", "--stop-grace-period", "0s")
    first.docker("node update --availability active host3")
    said = first.exec(CTL, "rebalance").out
    assert "nothing to move now" in said and "left alone: data:" in said, said
    assert "1 tasks are being moved" in first.exec(CTL, "rebalance", "data").out
    eventually(lambda: on_each(first, "data").count("host3") == 1, timeout=60)


def test_the_cluster_does_it_by_itself_when_it_is_told_to(first):
    first.docker("node update --availability drain host3")
    create(first, "web", "--replicas", "4", "--stop-grace-period", "0s")
    first.exec(CTL, "rebalance", "--auto", "on")
    try:
        assert first.docker("info", "--format", "{{json .Swarm.Cluster.Spec.Labels}}").json == {
            "swarm.rebalance": "auto"
        }
        first.docker("node update --availability active host3")
        eventually(lambda: "host3" in on_each(first, "web"), timeout=90)
    finally:
        first.exec(CTL, "rebalance", "--auto", "off")
    assert first.docker("info", "--format", "{{json .Swarm.Cluster.Spec.Labels}}").json == {}


# --- updates that cannot be placed -----------------------------------------------------------------------------------


def test_an_update_that_finds_no_node_is_paused_with_the_reason(first):
    create(first, "web", "--replicas", "2", "--label", "swarm.update.place_within=2s", "--stop-grace-period", "0s")
    first.docker("service update --detach --constraint-add node.labels.nowhere==yes --force web")
    eventually(lambda: update_state(first, "web").startswith("paused"))
    assert re.fullmatch(
        r"paused: update paused because task \w{25} found no node within 2 s: no suitable node "
        r"\(scheduling constraints not satisfied on 3 nodes\)",
        update_state(first, "web"),
    )
    assert update_state(first, "web").partition(": ")[2] in first.exec(CTL, "explain", "web").out
    assert len(running(first, "web")) == 1, "the other task was not touched"


def test_an_update_that_finds_no_node_is_rolled_back_when_it_shall_be(first):
    create(
        first, "web", "--replicas", "2", "--label", "swarm.update.place_within=2s", "--stop-grace-period", "0s",
        "--update-failure-action", "rollback", "--rollback-monitor", "100ms", "--update-monitor", "100ms",
    )  # fmt: skip
    first.docker("service update --detach --reserve-memory 100t --update-order start-first web")
    eventually(lambda: update_state(first, "web") == "rollback_completed: rollback completed", timeout=60)
    eventually(lambda: len(running(first, "web")) == 2)


# --- jobs with a schedule --------------------------------------------------------------------------------------------


def test_a_job_with_a_schedule_runs_each_minute(first):
    create(
        first, "tick", "--detach", "--mode", "replicated-job", "--label", "swarm.job.cron=* * * * *", command=("true",)
    )

    def completed() -> int:
        return sum(task["current"].startswith("Complete") for task in tasks(first, "tick"))

    eventually(lambda: completed() >= 1, timeout=80)
    last = first.docker("service inspect tick").json[0]["JobStatus"]["LastExecution"]
    assert f"last run {last}" in first.exec(CTL, "explain", "tick").out
    eventually(lambda: first.docker("service inspect tick").json[0]["JobStatus"]["LastExecution"] > last, timeout=80)


def test_a_scheduled_job_runs_at_once_when_it_is_forced(first):
    create(
        first, "yearly", "--detach", "--mode", "global-job", "--label", "swarm.job.cron=@yearly", command=("true",)
    )  # fmt: skip
    told = first.exec(CTL, "explain", "yearly").out
    assert re.search(r"schedule '@yearly' \(UTC\): next run \d{4}-01-01T00:00:00.\S+, last run none yet", told), told
    assert tasks(first, "yearly") == []
    first.docker("service update --detach --force yearly")
    eventually(lambda: len([it for it in tasks(first, "yearly") if it["current"].startswith("Complete")]) == 3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--mode", "replicated-job", "--label", "swarm.job.cron=61 * * * *"], "label swarm.job.cron: "),
        (["--mode", "replicated-job", "--label", "swarm.job.cron=0 0 31 2 *"], "label swarm.job.cron: "),
        (["--label", "swarm.job.cron=@daily"], "only jobs have a schedule"),
        (["--label", "swarm.job.overlap=skip", "--mode", "replicated-job"], "says nothing without swarm.job.cron"),
        (["--label", "swarm.task.devises=/dev/fuse"], "label swarm.task.devises is not known"),
        (["--label", "swarm.task.shm_size=big"], "'big' is no size"),
        (["--label", "swarm.task.gpus=some"], "'some' are no GPUs"),
        (["--label", "swarm.update.place_within=soon"], "'soon' is no duration"),
    ],
)
def test_labels_that_cannot_be_read_are_refused_and_leave_no_trace(first, options, text):
    refused = create(first, "odd", "--detach", *options, check=False)
    assert refused.code == 1 and text in refused.err, refused
    assert first.docker("service ls -q").lines == []


# --- how containers are made -----------------------------------------------------------------------------------------


def test_devices_shared_memory_and_a_runtime_reach_the_container_and_change_with_the_label(first):
    create(
        first, "box", "--label", "swarm.task.devices=/dev/null:/dev/nothing:r", "--label", "swarm.task.shm_size=96m",
        "--label", "swarm.task.runtime=runc", "--stop-grace-period", "0s",
    )  # fmt: skip
    task = running(first, "box")[0]["id"]
    assert first.docker("exec", task, "stat", "-c", "%F", "/dev/nothing").out == "character special file"
    assert "size=98304k" in first.docker("exec", task, "grep", "/dev/shm", "/proc/mounts").out
    assert first.docker("inspect", "--format", "{{.HostConfig.Runtime}}", task).out == "runc"
    first.docker("service update --label-add swarm.task.shm_size=32m --label-rm swarm.task.devices box", timeout=60)
    after = running(first, "box")[0]["id"]
    assert after != task, "another way to make the container is another container"
    assert "size=32768k" in first.docker("exec", after, "grep", "/dev/shm", "/proc/mounts").out
    assert first.docker("exec", after, "ls", "/dev/nothing", check=False).code != 0
    first.docker("service update --label-add purpose=none box", timeout=60)
    assert running(first, "box")[0]["id"] == after, "other labels replace nothing"


def test_a_stack_file_says_it_in_labels_too(first, tmp_path):
    (tmp_path / "stack.yml").write_text("""
        version: "3.8"
        services:
          box:
            image: alpine
            command: ["sleep", "1d"]
            deploy: {labels: {swarm.task.shm_size: 48m}}
    """)
    first.docker("stack", "deploy", "--resolve-image", "never", "-c", str(tmp_path / "stack.yml"), "s")
    eventually(lambda: running(first, "s_box"))
    task = running(first, "s_box")[0]["id"]
    assert "size=49152k" in first.docker("exec", task, "grep", "/dev/shm", "/proc/mounts").out
    first.docker("stack rm s")


def test_privileges_are_asked_of_the_engine(first, lab):
    create(first, "strong", "--label", "swarm.task.privileged=true", "--replicas", "1", "--detach")
    # Hosts that are containers themselves need not be able to give them: what counts is what the engine was asked.
    eventually(lambda: [task for task in tasks(first, "strong") if task["node"]])
    task = tasks(first, "strong")[0]
    host = lab.host(task["node"])
    asked = eventually(lambda: host.engine("ps", "-aq", "--filter", "label=com.docker.swarm.service.name=strong").lines)
    assert host.engine("inspect", "--format", "{{.HostConfig.Privileged}}", asked[0]).out == "true"


@pytest.mark.parametrize(("label", "word"), [("runtime=nonesuch", "nonesuch"), ("gpus=all", "gpu")])
def test_what_no_host_has_is_told_in_the_engines_words(first, label, word):
    create(first, "needy", "--detach", "--label", f"swarm.task.{label}", "--restart-condition", "none")
    error = eventually(lambda: next((it["error"] for it in tasks(first, "needy") if it["error"]), ""))
    assert word in error
    assert word in first.exec(CTL, "explain", "needy.1").out
