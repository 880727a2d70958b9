"""swarm_service against the real API: create, repeat, check, change, absent; options left out stay as they are."""

from __future__ import annotations

from typing import Any

from tests.unit.api.kit import Door

from .conftest import Module

FULL: dict[str, Any] = {
    "name": "web",
    "image": "web:1",
    "command": ["/bin/web"],
    "args": ["--port", "80"],
    "env": {"B": "2", "A": "1"},
    "working_dir": "/srv",
    "user": "www",
    "groups": ["a", "b"],
    "hostname": "web",
    "hosts": {"db": "10.0.0.9"},
    "dns": ["10.0.0.1"],
    "tty": True,
    "init": True,
    "read_only": True,
    "stop_signal": "SIGINT",
    "stop_grace_period": "1m30s",
    "sysctls": {"net.core.somaxconn": "1024"},
    "cap_add": ["net_admin"],
    "cap_drop": ["ALL"],
    "container_labels": {"c": "1"},
    "labels": {"s": "1"},
    "replicas": 2,
    "mounts": [
        {"target": "/data", "source": "data", "labels": {"v": "1"}, "no_copy": True},
        {"target": "/host", "source": "/etc", "type": "bind", "readonly": True, "propagation": "rslave"},
        {"target": "/tmp", "type": "tmpfs", "tmpfs_size": "64M", "tmpfs_mode": "1770"},
    ],
    "publish": [
        {"published_port": 8080, "target_port": 80},
        {"target_port": 53, "protocol": "udp", "mode": "host"},
    ],
    "placement": {"constraints": ["node.role == worker"], "spread": ["node.labels.rack"], "replicas_max_per_node": 2},
    "limits": {"cpus": 0.5, "memory": "512M", "pids": 100},
    "reservations": {"cpus": 0.25, "memory": "64M"},
    "healthcheck": {"test": ["curl -f localhost"], "interval": "10s", "timeout": "2s", "retries": 3},
    "logging": {"driver": "json-file", "options": {"max-size": "10m"}},
    "restart_config": {"condition": "on-failure", "delay": "1s", "max_attempts": 3, "window": "1m"},
    "update_config": {"parallelism": 2, "delay": "10s", "order": "start-first", "max_failure_ratio": 0.1},
    "rollback_config": {"parallelism": 0, "monitor": "3s"},
    "devices": ["/dev/fuse", "/dev/sda:/dev/xvda:r"],
    "privileged": False,
    "shm_size": "64m",
    "runtime": "runc",
    "gpus": "all",
    "wait": False,
}


