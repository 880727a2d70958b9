"""site.yml and the modules on real hosts: nothing changes twice, check mode tells the truth, rollouts are honest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.lab.clusterkit import cluster, outside, running, with_agents
from tests.lab.labkit import Lab, run
from tests.lab.playbooks import play

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def agents(lab: Lab) -> Iterator[Lab]:
    """Agents on all hosts, as this checkout is now; in no cluster."""
    with_agents(lab)
    outside(lab)
    yield lab
    outside(lab)


def archive(lab: Lab) -> str:
    """The archive that the hosts run, so that a change of the sources meanwhile does not count."""
    version = lab.host("host1").exec("basename $(readlink /opt/swarm-agent/current)").out
    return f"agent_archive=.cache/{version}.tar.gz"


def service(lab: Lab, check: bool = True, **arguments: object) -> tuple[int, str]:
    """Exit code and output of swarm_service on host1."""
    done = run(
        [".venv/bin/ansible", "-i", "inventories/lab.yml", "host1", "--diff", "-m", "swarm.cluster.swarm_service",
         "-a", json.dumps(arguments)],
        check=check, timeout=300,
    )  # fmt: skip
    return done.code, done.out


def test_a_cluster_is_founded_once_and_then_left_alone(agents: Lab) -> None:
    pinned = archive(agents)
    told = play("site.yml", "-e", pinned, "--check", "--diff")
    assert told.changed["host1"] > 0 and "Swarm: inactive" in agents.host("host1").docker("info").out
    done = play("site.yml", "-e", pinned)
    assert done.changed == {host.name: 1 for host in agents}, done.stdout
    assert re.search(r"host1\s+10\.\S+\s+leader\s+ready\s+active", done.stdout), done.stdout
    again = play("site.yml", "-e", pinned, "--diff")
    assert set(again.changed.values()) == {0}, again.stdout
    assert set(play("site.yml", "-e", pinned, "--check", "--diff").changed.values()) == {0}
    assert 0 < again.tasks <= 12, again.stdout


def test_labels_and_availability_from_the_inventory(agents: Lab) -> None:
    first = cluster(agents)
    extra = json.dumps({"cluster_node_labels": {"disk": "ssd"}, "cluster_node_availability": "pause"})
    play("site.yml", "-e", archive(agents), "--limit", "host2", "-e", extra)
    node = first.docker("node", "inspect", "host2").json[0]["Spec"]
    assert node["Labels"] == {"disk": "ssd"} and node["Availability"] == "pause"


def test_preflight_stops_before_any_change(agents: Lab) -> None:
    extra = json.dumps({"cluster_address": "203.0.113.9"})
    done = play("site.yml", "-e", extra, check=False)
    assert done.returncode != 0 and "cluster_address is 203.0.113.9" in done.stdout
    assert set(done.changed.values()) == {0}


def test_a_second_cluster_is_refused(agents: Lab) -> None:
    cluster(agents)
    agents.host("host1").docker("swarm leave --force", timeout=120)
    done = play("site.yml", "-e", archive(agents), check=False)
    assert done.returncode != 0 and "whose managers are not among the hosts of this run" in done.stdout, done.stdout


def test_a_service_from_creation_to_removal(agents: Lab) -> None:
    first = cluster(agents)
    declared = {"name": "web", "image": "redis:3.0.6", "replicas": 3, "update_config": {"monitor": "2s"}}
    declared["restart_config"] = {"delay": "1s"}
    code, output = service(agents, **declared)
    assert "CHANGED" in output and len(running(first, "web")) == 3
    code, output = service(agents, **declared)
    assert "SUCCESS" in output

    code, output = service(agents, check=False, name="web", image="redis:broken")
    assert code != 0 and "the update was paused" in output, output
    # The old image takes it back; a paused update is no reason to fail once the spec is good again.
    code, output = service(agents, name="web", image="redis:3.0.7")
    assert "CHANGED" in output
    assert {task["image"].split("@")[0] for task in running(first, "web")} == {"redis:3.0.7"}

    code, output = service(
        agents, check=False, name="web", image="redis:broken", update_config={"failure_action": "rollback"}
    )
    assert code != 0 and "rolled back" in output, output
    assert len(running(first, "web")) == 3

    code, output = service(agents, name="web", state="absent")
    assert "CHANGED" in output and first.docker("service ls -q").out == ""


def test_an_image_that_nobody_has_is_told_with_the_hosts_reason(agents: Lab) -> None:
    cluster(agents)
    code, output = service(agents, check=False, name="ghost", image="ghost:1", wait_timeout=5)
    assert code != 0 and "0 of 1 tasks running" in output and "No such image: ghost:1" in output, output


def test_a_node_is_drained_when_the_task_ends(agents: Lab) -> None:
    first = cluster(agents)
    service(agents, name="web", image="alpine", args=["sleep", "1000"], replicas=4, update_config={"monitor": "1s"})
    run(
        [".venv/bin/ansible", "-i", "inventories/lab.yml", "host1", "-m", "swarm.cluster.swarm_node",
         "-a", "name=host2 availability=drain"],
        timeout=120,
    )  # fmt: skip
    assert agents.host("host2").engine("ps -q --filter label=com.docker.swarm.task.id").out == ""
    assert {task["node"] for task in running(first, "web")} <= {"host1", "host3"}
