"""Every declaring module on a live cluster: check, create, repeat, change, absent. The modules' own code runs in this
process, as Ansible would run it, against the socket of host1; the way over ssh is in test_site and test_verbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.swarm.cluster.plugins.module_utils.compose import Reader

from tests.lab.clusterkit import cluster, http, outside, running, with_agents
from tests.lab.labkit import Host, Lab, eventually
from tests.unit.collection.conftest import run_module

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
Call = Callable[..., dict[str, Any]]
FAST = {"update_config": {"monitor": "500ms"}, "restart_config": {"delay": "500ms"}}


@pytest.fixture(scope="module")
def first(lab: Lab) -> Iterator[Host]:
    with_agents(lab)
    yield cluster(lab)
    outside(lab)


@pytest.fixture
def call(first: Host) -> Call:
    """`call("swarm_service", name=…)` runs the module on host1's socket; failures raise unless `fails` is given."""

    def run(
        module: str, /, *, check: bool = False, fails: bool = False, on: Host = first, **given: Any
    ) -> dict[str, Any]:
        answer = run_module(module, {"socket": str(on.socket()), **given}, check)
        assert bool(answer.get("failed")) == fails, answer
        return answer

    return run


def lifecycle(call: Call, module: str, given: dict[str, Any], change: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Check, create, repeat, check nothing, change (in check mode, then for good), absent (so, too), absent again."""
    told = call(module, check=True, **given)
    assert told["changed"] and told["actions"] and told["diff"]["after"]
    made = call(module, **given)
    assert made["changed"] and made["actions"] == told["actions"]
    for check in (False, True):
        again = call(module, check=check, **given)
        assert again["changed"] is False and again["diff"] == {"before": {}, "after": {}}, again
    changed = made
    if change is not None:
        told = call(module, check=True, **{**given, **change})
        changed = call(module, **{**given, **change})
        assert told["changed"] and changed["changed"] and changed["actions"] == told["actions"]
        assert call(module, **{**given, **change})["changed"] is False
    gone = {"name": given["name"], "state": "absent"} | {key: given[key] for key in ("versioned",) if key in given}
    assert call(module, check=True, **gone)["changed"] is True
    assert call(module, **gone)["changed"] is True and call(module, **gone)["changed"] is False
    return [made, changed]


def test_networks(call: Call) -> None:
    given = {"name": "back", "subnets": [{"subnet": "10.77.1.0/24"}], "attachable": True, "labels": {"a": "1"}}
    made, changed = lifecycle(call, "swarm_network", given, {"internal": True, "recreate": True})
    assert made["network"]["IPAM"]["Config"][0]["Subnet"] == "10.77.1.0/24"
    assert changed["network"]["Internal"] is True and changed["network"]["Id"] != made["network"]["Id"]


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_secrets_and_configs(call: Call, kind: str) -> None:
    given = {"name": "x", "data": "one"}
    made, changed = lifecycle(call, f"swarm_{kind}", given, {"data": "two"})
    assert made[f"{kind}_id"] != changed[f"{kind}_id"]
    lifecycle(call, f"swarm_{kind}", {**given, "versioned": True}, {"data": "two"})


def test_a_secret_rotates_under_a_service_that_runs(call: Call, first: Host) -> None:
    """New content, new version, the service is rolled over to it, the old one can go."""
    service = {"name": "holder", "image": "alpine", "args": ["sleep", "1d"], "stop_grace_period": "1s", **FAST}
    for content in ("one", "two"):
        secret = call("swarm_secret", name="key", data=content, versioned=True, versions_to_keep=0)["secret_name"]
        call("swarm_service", **service, secrets=[{"name": secret, "target": "key"}])
        [task] = running(first, "holder")
        assert first.docker("exec", task["id"], "cat", "/run/secrets/key").out == content
    call("swarm_secret", name="key", data="two", versioned=True, versions_to_keep=0)
    assert [item["Spec"]["Name"] for item in call("swarm_secret_info")["secrets"]] == ["key_v2"]
    refused = call("swarm_secret", name="key", state="absent", versioned=True, fails=True)
    assert "in use by the following service: holder" in refused["msg"]
    call("swarm_service", name="holder", state="absent")
    call("swarm_secret", name="key", state="absent", versioned=True)


def test_services(call: Call, first: Host) -> None:
    given = {
        "name": "web",
        "image": "whoami",
        "replicas": 2,
        "publish": [{"published_port": 8085, "target_port": 80}],
        **FAST,
    }
    call("swarm_service", check=True, **given)
    made = call("swarm_service", **given)
    assert (made["running"], made["desired"]) == (2, 2) and http(first, 8085)
    assert call("swarm_service", **given)["changed"] is False
    scaled = call("swarm_service", name="web", state="scaled", replicas=3)
    assert scaled["running"] == 3 and call("swarm_service", name="web", state="scaled", replicas=3)["changed"] is False
    before = {task["id"] for task in running(first, "web")}
    call("swarm_service", name="web", state="restarted")
    assert not before & {task["id"] for task in running(first, "web")}
    call("swarm_service", name="web", env={"COLOUR": "red"})
    assert http(first, 8085)["env"].get("COLOUR") == "red"
    rolled = call("swarm_service", name="web", state="rolled_back")
    assert rolled["changed"] and "COLOUR" not in http(first, 8085)["env"]
    assert call("swarm_service", name="web", state="rolled_back")["changed"] is False
    broken = call("swarm_service", name="web", image="redis:broken", wait_timeout=60, fails=True)
    assert "the update was paused" in broken["msg"]
    call("swarm_service", name="web", state="absent")


COMPOSE = """
services:
  web:
    image: whoami
    networks: [front, back]
    ports: ["8086:80"]
    secrets: [{source: password, target: pass, mode: 0400}]
    configs: [settings]
    environment: {PLACE: "{{.Node.Hostname}}", B: "2"}
    extra_hosts: ["db:10.9.9.9"]
    volumes: ["data:/data:ro", "/tmp:/host-tmp"]
    stop_grace_period: 3s
    healthcheck: {test: "true", interval: 5s}
    logging: {driver: json-file, options: {max-size: 10m}}
    ulimits: {nofile: {soft: 1000, hard: 2000}}
    deploy:
      replicas: 2
      labels: {tier: front}
      update_config: {parallelism: 0, monitor: 500ms}
      restart_policy: {condition: on-failure, max_attempts: 3}
      placement: {constraints: [node.platform.os == linux], preferences: [{spread: node.id}]}
      resources: {limits: {cpus: '0.5', memory: 50M}, reservations: {memory: 10M}}
  store:
    image: alpine
    command: sleep 1d
    stop_grace_period: 1s
    networks: {back: {aliases: [database]}}
    deploy: {mode: global}
networks: {front: , back: {attachable: true}}
volumes: {data: }
secrets: {password: {file: ./password}}
configs: {settings: {file: ./settings.ini}}
"""


def test_a_stack_is_dockers_stack(call: Call, first: Host, tmp_path: Path) -> None:
    """What docker stack deploy made needs no change, and what the module made docker stack knows."""
    (tmp_path / "password").write_text("s3cret")
    (tmp_path / "settings.ini").write_text("colour=blue\n")
    (tmp_path / "shop.yml").write_text('version: "3.8"\n' + COMPOSE)
    reader = Reader("shop", yaml.safe_load(COMPOSE), lambda path: Path(path).read_bytes(), str(tmp_path))
    given = {"name": "shop", "definition": {"x": 1}, "desired": reader.read(), "contents": reader.contents}

    first.docker("stack", "deploy", "--detach=true", "-c", str(tmp_path / "shop.yml"), "shop")
    eventually(lambda: len(running(first, "shop_web")) == 2, timeout=120)
    told = call("swarm_stack", **given)
    assert told["changed"] is False and "cannot be compared" in str(told["warnings"]), told
    assert {item["name"]: item["running"] for item in told["services"]} == {"shop_web": 2, "shop_store": 3}
    assert call("swarm_stack", name="shop", state="absent")["changed"] is True
    assert call("swarm_stack", name="shop", state="absent")["changed"] is False

    assert call("swarm_stack", **given, check=True)["changed"] is True
    call("swarm_stack", **given)
    assert call("swarm_stack", **given)["changed"] is False and http(first, 8086)["env"]["B"] == "2"
    said = first.docker("stack", "deploy", "--detach=true", "-c", str(tmp_path / "shop.yml"), "shop", check=False)
    # Our label says what a secret holds; Docker would drop it, which changes nothing in the services.
    assert said.code == 0, said
    assert call("swarm_stack", **given, check=True)["changed"] is False
    assert call("swarm_stack", name="shop", state="absent")["changed"] is True


def test_nodes(call: Call, first: Host, lab: Lab) -> None:
    third = lab.host("host3")
    assert call("swarm_node", name="host3", labels={"disk": "ssd"})["changed"] is True
    promoted = call("swarm_node", name="host3", role="manager")
    assert promoted["node"]["reachability"] == "reachable"
    assert call("swarm_node", name="host3", role="manager")["changed"] is False
    found = call("swarm_node_info", name=["host3"])["nodes"][0]["Summary"]
    assert (found["role"], found["labels"]) == ("manager", {"disk": "ssd"})
    # A manager that leaves hands its office over first; then it comes back as a worker.
    known = call("swarm_join_token_info")
    tokens = {key: known[key] for key in ("worker", "manager", "remote_addrs")}
    left = call("swarm_node", on=third, state="left")
    assert left["actions"] == ["demoted host3", "left the cluster"]
    eventually(lambda: call("swarm_node", name="host3", state="absent", force=True)["node"] == {})
    assert call("swarm_node", on=third, state="joined", tokens=tokens, advertise_addr=third.address)["changed"] is True
    call("swarm_ready", nodes=["host3"])
    refused = call("swarm_node", name="host1", role="worker", fails=True)
    assert "is the last manager" in refused["msg"]


def test_a_drain_that_takes_too_long_says_what_still_runs(call: Call) -> None:
    stubborn = {"command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], "stop_grace_period": "10s"}
    call("swarm_service", name="stubborn", image="alpine", mode="global", **stubborn, **FAST)
    late = call("swarm_node", name="host2", availability="drain", wait_timeout=1, fails=True)
    assert "host2 is not drained after 1 s; last seen: stubborn." in late["msg"] and "running" in late["msg"]
    call("swarm_node", name="host2", availability="active")
    call("swarm_service", name="stubborn", state="absent")


def test_tokens_and_root(call: Call, tmp_path: Path) -> None:
    before = call("swarm_join_token_info")
    assert call("swarm_join_token", revoke=before["worker"])["rotated"] == ["worker"]
    assert call("swarm_join_token", revoke=before["worker"])["changed"] is False
    root = {"cert": str(tmp_path / "root.pem"), "key": str(tmp_path / "root.key")}
    run_module("swarm_certificate", root, False)
    brought = {
        "signing_ca_cert": (tmp_path / "root.pem").read_text(),
        "signing_ca_key": (tmp_path / "root.key").read_text(),
    }
    assert call("swarm_cluster", check=True, rotate_root=True, **brought)["changed"] is True
    assert call("swarm_cluster", rotate_root=True, **brought, wait_timeout=120)["changed"] is True
    assert call("swarm_cluster", rotate_root=True, **brought)["changed"] is False
    assert call("swarm_join_token_info")["manager"] != before["manager"]


def test_a_gate_that_says_what_is_missing(call: Call, lab: Lab) -> None:
    assert call("swarm_ready")["nodes"] == 3
    lab.host("host3").kill()
    try:
        eventually(
            lambda: call("swarm_node_info", name=["host3"])["nodes"][0]["Summary"]["state"] == "down", timeout=60
        )
        late = call("swarm_ready", wait_timeout=0, fails=True)
        assert late["problems"] == ["node host3 is down"]
    finally:
        lab.host("host3").start()
    call("swarm_ready", wait_timeout=120)
