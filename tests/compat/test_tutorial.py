"""The story every user starts with, typed into the real docker CLI: one manager, two workers.

The tests run in the order they stand in, on one cluster; each goes on where the one before stopped.
"""

from __future__ import annotations

import re
import shlex

import pytest

from tests.lab.clusterkit import http, outside, running, task_containers, tasks
from tests.lab.labkit import eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

ID = r"[0-9a-z]{25}"


@pytest.fixture(scope="module")
def hosts(lab):
    """Three hosts that are in no cluster."""
    outside(lab)
    return [lab.host(f"host{number}") for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def host1(hosts):
    return hosts[0]


# --- a cluster -------------------------------------------------------------------------------------------------------


def test_commands_outside_a_cluster_say_what_to_do(host1):
    refused = host1.docker("node", "ls", check=False)
    assert refused.code == 1
    assert 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect' in refused.err
    assert "Swarm: inactive" in host1.docker("info").out


def test_init_with_two_addresses_asks_which_one(host1):
    host1.exec("ip", "address", "add", "10.99.99.1/24", "dev", "eth0")
    try:
        refused = host1.docker("swarm", "init", check=False)
    finally:
        host1.exec("ip", "address", "del", "10.99.99.1/24", "dev", "eth0")
    assert refused.code == 1
    assert refused.err.strip() == (
        "Error response from daemon: could not choose an IP address to advertise since this system has multiple "
        f"addresses on interface eth0 ({host1.address} and 10.99.99.1) - specify one with --advertise-addr"
    )
    assert "Swarm: inactive" in host1.docker("info").out


def test_init_with_an_address_prints_the_join_command(host1, hosts):
    printed = host1.docker("swarm", "init", "--advertise-addr", host1.address).out
    node = re.search(rf"^Swarm initialized: current node \(({ID})\) is now a manager\.$", printed, re.M)
    assert node is not None, printed
    assert "To add a worker to this swarm, run the following command:" in printed
    command = re.search(
        rf"^ +docker (swarm join --token SWMTKN-1-[0-9a-z]{{50}}-[0-9a-z]{{25}} {host1.address}:2377)$", printed, re.M
    )
    assert command is not None, printed
    assert (
        "To add a manager to this swarm, run 'docker swarm join-token manager' and follow the instructions." in printed
    )


def test_a_second_init_is_refused(host1):
    refused = host1.docker("swarm", "init", "--advertise-addr", host1.address, check=False)
    assert refused.code == 1
    assert (
        'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
        in refused.err
    )


def join_command(host1, role: str) -> list[str]:
    printed = host1.docker("swarm", "join-token", role).out
    assert f"To add a {role} to this swarm, run the following command:" in printed
    return shlex.split(re.search(r"docker (swarm join --token \S+ \S+)", printed)[1])


def test_bad_joins_say_why_and_leave_no_trace(host1, hosts):
    good = host1.docker("swarm", "join-token", "-q", "worker").out.strip()
    last = "0" if good[-1] != "0" else "1"
    attempts = {
        "A valid join token is necessary to join this cluster": [good[:-1] + last, f"{host1.address}:2377"],
        "invalid join token": ["SWMTKN-1-nonsense", f"{host1.address}:2377"],
        "connection refused": [good, f"{hosts[2].address}:2377"],
    }
    for text, (token, address) in attempts.items():
        refused = hosts[1].docker("swarm", "join", "--token", token, address, check=False)
        assert refused.code == 1
        assert text in refused.err, refused.err
        assert "Swarm: inactive" in hosts[1].docker("info").out
    assert len(host1.docker("node", "ls", "-q").out.split()) == 1


def test_the_others_join_with_the_printed_command(host1, hosts):
    command = join_command(host1, "worker")
    for host in hosts[1:]:
        assert host.docker(*command).out.strip() == "This node joined a swarm as a worker."
    again = hosts[1].docker(*command, check=False)
    assert again.code == 1 and "This node is already part of a swarm." in again.err


def test_join_tokens_differ_by_role(host1):
    worker, manager = (host1.docker("swarm", "join-token", "-q", role).out.strip() for role in ("worker", "manager"))
    assert worker != manager
    assert worker.rsplit("-", 1)[0] == manager.rsplit("-", 1)[0]


def test_info_shows_the_cluster(host1, hosts):
    shown = [line.strip() for line in host1.docker("info").lines]
    for line in (
        "Swarm: active",
        "Is Manager: true",
        "Managers: 1",
        "Nodes: 3",
        "Task History Retention Limit: 5",
        "Heartbeat Period: 5 seconds",
        "Expiry Duration: 3 months",
        "Default Address Pool: 10.0.0.0/8",
        f"Node Address: {host1.address}",
        f"{host1.address}:2377",
    ):
        assert line in shown, f"{line!r} not in\n" + "\n".join(shown)
    assert any(re.fullmatch(rf"NodeID: {ID}", line) for line in shown)
    assert any(re.fullmatch(rf"ClusterID: {ID}", line) for line in shown)
    worker = hosts[1].docker("info").out
    assert "Is Manager: false" in worker and f"Node Address: {hosts[1].address}" in worker


def test_node_ls_marks_this_node_and_the_leader(host1):
    lines = host1.docker("node", "ls").lines
    assert re.split(r"\s{2,}", lines[0].strip()) == [
        "ID",
        "HOSTNAME",
        "STATUS",
        "AVAILABILITY",
        "MANAGER STATUS",
        "ENGINE VERSION",
    ]
    rows = {re.search(r"host\d", line)[0]: line for line in lines[1:]}
    assert re.search(rf"^{ID} \*   host1 +Ready +Active +Leader", rows["host1"])
    for name in ("host2", "host3"):
        assert re.search(rf"^{ID}     {name} +Ready +Active +\d", rows[name]), rows[name]


def test_a_worker_refuses_to_manage(hosts):
    refused = hosts[1].docker("node", "ls", check=False)
    assert refused.code == 1
    assert "Worker nodes can't be used to view or modify cluster state." in refused.err


# --- a service -------------------------------------------------------------------------------------------------------


def test_create_converges_and_prints_the_id(host1, hosts):
    done = host1.docker("service", "create", "--replicas", "1", "--name", "hello", "alpine", "ping", hosts[1].address)
    assert re.search(rf"^{ID}$", done.out, re.M), done.out
    assert "overall progress: 1 out of 1 tasks" in done.out
    assert re.search(rf"Service {ID} converged|Service converged", done.out), done.out


def test_the_service_is_listed_and_inspected(host1, hosts):
    listed = host1.docker("service", "ls").lines
    assert re.search(r"^[0-9a-z]{12} +hello +replicated +1/1 +alpine:latest *$", listed[1]), listed
    inspected = host1.docker("service", "inspect", "hello").json[0]
    assert inspected["Spec"]["TaskTemplate"]["ContainerSpec"]["Args"] == ["ping", hosts[1].address]
    assert inspected["Spec"]["Mode"] == {"Replicated": {"Replicas": 1}}
    pretty = host1.docker("service", "inspect", "--pretty", "hello").out
    for line in (
        r"ID:\s+[0-9a-z]{25}",
        r"Name:\s+hello",
        r"Service Mode:\s+Replicated",
        r" Replicas:\s+1",
        r" Image:\s+alpine:latest",
        r" Args:\s+ping ",
        r" Parallelism:\s+1",
        r" On failure:\s+pause",
    ):
        assert re.search(f"^{line}", pretty, re.M), f"{line} not in\n{pretty}"


def test_ps_names_the_node_and_docker_ps_there_names_the_task(host1, lab):
    [task] = tasks(host1, "hello")
    assert (task["name"], task["desired"]) == ("hello.1", "Running")
    assert task["current"].startswith("Running ")
    containers = lab.host(task["node"]).docker("ps", "--format", "{{.Names}}\t{{.Image}}\t{{.Command}}").out
    assert f"hello.1.{task['id']}\talpine:latest\t" in containers


def test_scaling_spreads_over_all_hosts(host1):
    done = host1.docker("service", "scale", "hello=5")
    assert "hello scaled to 5" in done.out
    eventually(lambda: len(running(host1, "hello")) == 5)
    assert {task["node"] for task in running(host1, "hello")} == {"host1", "host2", "host3"}


def test_scaling_down_keeps_the_lowest_count(host1, hosts):
    host1.docker("service", "scale", "hello=2")
    eventually(lambda: len(running(host1, "hello")) == 2)
    eventually(lambda: sum(len(task_containers(host, "hello")) for host in hosts) == 2)


def test_an_image_that_one_host_lacks_is_rejected_there_and_runs_elsewhere(host1, lab):
    lab.host("host3").engine("rmi", "-f", "partial:1", check=False)
    for name in ("host1", "host2"):
        lab.host(name).engine("tag", "alpine:latest", "partial:1")
    host1.docker(
        "service create --detach --name partial --replicas 6 --restart-delay 200ms --no-resolve-image "
        "partial:1 sleep 1d"
    )
    eventually(lambda: len(running(host1, "partial")) == 6, timeout=90)
    assert {task["node"] for task in running(host1, "partial")} == {"host1", "host2"}
    rejected = [task for task in tasks(host1, "partial") if task["current"].startswith("Rejected")]
    assert rejected and {task["node"] for task in rejected} == {"host3"}
    assert {task["error"].strip('"') for task in rejected} == {"No such image: partial:1"}
    shown = host1.docker("service", "ps", "partial").out
    assert re.search(r" \\_ partial\.\d ", shown), shown
    host1.docker("service", "rm", "partial")


def test_rm_removes_service_and_containers(host1, hosts):
    assert host1.docker("service", "rm", "hello").out.strip() == "hello"
    missing = host1.docker("service", "inspect", "hello", check=False)
    assert missing.code == 1
    assert missing.out.strip() == "[]"
    assert "no such service: hello" in missing.err
    eventually(lambda: not any(task_containers(host, "hello") for host in hosts))


# --- a rolling update ------------------------------------------------------------------------------------------------


def test_redis_is_created_with_an_update_delay(host1):
    host1.docker("service", "create", "--replicas", "3", "--name", "redis", "--update-delay", "10s", "redis:3.0.6")
    pretty = host1.docker("service", "inspect", "--pretty", "redis").out
    assert re.search(r"^ Delay:\s+10s$", pretty, re.M), pretty
    assert re.search(r"^ Image:\s+redis:3\.0\.6", pretty, re.M), pretty


def test_redis_is_updated_one_task_at_a_time(host1):
    host1.docker("service", "update", "--detach", "--image", "redis:3.0.7", "redis")
    eventually(
        lambda: host1.docker("service", "inspect", "redis").json[0].get("UpdateStatus", {}).get("State") == "updating"
    )
    images = lambda: sorted(task["image"] for task in running(host1, "redis"))  # noqa: E731
    eventually(lambda: images().count("redis:3.0.7") == 1)
    assert images().count("redis:3.0.6") == 2, "one task at a time"
    eventually(lambda: images() == ["redis:3.0.7"] * 3, timeout=90)
    eventually(
        lambda: host1.docker("service", "inspect", "redis").json[0]["UpdateStatus"]["State"] == "completed", timeout=60
    )
    shown = host1.docker("service", "ps", "redis").out
    assert re.search(r" \\_ redis\.1 +redis:3\.0\.6 +\S+ +Shutdown +Shutdown", shown), shown


def test_an_update_to_an_image_that_dies_is_paused(host1):
    host1.docker("service", "update", "--detach", "--image", "redis:broken", "redis")
    status = lambda: host1.docker("service", "inspect", "redis").json[0]["UpdateStatus"]  # noqa: E731
    eventually(lambda: status()["State"] == "paused", timeout=60)
    assert re.fullmatch(rf"update paused due to failure or early termination of task {ID}", status()["Message"])
    pretty = host1.docker("service", "inspect", "--pretty", "redis").out
    assert re.search(r"^ State:\s+paused$", pretty, re.M), pretty
    assert re.search(rf"^ Message:\s+update paused due to failure or early termination of task {ID}$", pretty, re.M), (
        pretty
    )
    assert [task["image"] for task in running(host1, "redis")].count("redis:3.0.7") >= 2


def test_a_good_update_recovers_it(host1):
    host1.docker("service", "update", "--detach", "--update-delay", "0s", "--image", "redis:3.0.6", "redis")
    eventually(lambda: [task["image"] for task in running(host1, "redis")] == ["redis:3.0.6"] * 3, timeout=90)
    eventually(
        lambda: host1.docker("service", "inspect", "redis").json[0]["UpdateStatus"]["State"] == "completed", timeout=60
    )


# --- drain -----------------------------------------------------------------------------------------------------------


def test_a_drained_node_loses_its_tasks(host1):
    assert host1.docker("node", "update", "--availability", "drain", "host2").out.strip() == "host2"
    eventually(lambda: [t["node"] for t in running(host1, "redis") if t["node"] != "host2"][2:])
    eventually(lambda: "host2" not in {task["node"] for task in running(host1, "redis")})
    pretty = host1.docker("node", "inspect", "--pretty", "host2").out
    assert re.search(r"^ Availability:\s+Drain$", pretty, re.M), pretty
    assert re.search(r"^ State:\s+Ready$", pretty, re.M), pretty


def test_an_active_node_gets_tasks_again(host1):
    host1.docker("node", "update", "--availability", "active", "host2")
    host1.docker("service", "scale", "--detach", "redis=6")
    eventually(
        lambda: "host2" in {task["node"] for task in running(host1, "redis")} and len(running(host1, "redis")) == 6
    )
    host1.docker("service", "rm", "redis")


# --- published ports -------------------------------------------------------------------------------------------------


def test_a_chosen_port_answers_on_every_host(host1, hosts):
    host1.docker("service", "create", "--name", "web", "--replicas", "2", "--publish", "8080:80", "whoami")
    for host in hosts:
        eventually(lambda host=host: http(host, 8080) is not None), f"{host.name} does not answer on 8080"
    answers = {http(host, 8080)["container"] for host in hosts for _ in range(10)}
    assert len(answers) == 2, "both tasks answer"
    assert "*:8080->80/tcp" in host1.docker("service", "ls").out


def test_the_mesh_follows_the_tasks(host1, hosts):
    host1.docker("service", "scale", "web=1")
    [task] = running(host1, "web")
    for host in hosts:
        eventually(lambda host=host: {http(host, 8080)["container"] for _ in range(5)} == {task_container(host1, task)})


def task_container(host1, task) -> str:
    [found] = host1.docker("inspect", "--type", "task", task["id"]).json
    return found["Status"]["ContainerStatus"]["ContainerID"]


def test_a_taken_port_is_refused_with_swarms_text(host1):
    refused = host1.docker(
        "service", "create", "--detach", "--name", "web2", "--publish", "8080:80", "whoami", check=False
    )
    assert refused.code == 1
    assert re.search(rf"port '8080' is already in use by service 'web' \({ID}\) as an ingress port", refused.err)
    assert "web2" not in host1.docker("service", "ls").out


def test_a_port_without_a_number_is_chosen_from_the_range(host1, hosts):
    host1.docker("service", "create", "--name", "any", "--publish", "80", "whoami")
    [port] = host1.docker("service", "inspect", "any").json[0]["Endpoint"]["Ports"]
    assert 30000 <= port["PublishedPort"] <= 32767
    for host in hosts:
        eventually(lambda host=host: http(host, port["PublishedPort"]) is not None)
    host1.docker("service", "rm", "any", "web")
    eventually(lambda: all(http(host, 8080) is None for host in hosts))


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--constraint", "node.role=manager", "alpine"], "constraint expected one operator from ==, !="),
        (["--name", "bad_name!", "alpine"], "name must be valid as a DNS name component"),
        (
            ["--publish", "80:80", "--endpoint-mode", "dnsrr", "alpine"],
            "port published with ingress mode can't be used with dnsrr mode",
        ),
        (["--limit-memory", "1m", "alpine"], "invalid memory value"),
        (["--network", "nowhere", "alpine"], "network nowhere not found"),
    ],
)
def test_bad_services_are_refused_and_leave_no_trace(host1, arguments, text):
    refused = host1.docker("service", "create", "--detach", *arguments, check=False)
    assert refused.code == 1
    assert text in refused.err, refused.err
    assert host1.docker("service", "ls", "-q").out == ""


