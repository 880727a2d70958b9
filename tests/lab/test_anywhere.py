"""Logs and execs from any manager: two managers and a worker, and a service on all three."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.lab.clusterkit import nodes, outside, running, tasks, with_agents
from tests.lab.labkit import Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

SAY = "echo to-stdout $HOSTNAME; echo to-stderr >&2; exec sleep 1d"


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    """host1 leads, host2 follows, host3 works; `talk` runs once on each."""
    outside(with_agents(lab))
    first, second, third = lab
    first.docker("swarm", "init", "--advertise-addr", first.address)
    for role, host in (("manager", second), ("worker", third)):
        token = first.docker("swarm", "join-token", "-q", role)
        host.docker("swarm", "join", "--token", token.out, f"{first.address}:2377")
    first.docker("service", "create", "--detach", "--mode", "global", "--name", "talk", "alpine", "sh", "-c", SAY)
    eventually(lambda: len(running(first, "talk")) == 3)
    yield [first, second, third]
    lab.restore()
    outside(lab)


def task_on(host: Host, where: Host, service: str = "talk") -> dict[str, str]:
    return next(task for task in running(host, service) if task["node"] == where.name)


def container_on(where: Host, service: str = "talk") -> str:
    return where.engine("ps", "-q", "--no-trunc", "--filter", f"label=com.docker.swarm.service.name={service}").out


def log_lines(host: Host, *arguments: str) -> list[str]:
    """What `docker service logs` prints, on both of its outputs."""
    said = host.docker("service", "logs", *arguments)
    return sorted([*said.lines, *said.err.splitlines()])


def test_the_log_of_a_service_is_that_of_all_hosts(hosts):
    for host in hosts[:2]:
        lines = eventually(lambda host=host: len(found := log_lines(host, "talk")) == 6 and found)
        for where in hosts:
            task = task_on(host, where)
            assert sum(f"@{where.name}" in line and line.endswith("| to-stderr") for line in lines) == 1
            assert sum(task["id"][:12] in line and "| to-stdout " in line for line in lines) == 1


def test_the_log_of_a_task_and_its_details(hosts):
    first, second, third = hosts
    task = task_on(first, third)
    assert [line.split("|")[-1].split()[0] for line in log_lines(second, task["id"])] == ["to-stderr", "to-stdout"]
    stamped = log_lines(first, "--timestamps", "--raw", task["id"])
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z to-", line) for line in stamped), stamped
    assert len(log_lines(first, "--tail", "1", "talk")) == 3
    assert log_lines(first, "--since", "2100-01-01T00:00:00", "talk") == []
    assert first.docker("service", "logs", "nothing", check=False).err == "no such task or service: nothing"
    refused = third.docker("service", "logs", "talk", check=False)
    assert "Worker nodes can't be used to view or modify cluster state" in refused.err


def follow(host: Host, *arguments: str) -> subprocess.Popen[str]:
    command = ["docker", "--host", f"unix://{host.socket()}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("number", [0, 1])
def test_following_shows_new_lines_of_all_hosts_and_of_new_tasks(hosts, number):
    host = hosts[number]
    name = f"clock{number}"
    host.docker(
        "service", "create", "--detach", "--name", name, "--replicas", "1", "--constraint", "node.hostname==host3",
        "alpine", "sh", "-c", "while true; do echo tick; sleep 0.3; done",
    )  # fmt: skip
    reader = follow(host, "service", "logs", "--follow", name)
    try:
        seen = [reader.stdout.readline() for _ in range(3)]
        assert all(line.endswith("| tick\n") and f"{name}.1." in line for line in seen), seen
        host.docker("service", "update", "--detach", "--replicas", "2", name)
        while f"{name}.2." not in reader.stdout.readline():
            pass
    finally:
        reader.kill()
        reader.wait()
        host.docker("service", "rm", name)


def test_a_terminals_log_is_raw(hosts):
    hosts[1].docker(
        "service", "create", "--detach", "--name", "term", "--tty", "--constraint", "node.hostname==host3",
        "alpine", "sh", "-c", "echo on a terminal; sleep 1d",
    )  # fmt: skip
    eventually(lambda: running(hosts[0], "term"))
    refused = hosts[1].docker("service logs term", check=False)
    assert "tty service logs only supported with --raw" in refused.err
    assert eventually(lambda: hosts[1].docker("service logs --raw term").out) == "on a terminal"
    hosts[1].docker("service rm term")


def test_the_log_of_a_dead_task_stays_until_its_container_goes(hosts):
    hosts[0].docker(
        "service", "create", "--detach", "--name", "once", "--restart-condition", "none", "alpine",
        "sh", "-c", "echo last words; exit 3",
    )  # fmt: skip
    eventually(lambda: tasks(hosts[0], "once")[0]["current"].startswith("Failed"))
    assert [line.split("| ")[1] for line in log_lines(hosts[1], "once")] == ["last words"]
    hosts[0].docker("service rm once")


@pytest.mark.parametrize("number", [0, 1])
def test_exec_by_every_name_of_a_task_wherever_it_runs(hosts, number):
    host = hosts[number]
    for where in hosts:
        task = task_on(host, where)
        container = container_on(where)
        assert container
        full_name = where.engine("inspect", "--format", "{{.Name}}", container).out.removeprefix("/")
        for term in (task["id"], task["id"][:12], full_name, container, container[:12]):
            assert host.docker("exec", term, "hostname").out == container[:12], term
        assert host.docker("exec", "-i", task["id"], "cat", stdin="through and through").out == "through and through"
        failed = host.docker("exec", task["id"], "sh", "-c", "exit 7", check=False)
        assert failed.code == 7


def test_the_other_container_commands_reach_it_too(hosts, tmp_path):
    first, _, third = hosts
    task, container = task_on(first, third), container_on(third)
    assert first.docker("container", "inspect", "--format", "{{.Id}}", task["id"]).out == container
    assert first.docker("logs", task["id"]).out.startswith("to-stdout")
    (tmp_path / "note").write_text("by hand")
    first.docker("cp", str(tmp_path / "note"), f"{task['id']}:/note")
    assert first.docker("exec", task["id"], "cat", "/note").out == "by hand"
    assert "sleep" in first.docker("top", task["id"]).out
    attached = follow(first, "attach", "--no-stdin", task["id"])
    try:
        first.docker("exec", task["id"], "sh", "-c", "echo attached > /proc/1/fd/1")
        assert attached.stdout.readline() == "attached\n"
    finally:
        attached.kill()
        attached.wait()


def test_a_worker_knows_its_own_containers_only(hosts):
    first, _, third = hosts
    assert third.docker("exec", container_on(third)[:12], "echo", "mine").out == "mine"
    refused = third.docker("exec", container_on(first)[:12], "true", check=False)
    assert "No such container" in refused.err


def test_what_is_on_a_lost_host_is_said(lab, hosts):
    first, _, third = hosts
    lost = next(node["ID"] for node in nodes(first) if node["Hostname"] == third.name)
    task = task_on(first, third)
    third.kill()
    eventually(lambda: {node["Hostname"]: node["Status"] for node in nodes(first)}[third.name] == "Down")
    said = first.docker("service logs talk", check=False, timeout=60)
    assert said.code == 1
    assert (
        "warning: incomplete log stream. some logs could not be retrieved for the following reasons: "
        f"node {lost} is not available" in said.err
    )
    refused = first.docker("exec", task["id"], "true", check=False, timeout=30)
    assert f"node {lost} is not available" in refused.err
    lab.restore()
    eventually(lambda: {node["Hostname"]: node["Status"] for node in nodes(first)}[third.name] == "Ready")
