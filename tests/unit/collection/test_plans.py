"""The pure decisions of the collection: preflight findings, who founds, when a service has converged, what is equal."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.swarm.cluster.plugins.filter.planning import all_findings, cluster_text, findings_text
from ansible_collections.swarm.cluster.plugins.module_utils import (
    agenthome,
    engineconfig,
    hostfacts,
    preflight,
    rollout,
    values,
)
from ansible_collections.swarm.cluster.plugins.module_utils.membership import membership_plan
from ansible_collections.swarm.cluster.plugins.module_utils.service_values import (
    capabilities,
    constraints,
    health_test,
    image_name,
)
from hypothesis import given
from hypothesis import strategies as st

GOOD: dict[str, Any] = {
    "hostname": "host1",
    "machine_id": "a",
    "address": "10.0.0.1",
    "address_finding": None,
    "root": True,
    "user": "root",
    "systemd": True,
    "init": "systemd",
    "python": "3.11.2",
    "kernel_features": {"bridge": True, "vxlan": True, "veth": True, "nat": True},
    "engine_in_swarm": False,
    "engine_path": "/usr/bin/dockerd",
    "package_manager": "apt",
    "listening": {},
    "memory": 2**31,
    "disk_free": 2**33,
    "time": 1000.0,
    "asked_at": 999.0,
    "findings": [],
}
PORTS = [("tcp", 2377), ("tcp", 7946)]


@pytest.mark.parametrize(("enabled", "needed"), [("Y\n", True), ("N\n", False), (None, False)])
def test_a_kernel_that_enforces_apparmor_needs_its_parser(
    enabled: str | None, needed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else the engine starts no container, as packages without what they recommend once showed."""
    if enabled is not None:
        (tmp_path / "enabled").write_text(enabled)
    monkeypatch.setattr(hostfacts, "APPARMOR", (str(tmp_path), str(tmp_path / "enabled")))
    assert ("apparmor_parser" in hostfacts.needed_commands()) == needed


def test_a_process_that_closes_files_meanwhile_is_still_known_for_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents open and close connections all the time: site.yml once took a busy one's ports for the kernel's."""
    vanished = []

    def readlink(path: str) -> str:
        if path.startswith(f"/proc/{os.getpid()}/fd/") and not vanished:
            vanished.append(path)
            raise FileNotFoundError(path)
        return real(path)

    real = os.readlink
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setattr(hostfacts.os, "readlink", readlink)
        assert hostfacts.listening([("tcp", port)]) == {f"{port}/tcp": Path("/proc/self/comm").read_text().strip()}
    assert vanished


TUNNELS = """
import json, subprocess, sys
from ansible_collections.swarm.cluster.plugins.module_utils import hostfacts
hostfacts.AGENT = sys.argv[1]
for port in (4789, 4790):
    subprocess.run(f"ip link add t{port} type vxlan id {port} dstport {port}".split(), check=True)
    subprocess.run(f"ip link set t{port} up".split(), check=True)