async def test_every_option_is_stored_and_found_again_unchanged(swarm: Door, module: Module) -> None:
    created = await module("swarm_service", **FULL)
    assert created["changed"] and created["actions"] == ["created web"], created
    again = await module("swarm_service", **FULL)
    assert again["changed"] is False and again["diff"] == {"before": {}, "after": {}}
    spec = created["service"]["Spec"]
    assert spec["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] == 90 * 10**9
    assert spec["TaskTemplate"]["Resources"]["Limits"] == {
        "NanoCPUs": 500_000_000,
        "MemoryBytes": 512 * 2**20,
        "Pids": 100,
    }
    assert spec["UpdateConfig"]["Parallelism"] == 2 and spec["RollbackConfig"]["Parallelism"] == 0


async def test_options_that_are_left_out_stay(swarm: Door, module: Module) -> None:
    await module("swarm_service", **FULL)
    changed = await module("swarm_service", name="web", image="web:2", wait=False)
    assert changed["diff"] == {"before": {"image": "web:1"}, "after": {"image": "web:2"}}
    assert changed["actions"] == ["changed image of web"]
    assert (await module("swarm_service", **{**FULL, "image": "web:2"}))["changed"] is False


async def test_what_swarm_has_no_field_for_is_kept_as_labels(swarm: Door, module: Module) -> None:
    created = await module("swarm_service", **FULL)
    assert created["service"]["Spec"]["Labels"] == {
        "s": "1",
        "swarm.task.devices": "/dev/fuse,/dev/sda:/dev/xvda:r",
        "swarm.task.shm_size": "64m",
        "swarm.task.runtime": "runc",
        "swarm.task.gpus": "all",
    }
    changed = await module("swarm_service", name="web", gpus="2", devices=[], privileged=True, wait=False)
    assert changed["service"]["Spec"]["Labels"] == {
        "s": "1",
        "swarm.task.gpus": "2",
        "swarm.task.privileged": "true",
        "swarm.task.shm_size": "64m",
        "swarm.task.runtime": "runc",
    }
    refused = await module("swarm_service", name="web", shm_size="big", wait=False)
    assert refused["failed"] and "label swarm.task.shm_size: 'big' is no size" in refused["msg"]


async def test_check_mode_tells_and_changes_nothing(swarm: Door, module: Module) -> None:
    told = await module("swarm_service", check=True, **FULL)
    assert told["changed"] and told["diff"]["after"]["image"] == "web:1" and told["service"] == {}
    await module("swarm_service", name="web", image="web:1", wait=False)
    told = await module("swarm_service", check=True, name="web", replicas=5)
    assert told["diff"] == {"before": {"replicas": 1}, "after": {"replicas": 5}}
    assert (await module("swarm_service", name="web", replicas=1, wait=False))["changed"] is False


async def test_a_new_update_config_starts_from_one_by_one(swarm: Door, module: Module) -> None:
    await module("swarm_service", name="web", image="web", wait=False)
    changed = await module("swarm_service", name="web", update_config={"delay": "5s"}, wait=False)
    assert changed["service"]["Spec"]["UpdateConfig"]["Parallelism"] == 1


async def test_defaults_said_aloud_are_no_change(swarm: Door, module: Module) -> None:
    await module("swarm_service", name="web", image="web", wait=False)
    same = {"image": "web:latest", "replicas": 1, "endpoint_mode": "vip", "labels": {}, "publish": []}
    said = await module("swarm_service", name="web", stop_grace_period="10s", wait=False, **same)
    assert said["changed"] is False, said["diff"]
    said = await module("swarm_service", name="web", restart_config={"condition": "any", "delay": "5s"}, wait=False)
    assert said["changed"] is False, said["diff"]


async def test_scaling_by_others_is_not_undone(swarm: Door, module: Module) -> None:
    await module("swarm_service", name="web", image="web", replicas=2, wait=False)
    await module("swarm_service", name="web", replicas=7, wait=False)
    assert (await module("swarm_service", name="web", image="web", wait=False))["changed"] is False


async def test_absent_twice(swarm: Door, module: Module) -> None:
    await module("swarm_service", name="web", image="web", wait=False)
    assert (await module("swarm_service", check=True, name="web", state="absent"))["changed"] is True
    assert (await module("swarm_service", name="web", state="absent"))["changed"] is True
    assert (await module("swarm_service", name="web", state="absent"))["changed"] is False


async def test_a_prefix_of_another_service_is_not_it(swarm: Door, module: Module) -> None:
    await module("swarm_service", name="website", image="web", wait=False)
    assert (await module("swarm_service", name="web", state="absent"))["changed"] is False


async def test_refusals_say_what_and_what_to_do(swarm: Door, module: Module) -> None:
    refused = await module("swarm_service", name="web", wait=False)
    assert refused["failed"] and "say which image it runs" in refused["msg"]
    await module(
        "swarm_service", name="web", image="web", wait=False, publish=[{"published_port": 80, "target_port": 8}]
    )
    refused = await module("swarm_service", name="web", mode="global")
    assert "web is replicated and cannot become global" in refused["msg"]
    refused = await module("swarm_service", name="b", image="b", publish=[{"published_port": 80, "target_port": 80}])
    assert "port '80' is already in use by service 'web'" in refused["msg"]
    refused = await module("swarm_service", name="b", image="b", secrets=[{"name": "key"}])
    assert "there is no secret key" in refused["msg"]
    refused = await module("swarm_service", name="b", image="b", env={"ON": True})
    assert "write it in quotes" in refused["msg"]
    refused = await module("swarm_service", name="b", image="b", stop_grace_period="soon")
    assert "'soon' is not a duration" in refused["msg"]


async def test_outside_of_a_cluster(door: Door, module: Module) -> None:
    refused = await module("swarm_service", name="web", image="web")
    assert refused["failed"] and "This node is not a swarm manager" in refused["msg"]
    assert (await module("swarm_service", check=True, name="web", image="web"))["changed"] is True


async def test_without_an_agent(door: Door, module: Module) -> None:
    gone = str(door.path) + ".gone"
    refused = await module("swarm_service", name="web", image="web", socket=gone)
    assert "is swarm-agent running?" in refused["msg"]
    assert (await module("swarm_service", check=True, name="web", image="web", socket=gone))["changed"] is True
