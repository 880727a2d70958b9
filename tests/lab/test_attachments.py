"""Plain containers on the cluster's attachable networks: `docker run --network`, `docker network connect`."""

from __future__ import annotations

import json

import pytest

from tests.lab.clusterkit import cluster, running, with_agents
from tests.lab.labkit import Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    """A manager and two workers, an attachable network `open` and another, `closed`, each with a service on it."""

    first = cluster(with_agents(lab))
    first.docker("network create --driver overlay --attachable open")
    first.docker("network create --driver overlay closed")
    first.docker("service create --detach --name web --network open --replicas 2 whoami")
    eventually(lambda: len(running(first, "web")) == 2)
    yield list(lab)
    for host in lab:
        names = [
            n
            for n in host.engine("ps -a --format {{.Names}}").lines
            if n in ("one", "two", "three", "joiner", "chosen")
        ]
        if names:
            host.engine("rm", "-f", *names)


def run(host: Host, name: str, *options: str) -> str:
    return host.docker("run", "-d", "--name", name, "--network", "open", *options, "alpine", "sleep", "1d").out


def address(host: Host, name: str) -> str:
    form = '{{(index .NetworkSettings.Networks "open").IPAddress}}'
    return host.docker("container", "inspect", "--format", form, name).out


def places(first: Host) -> list[str]:
    """The addresses that attachments hold."""
    listed = first.exec(
        'curl -sg --unix-socket /run/swarm-agent/docker.sock \'http://x/tasks?filters={"runtime":["attachment"]}\''
    ).out

    return [one for task in json.loads(listed) for net in task["NetworksAttachments"] for one in net["Addresses"]]


def test_containers_on_any_host_reach_each_other_and_services(hosts):
    first, second, third = hosts
    run(first, "one")
    run(second, "two", "--network-alias", "pair")
    run(third, "three")
    addresses = {name: address(host, name) for name, host in zip(("one", "two", "three"), hosts, strict=True)}
    assert len(set(addresses.values())) == 3
    for host, name in ((first, "one"), (third, "three")):
        eventually(lambda host=host, name=name: host.docker("exec", name, "ping", "-c1", "-W1", addresses["two"]).out)
        eventually(lambda host=host, name=name: host.docker("exec", name, "ping", "-c1", "-W1", "two").out)
        eventually(lambda host=host, name=name: host.docker("exec", name, "ping", "-c1", "-W1", "pair").out)
        assert eventually(lambda host=host, name=name: host.docker("exec", name, "wget", "-qO-", "http://web").out)


def test_a_container_may_ask_for_an_address(hosts):
    first, second, _ = hosts
    wanted = address(second, "two").rpartition(".")[0] + ".77"
    run(first, "chosen", "--ip", wanted)
    assert address(first, "chosen") == wanted
    eventually(lambda: second.docker("exec", "two", "ping", "-c1", "-W1", "chosen").out)
    taken = second.docker("run", "--rm", "--network", "open", "--ip", wanted, "alpine", "true", check=False)
    assert f"cannot have address {wanted} on network open: it is in use" in taken.err
    outside = second.docker("run --rm --network open --ip 192.0.2.9 alpine true", check=False)
    assert "the network has no such address to give" in outside.err
    first.docker("rm -f chosen")
    eventually(lambda: f"{wanted}/24" not in places(first))


def test_tasks_reach_plain_containers_by_name(hosts):
    task = running(hosts[0], "web")[0]["id"]
    look = ("exec", task, "python3", "-c", "import socket; print(socket.gethostbyname('three'))")
    assert eventually(lambda: hosts[0].docker(*look, check=False).out) == address(hosts[2], "three")


def test_the_place_lasts_while_the_container_does(hosts):
    first, second, _ = hosts
    before = address(second, "two")
    assert len(places(first)) == 3
    second.docker("restart -t 0 two")
    assert address(second, "two") == before
    eventually(lambda: first.docker("exec", "one", "ping", "-c1", "-W1", "two").out)
    second.exec("systemctl restart swarm-agent")
    eventually(lambda: "Swarm: active" in second.docker("info", check=False).out)
    eventually(lambda: first.docker("exec", "one", "ping", "-c1", "-W1", "two").out)
    refused = first.docker("network rm open", check=False)
    assert "in use by" in refused.err
    second.docker("rm -f two")
    eventually(lambda: len(places(first)) == 2)
    lookup = ("exec", "one", "nslookup", "two")
    eventually(lambda: before not in first.docker(*lookup, check=False).out)


def test_connecting_and_disconnecting_a_running_container(hosts):
    first, second, _ = hosts
    second.docker("run -d --name joiner alpine sleep 1d")
    second.docker("network connect --alias late open joiner")
    eventually(lambda: first.docker("exec", "one", "ping", "-c1", "-W1", "late").out)
    held = len(places(first))
    second.docker("network disconnect open joiner")
    eventually(lambda: len(places(first)) == held - 1)
    second.docker("rm -f joiner")


def test_a_network_that_is_not_attachable_is_refused(hosts):
    for host in hosts:
        refused = host.docker("run --rm --network closed alpine true", check=False)
        assert refused.code == 125
        assert "network closed not manually attachable" in refused.err
    held = len(places(hosts[0]))
    missing = hosts[0].docker("run --rm --network nowhere alpine true", check=False)
    assert "network nowhere not found" in missing.err
    unknown = hosts[0].docker("create --network open nosuchimage", check=False)
    assert unknown.code != 0
    assert len(places(hosts[0])) == held


def test_nothing_is_left_when_the_containers_are_gone(hosts):
    hosts[0].docker("rm -f one")
    hosts[2].docker("rm -f three")
    eventually(lambda: places(hosts[0]) == [])
    hosts[0].docker("service rm web")
    eventually(lambda: hosts[0].docker("network rm open", check=False).code == 0)
