"""The Swarm modules of community.docker, made for Docker Swarm, on this cluster: nothing in them is changed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.community import collection, run_module
from tests.lab.clusterkit import cluster, outside, running
from tests.lab.labkit import Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

Call = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def first(lab: Lab) -> Iterator[Host]:
    try:
        collection()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no package index: {error.stderr}")
    yield cluster(lab)
    outside(lab)


@pytest.fixture
def call(first: Host) -> Call:
    """`call("docker_node", …)`; a failure raises unless `fails` is given."""

    def run(module: str, /, *, fails: bool = False, on: Host = first, **given: Any) -> dict[str, Any]:
        answer = run_module(module, on.socket(), **given)
        assert bool(answer.get("failed")) == fails, answer
        return answer

    return run


def test_the_cluster_is_described(call: Call, first: Host, lab: Lab) -> None:
    told = call("docker_swarm_info", nodes=True, services=True, tasks=True, unlock_key=True)
    assert told["docker_swarm_active"] and told["docker_swarm_manager"] and told["can_talk_to_docker"]
    assert {node["Hostname"]: node["ManagerStatus"] for node in told["nodes"]} == {
        "host1": "Leader", "host2": None, "host3": None,
    }  # fmt: skip
    assert set(told["swarm_facts"]["JoinTokens"]) == {"Worker", "Manager"}
    worker = call("docker_swarm_info", on=lab.host("host2"), fails=True)
    assert worker["docker_swarm_active"] and not worker["docker_swarm_manager"]


def test_settings_of_the_cluster_are_changed_once(call: Call, first: Host) -> None:
    given = {"state": "present", "advertise_addr": first.address, "task_history_retention_limit": 4}
    assert call("docker_swarm", **given)["changed"] is True
    assert call("docker_swarm", **given)["changed"] is False
    assert (
        first.docker("info", "--format", "{{.Swarm.Cluster.Spec.Orchestration.TaskHistoryRetentionLimit}}").out == "4"
    )


def test_nodes_are_labelled_drained_and_promoted(call: Call, first: Host) -> None:
    given = {"hostname": "host2", "labels": {"disk": "ssd"}, "availability": "drain"}
    assert call("docker_node", **given)["changed"] is True
    assert call("docker_node", **given)["changed"] is False
    spec = call("docker_node_info", name="host2")["nodes"][0]["Spec"]
    assert spec == {"Availability": "drain", "Labels": {"disk": "ssd"}, "Role": "worker"}
    assert call("docker_node", hostname="host2", labels_to_remove=["disk"], availability="active")["changed"]
    assert call("docker_node", hostname="host3", role="manager")["node"]["Spec"]["Role"] == "manager"
    eventually(lambda: first.docker("node inspect --format {{.ManagerStatus.Reachability}} host3").out == "reachable")
    assert call("docker_node", hostname="host3", role="worker")["changed"] is True
    eventually(lambda: not first.docker("node inspect --format {{.ManagerStatus}} host3").out.startswith("{"))


def test_secrets_and_configs(call: Call) -> None:
    for module in ("docker_secret", "docker_config"):
        given = {"name": "one", "data": "content", "labels": {"a": "b"}, "state": "present"}
        assert call(module, check=True, **given)["changed"] is True
        assert call(module, **given)["changed"] is True
        assert call(module, **given)["changed"] is False
        assert call(module, **{**given, "data": "other"})["changed"] is True  # replaced, by removing it first
        assert call(module, name="one", state="absent")["changed"] is True
        assert call(module, name="one", state="absent")["changed"] is False
        rolling = {"name": "many", "state": "present", "rolling_versions": True, "versions_to_keep": 2}
        for content in ("a", "b", "c"):
            assert call(module, **rolling, data=content)["changed"] is True
        assert call(module, **rolling, data="c")["changed"] is False
        assert call(module, name="many", state="absent", rolling_versions=True)["changed"] is True


def test_a_service_from_creation_to_removal(call: Call, first: Host) -> None:
    secret = call("docker_secret", name="key", data="s3cret", state="present")["secret_id"]
    config = call("docker_config", name="conf", data="x=1", state="present")["config_id"]
    call("docker_network", name="back", driver="overlay", attachable=True)
    given: dict[str, Any] = {
        "name": "web",
        "image": "redis:3.0.6",
        "resolve_image": False,
        "replicas": 2,
        "env": {"A": "b"},
        "labels": {"tier": "front"},
        "container_labels": {"c": "d"},
        "networks": [{"name": "back", "aliases": ["cache"]}],
        "publish": [{"target_port": 6379, "published_port": 8071, "protocol": "tcp", "mode": "ingress"}],
        "secrets": [{"secret_id": secret, "secret_name": "key", "filename": "key", "mode": 0o400}],
        "configs": [{"config_id": config, "config_name": "conf", "filename": "/conf"}],
        "mounts": [{"source": "data", "target": "/data", "type": "volume"}, {"target": "/t", "type": "tmpfs"}],
        "healthcheck": {"test": ["CMD", "true"], "interval": "2s", "timeout": "1s", "retries": 3, "start_period": "1s"},
        "limits": {"cpus": 0.5, "memory": "64M"},
        "reservations": {"cpus": 0.1, "memory": "8M"},
        "placement": {"constraints": ["node.role == manager"], "preferences": [{"spread": "node.labels.rack"}]},
        "restart_config": {"condition": "on-failure", "delay": "1s", "max_attempts": 3, "window": "30s"},
        "update_config": {"parallelism": 0, "monitor": "500ms", "order": "start-first", "failure_action": "rollback"},
        "rollback_config": {"parallelism": 0, "monitor": "500ms", "order": "stop-first"},
        "logging": {"driver": "json-file", "options": {"max-size": "1m"}},
        "hosts": {"one": "1.2.3.4"},
        "dns": ["1.1.1.1"],
        "stop_grace_period": "1s",
        "stop_signal": "SIGTERM",
        "cap_add": ["NET_ADMIN"],
        "sysctls": {"net.ipv4.ip_forward": "1"},
        "init": True,
        "user": "0",
        "working_dir": "/",
    }
    assert call("docker_swarm_service", check=True, **given)["changed"] is True
    made = call("docker_swarm_service", **given)
    assert made["changed"] is True and made["swarm_service"]["image"] == "redis:3.0.6"
    eventually(lambda: len(running(first, "web")) == 2)
    again = call("docker_swarm_service", **given)
    assert again["changed"] is False, again["changes"]
    changed = call("docker_swarm_service", **{**given, "image": "redis:3.0.7", "replicas": 3})
    assert sorted(changed["changes"]) == ["image", "replicas"]
    eventually(lambda: [task["image"] for task in running(first, "web")] == ["redis:3.0.7"] * 3)
    seen = call("docker_swarm_service_info", name="web")
    assert seen["exists"] and seen["service"]["Spec"]["Mode"] == {"Replicated": {"Replicas": 3}}
    forced = call("docker_swarm_service", **{**given, "image": "redis:3.0.7", "replicas": 3, "force_update": True})
    assert forced["changed"] is True
    assert call("docker_swarm_service", name="web", state="absent")["changed"] is True
    assert call("docker_swarm_service", name="web", state="absent")["changed"] is False
    eventually(lambda: call("docker_network", name="back", state="absent"))
    call("docker_secret", name="key", state="absent")
    call("docker_config", name="conf", state="absent")


def test_a_refused_service_is_told_in_swarms_words(call: Call) -> None:
    refused = call(
        "docker_swarm_service", name="x", image="redis:3.0.6", resolve_image=False, fails=True,
        placement={"constraints": ["node.role = manager"]},
    )  # fmt: skip
    assert "constraint expected one operator from ==, !=" in refused["msg"]


def test_a_stack(call: Call, first: Host, tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text("""
        version: "3.8"
        services:
          web: {image: "redis:3.0.6", deploy: {replicas: 2}}
          every: {image: "redis:3.0.6", deploy: {mode: global}}
    """)
    given = {"name": "shop", "compose": [str(tmp_path / "stack.yml")], "resolve_image": "never"}
    assert call("docker_stack", **given)["changed"] is True
    assert call("docker_stack", **given)["changed"] is False
    eventually(lambda: len(running(first, "shop_web")) == 2 and len(running(first, "shop_every")) == 3)
    assert {it["Name"]: it["Services"] for it in call("docker_stack_info")["results"]} == {"shop": "2"}
    assert len(call("docker_stack_task_info", name="shop")["results"]) == 5
    gone = call("docker_stack", name="shop", state="absent", absent_retries=30, absent_retries_interval=1)
    assert gone["changed"] is True
    assert call("docker_stack", name="shop", state="absent")["changed"] is False