print(json.dumps(hostfacts.listening([("udp", 4789), ("udp", 4790)])))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.parametrize(("installed", "holder"), [(True, "swarm-agent"), (False, "the kernel")])
def test_tunnels_of_the_kernel_are_the_agents_where_there_is_one(installed: bool, holder: str, tmp_path: Path) -> None:
    command = ["unshare", "--net", sys.executable, "-c", TUNNELS, str(tmp_path if installed else tmp_path / "none")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert json.loads(listed) == {"4789/udp": holder, "4790/udp": holder}


def test_a_good_host_has_no_findings() -> None:
    assert preflight.host_findings(GOOD, PORTS) == []


@pytest.mark.parametrize(
    ("change", "check", "found"),
    [
        ({"root": False, "user": "joe"}, "root", "user joe"),
        ({"systemd": False, "init": "sh"}, "systemd", "process 1 is sh"),
        ({"python": "3.10.12"}, "python", "Python 3.10.12"),
        ({"kernel_features": {"bridge": False}}, "kernel", "no bridges"),
        ({"kernel_features": {"vxlan": False}}, "kernel", "no VXLAN"),
        ({"kernel_features": {"veth": False}}, "kernel", "no veth pairs"),
        ({"kernel_features": {"nat": False}}, "kernel", "no iptables' nat table"),
        ({"engine_in_swarm": True}, "engine", "swarm mode"),
        ({"engine_path": "", "package_manager": ""}, "engine", "no dockerd"),
        ({"listening": {"7946/tcp": "nginx"}}, "port", "7946/tcp is taken by nginx"),
        ({"memory": 2**27}, "memory", "128 MiB"),
        ({"disk_free": 0}, "disk", "0 MiB free"),
    ],
)
def test_each_finding_says_what_was_found_and_how_to_mend_it(change: dict[str, Any], check: str, found: str) -> None:
    [finding] = preflight.host_findings({**GOOD, **change}, PORTS)
    assert finding["check"] == check and found in finding["found"]
    assert finding["wanted"] and finding["fix"]


def test_all_findings_come_at_once() -> None:
    bad = {**GOOD, "root": False, "systemd": False, "memory": 0}
    assert [finding["check"] for finding in preflight.host_findings(bad, PORTS)] == ["root", "systemd", "memory"]


def test_a_port_of_our_own_agent_is_free() -> None:
    assert preflight.host_findings({**GOOD, "listening": {"7946/tcp": "swarm-agent"}}, PORTS) == []


def test_hosts_that_share_an_identity_are_named() -> None:
    found = all_findings({"host1": GOOD, "clone": GOOD}, now=1001)
    assert [entry["check"] for entry in found["host1"]] == ["hostname", "machine_id", "address"]
    text = findings_text(found)
    assert "hostname host1, as on clone" in text and "hostnamectl set-hostname" in text
    assert "machine id a, as on clone" in text and "address 10.0.0.1, as on host1" in text
    assert all_findings({"host1": GOOD, "clone": GOOD}, ["hostname", "machine_id", "address"], 1001) == {}


@pytest.mark.parametrize(
    ("asked", "told", "answered", "found"),
    [
        (1000.0, 1000.5, 1001.0, []),
        (1000.0, 1150.0, 1160.0, []),  # answered late by a busy machine: nothing is known to be wrong
        (1000.0, 1090.0, 1010.0, ["at least 80 s ahead of the controller"]),
        (1000.0, 910.0, 1500.0, ["at least 90 s behind the controller"]),
    ],
)
def test_a_clock_is_wrong_only_if_the_time_of_the_question_cannot_explain_it(
    asked: float, told: float, answered: float, found: list[str]
) -> None:
    facts = {"host1": {**GOOD, "asked_at": asked, "time": told}}
    entries = all_findings(facts, now=answered).get("host1", [])
    assert [entry["found"] for entry in entries] == found
    assert all(entry["fix"] == "timedatectl set-ntp true" for entry in entries)


TWO = {"eth0": "10.0.0.1", "eth1": "192.168.1.1"}


@pytest.mark.parametrize(
    ("addresses", "explicit", "hint", "alone", "default", "chosen"),
    [
        (TWO, "eth1", "10.0.0.1", False, "", "192.168.1.1"),
        (TWO, "10.0.0.1", "", False, "", "10.0.0.1"),
        (TWO, "", "192.168.1.1", False, "", "192.168.1.1"),
        ({"eth0": "10.0.0.1"}, "", "name.example", False, "", "10.0.0.1"),
        (TWO, "", "localhost", True, "192.168.1.1", "192.168.1.1"),
        (TWO, "", "localhost", False, "192.168.1.1", ""),
        (TWO, "10.9.9.9", "10.0.0.1", False, "", ""),
        ({}, "", "", True, "", ""),
    ],
)
def test_address_choice(
    addresses: dict[str, str], explicit: str, hint: str, alone: bool, default: str, chosen: str
) -> None:
    address, finding = preflight.choose_address(addresses, explicit, hint, alone, default)
    assert address == chosen and (finding is None) == bool(chosen)
    if finding:
        words = explicit or ", ".join(f"{address} on {name}" for name, address in addresses.items()) or "no address"
        assert words in finding["found"] and "set cluster_address" in finding["fix"]


@pytest.mark.parametrize(("count", "word"), [(0, "needs one"), (2, "1 or 3"), (4, "3 or 5")])
def test_unwise_numbers_of_managers(count: int, word: str) -> None:
    assert word in preflight.manager_warning(count)


def test_wise_numbers_of_managers() -> None:
    assert [preflight.manager_warning(count) for count in (1, 3, 5)] == ["", "", ""]


def outside() -> dict[str, Any]:
    return {"local_state": "inactive", "control_available": False, "node_id": "", "cluster_id": "", "node_ids": []}


def worker(node_id: str) -> dict[str, Any]:
    return {**outside(), "local_state": "active", "node_id": node_id}


def manager(node_id: str, cluster: str, *nodes: str) -> dict[str, Any]:
    return {**worker(node_id), "control_available": True, "cluster_id": cluster, "node_ids": [node_id, *nodes]}


def test_the_first_manager_founds_when_nobody_is_in_a_cluster() -> None:
    plan = membership_plan({"a": outside(), "b": outside()}, ["b", "a"])
    assert plan == {"seed": "b", "found": True, "problem": ""}


def test_a_rebuilt_first_manager_joins_the_living_cluster() -> None:
    plan = membership_plan({"a": outside(), "b": manager("2", "c", "3"), "w": worker("3")}, ["a", "b"])
    assert plan == {"seed": "b", "found": False, "problem": ""}


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        ({"a": outside(), "w": worker("3")}, "w: in a cluster whose managers are not among the hosts"),
        ({"a": manager("1", "x"), "b": manager("2", "y")}, "different clusters: a in x; b in y"),
        ({"a": manager("1", "x"), "w": worker("9")}, "w: in a cluster that a does not know them from"),
        ({"a": {**outside(), "local_state": "locked"}}, "a (locked)"),
    ],
)
def test_no_second_cluster_beside_a_living_one(hosts: dict[str, Any], text: str) -> None:
    assert text in membership_plan(hosts, ["a", "b"])["problem"]


