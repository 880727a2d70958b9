"""Names of services and tasks, asked for from inside containers on three hosts."""

from __future__ import annotations

import json

import pytest

from tests.lab.clusterkit import cluster, outside, running, task_containers, with_agents
from tests.lab.labkit import Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

LOOK_UP = """
import json, socket, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = sorted({entry[4][0] for entry in socket.getaddrinfo(name, 80, socket.AF_INET)})
    except OSError as error:
        found[name] = error.args[0]
print(json.dumps(found))
"""
REVERSE = "import socket, sys; print(socket.gethostbyaddr(sys.argv[1])[0])"
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=3).read().decode())"


def python(host: Host, service: str, code: str, *arguments: str) -> str:
    """Run Python in the service's container on a host."""
    [container] = task_containers(host, service)
    return host.engine("exec", container, "python3", "-c", code, *arguments).out


def look_up(host: Host, service: str, *names: str) -> dict[str, list[str] | int]:
    """What a container of the service on a host gets for names: addresses, or getaddrinfo's error."""
    return json.loads(python(host, service, LOOK_UP, *names))


@pytest.fixture(scope="module")
def host1(lab: Lab) -> Host:
    """A cluster with networks front and back: `web` on front, `db` on back, `both` on both, a task per host each."""
    first = cluster(with_agents(lab))
    for network in ("front", "back"):
        first.docker("network", "create", "--driver", "overlay", "--attachable", network)
    for name, *options in (
        ("web", "--network", "name=front,alias=www"),
        ("db", "--network", "back", "--endpoint-mode", "dnsrr"),
        ("both", "--network", "front", "--network", "back", "--hostname", "both-{{.Node.Hostname}}"),
    ):
        first.docker("service", "create", "--name", name, "--mode", "global", *options, "whoami", timeout=120)
    yield first
    lab.restore()
    eventually(lambda: all("Swarm:" in host.docker("info", check=False).out for host in lab))
    outside(lab)
    for network in ("front", "back"):
        first.docker("network", "rm", network, check=False)


def addresses(host1: Host, service: str, network: str) -> list[str]:
    """The addresses of a service's running tasks on a network, as the managers know them."""
    found = []
    for task in running(host1, service):
        [details] = host1.docker("inspect", "--type", "task", task["id"]).json
        found += [
            address.partition("/")[0]
            for attachment in details["NetworksAttachments"]
            if attachment["Network"]["Spec"]["Name"] == network
            for address in attachment["Addresses"]
        ]
    return sorted(found)


def vip(host1: Host, service: str, network: str) -> str:
    [network_id] = [one["Id"] for one in host1.docker("network", "inspect", network).json]
    [details] = host1.docker("service", "inspect", service).json
    [found] = [one["Addr"] for one in details["Endpoint"]["VirtualIPs"] if one["NetworkID"] == network_id]
    return found.partition("/")[0]


def test_services_aliases_and_tasks_have_names_on_every_host(lab, host1):
    virtual, tasks = vip(host1, "web", "front"), addresses(host1, "web", "front")
    assert len(tasks) == 3
    expected = {
        "web": [virtual], "www": [virtual], "web.front": [virtual], "tasks.web": tasks, "tasks.www.front": tasks
    }  # fmt: skip
    for host in lab:
        eventually(lambda host=host: look_up(host, "web", *expected) == expected)


def test_without_a_vip_the_name_is_all_tasks(lab, host1):
    tasks = addresses(host1, "db", "back")
    for host in lab:
        eventually(lambda host=host: look_up(host, "db", "db", "tasks.db") == {"db": tasks, "tasks.db": tasks})


def test_a_task_of_another_host_answers_by_name_hostname_and_pointer(lab, host1):
    here, there = lab.host("host1"), lab.host("host3")
    [container] = task_containers(there, "web")
    short = there.engine("inspect", "--format", "{{.Id}}", container).out[:12]
    found = look_up(here, "web", container, short, f"{container}.front")
    [address] = found[container]
    assert found == {name: [address] for name in found} and address in addresses(host1, "web", "front")
    assert python(here, "web", REVERSE, address) == f"{container}.front"
    assert look_up(here, "web", "both-host3")["both-host3"][0] in addresses(host1, "both", "front")


def test_requests_by_name_reach_every_task(lab, host1):
    def answers() -> set[str]:
        return {json.loads(python(lab.host("host2"), "both", FETCH, "http://web/"))["container"] for _ in range(6)}

    eventually(lambda: len(answers()) > 1)


def test_names_stay_on_their_networks(lab, host1):
    for host in lab:
        found = look_up(host, "web", "db", "db.back", "tasks.db")
        assert all(isinstance(one, int) for one in found.values()), found
        assert look_up(host, "both", "db", "web") == {
            "db": addresses(host1, "db", "back"),
            "web": [vip(host1, "web", "front")],
        }


def test_a_task_that_ends_leaves_its_service(lab, host1):
    host1.docker("service create --name short --network front --replicas 3 whoami", timeout=120)
    eventually(lambda: len(look_up(host1, "web", "tasks.short")["tasks.short"]) == 3)
    host1.docker("service scale --detach short=1")
    eventually(lambda: look_up(host1, "web", "tasks.short")["tasks.short"] == addresses(host1, "short", "front"))
    host1.docker("service rm short")
    eventually(lambda: isinstance(look_up(host1, "web", "short")["short"], int))


def test_the_host_itself_asks_with_swarmctl(lab, host1):
    for host in lab:
        shown = host.exec("/opt/swarm-agent/current/bin/swarmctl dns web").lines
        assert shown[1].split() == ["web.front", "A", shown[1].split()[2], vip(host1, "web", "front")]


def test_names_are_back_after_agent_bridge_and_engine_were_gone(lab, host1):
    host, expected = lab.host("host2"), {"web": [vip(host1, "web", "front")]}
    host.exec("systemctl restart swarm-agent")
    eventually(lambda: look_up(host, "web", "web") == expected)
    host.exec("systemctl restart docker", timeout=120)
    eventually(lambda: look_up(host, "web", "web") == expected)
    [network_id] = [one["Id"] for one in host1.docker("network inspect front").json]
    bridge = f"swb-{network_id[:11]}"
    host.exec(f"ip address flush dev {bridge}")
    eventually(lambda: look_up(host, "web", "web") == expected)


def test_a_name_of_nobody_fails_soon(lab, host1):
    """Askers give up after 5 s; the host's resolvers, if any, may be silent in the lab."""
    assert isinstance(look_up(host1, "web", "nobody.invalid")["nobody.invalid"], int)
