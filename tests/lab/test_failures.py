"""What must heal by itself: a task, an agent, an engine, a host, and the only manager, each lost without warning."""

from __future__ import annotations

import pytest

from tests.lab.clusterkit import cluster, http, nodes, outside, running, task_containers, tasks, with_agents
from tests.lab.labkit import Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

CTL = "/opt/swarm-agent/current/bin/swarmctl"
PORT = 8090
REPLICAS = 4


@pytest.fixture(scope="module")
def host1(lab: Lab) -> Host:
    """The manager of a cluster that runs `web` (four tasks, published) on three hosts."""
    first = cluster(with_agents(lab))
    first.docker(
        f"service create --name web --replicas {REPLICAS} --restart-delay 0s --publish {PORT}:80 whoami", timeout=120
    )
    yield first
    lab.restore()
    eventually(lambda: all("Swarm:" in host.docker("info", check=False).out for host in lab))
    outside(lab)


def all_run(host1: Host) -> bool:
    return len(running(host1, "web")) == REPLICAS


def all_answer(lab: Lab) -> bool:
    return all(http(host, PORT) is not None for host in lab if host.state == "running")


def containers(lab: Lab) -> set[str]:
    """Ids of all running containers of `web`, from the engines."""
    found = set()
    for host in lab:
        found.update(host.engine("ps", "-q", "--no-trunc", "--filter", "label=com.docker.swarm.service.name=web").lines)
    return found


def test_a_killed_process_is_replaced_in_its_slot(lab, host1):
    eventually(lambda: all_run(host1))
    victim = running(host1, "web")[0]
    host = lab.host(victim["node"])
    [name] = [name for name in task_containers(host, "web") if victim["id"] in name]
    pid = host.engine("inspect", "--format", "{{.State.Pid}}", name).out
    host.exec(f"kill -9 {pid}")

    def replaced() -> bool:
        present = running(host1, "web")  # one look: two could see the slot before and after the failure
        return len(present) == REPLICAS and victim["id"] not in {task["id"] for task in present}

    eventually(replaced)
    old = next(task for task in tasks(host1, "web") if task["id"] == victim["id"])
    assert old["current"].startswith("Failed") and old["error"].strip('"') == "task: non-zero exit (137)"
    assert victim["name"] in {task["name"] for task in running(host1, "web")}


@pytest.mark.parametrize("name", ["host2", "host1"])
def test_containers_survive_a_killed_agent(lab, host1, name):
    eventually(lambda: all_run(host1))
    before = containers(lab)
    host = lab.host(name)
    pid = host.exec("systemctl show --property MainPID --value swarm-agent").out
    host.exec(f"kill -9 {pid}")
    eventually(lambda: host.exec("systemctl show --property MainPID --value swarm-agent").out not in (pid, "0"))
    eventually(lambda: "Swarm: active" in host.docker("info", check=False).out)
    eventually(lambda: {node["Status"] for node in nodes(host1)} == {"Ready"} and all_run(host1))
    assert containers(lab) == before
    eventually(lambda: all_answer(lab))


def test_containers_survive_a_killed_engine(lab, host1):
    eventually(lambda: all_run(host1))
    before = containers(lab)
    host = lab.host("host2")
    pid = host.exec("systemctl show --property MainPID --value docker").out
    host.exec(f"kill -9 {pid}")
    eventually(lambda: host.exec("systemctl show --property MainPID --value docker").out not in (pid, "0"))
    eventually(lambda: host.engine("ps", check=False).code == 0 and all_run(host1))
    assert containers(lab) == before
    eventually(lambda: all_answer(lab))


def test_tasks_of_a_host_without_power_run_elsewhere_and_it_comes_back_clean(lab, host1):
    eventually(lambda: all_run(host1))
    lab.host("host3").kill()
    eventually(lambda: {n["Hostname"]: n["Status"] for n in nodes(host1)}["host3"] == "Down")
    eventually(lambda: len([task for task in running(host1, "web") if task["node"] != "host3"]) == REPLICAS)
    eventually(lambda: all_answer(lab))
    lab.host("host3").start()
    eventually(lambda: {n["Hostname"]: n["Status"] for n in nodes(host1)}["host3"] == "Ready", timeout=60)
    eventually(lambda: not task_containers(lab.host("host3"), "web"))
    eventually(lambda: all_answer(lab))
    assert all_run(host1)


def state_of(host1: Host, name: str) -> str:
    return {node["Hostname"]: node["Status"] for node in nodes(host1)}[name]


def metric(host: Host, name: str) -> float:
    """One value of the host's agent."""
    text = host.exec("curl -s --unix-socket /run/swarm-agent/docker.sock http://agent/swarm-agent/metrics").out
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.rpartition(" ")[0] == name)