NODES = [{"ID": "n1", "Status": {"State": "ready"}}, {"ID": "n2", "Status": {"State": "down"}}]


def task(name: str, state: str, node: str = "n1", error: str = "", desired: str = "running") -> dict[str, Any]:
    return {"ID": name, "NodeID": node, "DesiredState": desired, "Status": {"State": state, "Err": error}}


def service(replicas: int, update: str = "", message: str = "") -> dict[str, Any]:
    status = {"UpdateStatus": {"State": update, "Message": message}} if update else {}
    return {"Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": replicas}}}, **status}


@pytest.mark.parametrize(
    ("found", "tasks", "kind"),
    [
        (service(2), [task("a", "running")], rollout.PROGRESS),
        (service(1), [task("a", "running")], rollout.STEADY),
        (service(0), [], rollout.DONE),
        (service(1), [task("a", "running", "n2")], rollout.PROGRESS),
        (service(1), [task("a", "running", desired="shutdown")], rollout.PROGRESS),
        (service(1), [task("a", "starting")], rollout.PROGRESS),
        (service(1, "updating"), [task("a", "running")], rollout.PROGRESS),
        (service(1, "completed"), [task("a", "running")], rollout.DONE),
        (service(1, "paused", "early"), [task("a", "running")], rollout.FAILED),
        (service(1, "rollback_started"), [task("a", "running")], rollout.PROGRESS),
        (service(1, "rollback_completed"), [task("a", "running")], rollout.FAILED),
    ],
)
def test_verdicts(found: dict[str, Any], tasks: list[dict[str, Any]], kind: str) -> None:
    assert rollout.judge(found, tasks, NODES).kind == kind


def test_a_verdict_tells_the_reasons_of_tasks() -> None:
    tasks = [task("a", "running"), task("b", "rejected", error="No such image: web:2")]
    text = rollout.judge(service(2, "paused", "task b failed"), tasks, NODES).text
    assert "1 of 2 tasks running; the update was paused (task b failed)" in text
    assert "task rejected on n1: No such image: web:2" in text


def test_a_job_is_done_when_its_completions_are() -> None:
    job = {"Spec": {"Name": "job", "Mode": {"ReplicatedJob": {"TotalCompletions": 2}}}, "JobStatus": {}}
    assert rollout.judge(job, [task("a", "complete"), task("b", "running")], NODES).kind == rollout.PROGRESS
    assert rollout.judge(job, [task("a", "complete"), task("b", "complete")], NODES).kind == rollout.DONE


@given(st.integers(min_value=0, max_value=10**16))
def test_durations_come_back(nanoseconds: int) -> None:
    assert values.duration(values.spoken(nanoseconds)) == nanoseconds


@given(st.integers(min_value=0, max_value=2**50))
def test_sizes_come_back(count: int) -> None:
    assert values.size(values.spoken_size(count)) == count


@pytest.mark.parametrize("text", ["", "s", "10 parsecs", "-1s", "1h-2m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        values.duration(text)


def test_equal_in_meaning() -> None:
    assert image_name("web") == image_name("web:latest") == image_name("web:latest@sha256:1")
    assert image_name("registry:5000/web") == "registry:5000/web:latest"
    assert image_name("web@sha256:1") == "web@sha256:1"
    assert capabilities(["net_admin", "ALL"]) == capabilities(["ALL", "CAP_NET_ADMIN"])
    assert constraints(["node.role==worker"]) == constraints([" node.role == worker"])
    assert health_test(["true"]) == ["CMD-SHELL", "true"] and health_test(["NONE"]) == ["NONE"]


def test_an_engine_is_restarted_only_when_a_reload_is_not_enough() -> None:
    keys = engineconfig.changed_keys({"debug": True, "mtu": 1500}, {"debug": False, "mtu": 1500})
    assert keys == ["debug"] and engineconfig.needed_action(keys) == "reload"
    assert engineconfig.needed_action(["debug", "mtu"]) == "restart"
    assert engineconfig.needed_action([]) == ""


def test_settings_are_read_back_as_they_were() -> None:
    import tomllib

    settings = {"log_level": 'de"b\\ug', "gossip_port": 7946, "fast": True}
    assert tomllib.loads(agenthome.toml(settings)) == settings
    with pytest.raises(ValueError, match="setting deep"):
        agenthome.toml({"deep": {}})


def test_the_summary_is_a_table() -> None:
    node = {"hostname": "host1", "address": "10.0.0.1", "role": "manager", "leader": True, "reachability": "reachable",
            "state": "ready", "availability": "active"}  # fmt: skip
    text = cluster_text({"nodes": [node], "cluster_id": "c"}, "host1")
    assert "  host1  10.0.0.1  leader  ready  active" in text and "cluster c: 1 nodes, 1 of them managers" in text
