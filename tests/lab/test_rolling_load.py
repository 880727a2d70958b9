"""No request is lost: load from outside and from a container, while the tasks behind the port and the VIP come and go.

Every request counts (load.py): refused, reset, cut short or silent is a failure, and none is allowed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab.clusterkit import cluster, nodes, outside, running, task_containers, with_agents
from tests.lab.labkit import ROOT, Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

PORT = 8095
LOAD = ROOT / "tests" / "lab" / "load.py"
REPLICAS = 6


@pytest.fixture(scope="module")
def host1(lab: Lab) -> Iterator[Host]:
    """`web` (six tasks, a port and a VIP) and `asker`, a container on host2 on the same network."""
    first = cluster(with_agents(lab))
    first.docker("network create --driver overlay --attachable front")
    first.docker(
        f"service create --name web --replicas {REPLICAS} --network front --publish {PORT}:80 --update-parallelism 2 "
        "--update-monitor 200ms --restart-delay 0s whoami",
        timeout=120,
    )
    # A plain container, which no manager moves. The resolvers of the lab's hosts have a time-out of 1 s; outside of it
    # the 5 s below are usual.
    lab.host("host2").docker(
        "run -d --name asker --network front --dns-option timeout:5 --dns-option attempts:2 whoami sleep 1d"
    )
    yield first
    lab.restore()
    lab.host("host2").docker("rm -f asker", check=False)
    eventually(lambda: all("Swarm:" in host.docker("info", check=False).out for host in lab))
    outside(lab)
    first.docker("network", "rm", "front", check=False)


@contextmanager
def load(lab: Lab, *, keep_alive: bool) -> Iterator[list[dict[str, Any]]]:
    """Both loads while the block runs; the list has what the one from outside and the one inside found, afterwards."""
    options = ["--keep-alive"] if keep_alive else []
    outer = [f"http://{host.address}:{PORT}/{host.name}" for host in lab]
    inside = ["docker", "--host", f"unix://{lab.host('host2').socket('engine.sock')}", "exec", "-i", "asker"]
    commands = (
        [sys.executable, str(LOAD), "--connections", "2", *options, *outer],
        [*inside, "python3", "-c", LOAD.read_text(), *options, "http://web/vip"],
    )
    clients = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for command in commands
    ]
    found: list[dict[str, Any]] = []
    try:
        for client in clients:
            assert client.stdout is not None and client.stdout.readline() == "started\n"
        yield found
        for client in clients:
            found.append(json.loads(client.communicate(timeout=30)[0]))
    finally:
        for client in clients:
            client.kill()
            client.wait()


def assert_nothing_lost(found: list[dict[str, Any]]) -> None:
    outer, inner = found
    assert (outer["failed"], inner["failed"]) == ({}, {}), (outer["first_failures"], inner["first_failures"])
    assert outer["answered"] > 50 and inner["answered"] > 50


def settled(host1: Host, replicas: int = REPLICAS) -> bool:
    state = host1.docker("service inspect web").json[0].get("UpdateStatus", {}).get("State", "completed")
    return state == "completed" and len(running(host1, "web")) == replicas


@pytest.mark.parametrize(
    ("order", "keep_alive"), [("stop-first", False), ("start-first", False), ("start-first", True)]
)
def test_a_rolling_update_loses_no_request(lab: Lab, host1: Host, order: str, keep_alive: bool) -> None:
    eventually(lambda: settled(host1))
    before = {task["id"] for task in running(host1, "web")}
    with load(lab, keep_alive=keep_alive) as found:
        host1.docker(f"service update --force --update-order {order} web", timeout=120)
    assert not before & {task["id"] for task in running(host1, "web")}, "every task was replaced"
    assert_nothing_lost(found)


def test_servers_that_end_at_once_lose_nothing(lab: Lab, host1: Host) -> None:
    """Their connections end before the signal comes."""
    host1.docker("service update --env-add STOP=at-once --update-order start-first web", timeout=120)
    with load(lab, keep_alive=False) as found:
        host1.docker("service update --force --update-order stop-first web", timeout=120)
        host1.docker("service scale web=3", timeout=120)
    host1.docker(f"service scale web={REPLICAS}", timeout=120)
    assert_nothing_lost(found)


def test_scaling_and_draining_lose_no_request(lab: Lab, host1: Host) -> None:
    eventually(lambda: settled(host1), timeout=60)
    with load(lab, keep_alive=False) as found:
        host1.docker("service scale web=3", timeout=120)
        host1.docker(f"service scale web={REPLICAS}", timeout=120)
        host1.docker("node update --availability drain host3")
        eventually(lambda: "host3" not in {task["node"] for task in running(host1, "web")} and settled(host1))
        eventually(lambda: not task_containers(lab.host("host3"), "web"))
    host1.docker("node update --availability active host3")
    assert_nothing_lost(found)


def test_restarts_of_agents_lose_no_request(lab: Lab, host1: Host) -> None:
    """Packets do not need the agent, and names are asked of the next host's."""
    with load(lab, keep_alive=False) as found:
        for host in lab:
            host.exec("systemctl restart swarm-agent")
            eventually(lambda: {node["Status"] for node in nodes(host1)} == {"Ready"} and settled(host1), timeout=60)
    assert_nothing_lost(found)