def test_members_and_metrics_tell_what_is_so(lab, host1):
    eventually(lambda: all_run(host1))
    shown = host1.exec(f"COLUMNS=250 {CTL} members").out
    for host in lab:
        assert f"{host.address}:7946" in shown and host.name in shown
    assert shown.count("alive") == len(lab.hosts)
    task = running(host1, "web")[0]
    [state, row] = host1.exec(f"{CTL} members --explain {task['id']}").lines
    assert f"Task {task['id']} is running on node" in state and "is visible" in row
    assert metric(host1, 'swarm_gossip_members{state="alive"}') == 2
    assert metric(host1, "swarm_raft_leads") == 1 and metric(host1, 'swarm_tasks{state="running"}') >= REPLICAS
    worker = host1.docker("node inspect host2 --format {{.ID}}").out
    assert f"{worker} is this node" in lab.host("host2").exec(f"{CTL} members --explain {worker[:9]}").out


def test_a_slow_host_is_not_declared_dead(lab, host1):
    """Its agent stands still for half a second, again and again, as on a starved machine."""
    eventually(lambda: all_run(host1))
    deaths = [metric(lab.host(name), "swarm_gossip_deaths_total") for name in ("host1", "host3")]
    slow = lab.host("host2")
    pid = slow.exec("systemctl show --property MainPID --value swarm-agent").out
    before = metric(slow, "swarm_gossip_pauses_total")
    slow.exec(f"for i in 1 2 3 4 5 6; do kill -STOP {pid}; sleep 0.5; kill -CONT {pid}; sleep 0.3; done")
    assert metric(slow, "swarm_gossip_pauses_total") > before, "it knows that it stood still"
    assert state_of(host1, "host2") == "Ready" and all_run(host1)
    assert [metric(lab.host(name), "swarm_gossip_deaths_total") for name in ("host1", "host3")] == deaths


def test_a_frozen_host_is_noticed_though_its_connections_live(lab, host1):
    """No connection closes and its kernel acknowledges: Swarm takes such a host for well until its heartbeats' end."""
    host1.docker("service scale --detach web=6")
    eventually(lambda: "host2" in {task["node"] for task in running(host1, "web")}, timeout=60)
    lost = next(task for task in running(host1, "web") if task["node"] == "host2")
    victim = lab.host("host2")
    victim.freeze()
    eventually(lambda: state_of(host1, "host2") == "Down")
    assert "is dead" in host1.exec(f"{CTL} members --explain host2").out
    eventually(lambda: len([t for t in running(host1, "web") if t["node"] != "host2"]) == 6, timeout=60)
    assert "is hidden" in host1.exec(f"{CTL} members --explain {lost['id']}").out
    victim.thaw()
    eventually(lambda: state_of(host1, "host2") == "Ready", timeout=60)
    eventually(lambda: not any(lost["id"] in name for name in task_containers(victim, "web")), timeout=60)
    host1.docker(f"service scale --detach web={REPLICAS}")
    eventually(lambda: sum(len(task_containers(host, "web")) for host in lab) == REPLICAS, timeout=60)
    eventually(lambda: all_run(host1) and all_answer(lab))


def test_a_host_cut_off_and_healed_gives_up_what_runs_elsewhere_now(lab, host1):
    host1.docker("service scale --detach web=6")
    eventually(lambda: "host3" in {task["node"] for task in running(host1, "web")})
    lab.cut("host3")
    eventually(lambda: {n["Hostname"]: n["Status"] for n in nodes(host1)}["host3"] == "Down")
    eventually(lambda: len([t for t in running(host1, "web") if t["node"] != "host3"]) == 6)
    lab.heal()
    eventually(lambda: {n["Hostname"]: n["Status"] for n in nodes(host1)}["host3"] == "Ready", timeout=60)
    eventually(lambda: sum(len(task_containers(host, "web")) for host in lab) == 6)
    host1.docker(f"service scale --detach web={REPLICAS}")
    eventually(lambda: sum(len(task_containers(host, "web")) for host in lab) == REPLICAS)
    eventually(lambda: all_answer(lab))


def test_nothing_declared_is_lost_when_the_only_manager_loses_power(lab, host1):
    host1.docker("node update --label-add zone=a host2")
    declared = host1.docker("service inspect web").json[0]
    elsewhere = {t["id"] for t in running(host1, "web") if t["node"] != "host1"}
    host1.kill()
    # The others go on without it; first they have to notice which tasks are gone with it.
    eventually(lambda: not elsewhere or all_answer(lab))
    host1.start()
    eventually(lambda: host1.docker("info", check=False).out.count("Swarm: active") == 1, timeout=60)
    eventually(lambda: {node["Status"] for node in nodes(host1)} == {"Ready"}, timeout=60)
    found = host1.docker("service inspect web").json[0]
    assert (found["ID"], found["Spec"]) == (declared["ID"], declared["Spec"])
    assert host1.docker("node inspect host2").json[0]["Spec"]["Labels"] == {"zone": "a"}
    eventually(lambda: all_run(host1), timeout=60)
    assert elsewhere <= {task["id"] for task in running(host1, "web")}, "what ran on the others still does"
    eventually(lambda: all_answer(lab))