def test_an_unknown_image_is_rejected_with_the_reason(host1):
    host1.docker(
        "service",
        "create",
        "--detach",
        "--name",
        "nope",
        "--restart-max-attempts",
        "2",
        "--restart-delay",
        "100ms",
        "no-such-thing:1",
    )
    eventually(lambda: any("No such image: no-such-thing:1" in task["error"] for task in tasks(host1, "nope")))
    host1.docker("service", "rm", "nope")


# --- the engine behind -----------------------------------------------------------------------------------------------


def test_everything_else_passes_through_to_the_engine(host1, tmp_path):
    assert host1.docker("run", "--rm", "alpine", "echo", "through").out == "through"
    host1.docker("run", "-d", "--name", "plain", "alpine", "sleep", "1d")
    try:
        assert host1.docker("exec", "plain", "echo", "inside").out == "inside"
        assert host1.docker("exec", "-i", "plain", "cat", stdin="typed\n").out == "typed"
        host1.docker("run", "-d", "--name", "ends", "alpine", "sh", "-c", "echo first; sleep 1; echo second")
        followed = host1.docker("logs", "-f", "ends").out
        assert followed == "first\nsecond"
    finally:
        host1.docker("rm", "-f", "plain", "ends")
    assert "alpine" in host1.docker("images").out
    (tmp_path / "Dockerfile").write_text("FROM alpine\nLABEL built=here\nRUN true\n")
    host1.docker("build", "-q", "-t", "built:1", str(tmp_path))
    assert host1.docker("image", "inspect", "built:1").json[0]["Config"]["Labels"] == {"built": "here"}


def test_leaving(host1, hosts):
    assert hosts[2].docker("swarm", "leave").out.strip() == "Node left the swarm."
    refused = host1.docker("swarm", "leave", check=False)
    assert refused.code == 1 and "Use `--force` to ignore this message." in refused.err
    host1.docker("swarm", "leave", "--force")
    assert "Swarm: inactive" in host1.docker("info").out
