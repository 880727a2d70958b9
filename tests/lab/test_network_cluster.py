"""A cluster's networks as its users meet them: three hosts, real containers, clients outside, inside and on hosts."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.clusterkit import cluster, http, outside, running, task_containers, tasks, with_agents
from tests.lab.labkit import Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

WEB, MOVED, BOTH, OWN, EDGE = 8097, 8101, 8099, 8100, 8102
ASK = """
import json, sys, urllib.request
url, size = sys.argv[1], int(sys.argv[2])
with urllib.request.urlopen(url, data=bytes(size) if size else None, timeout=10) as answer:
    told = json.load(answer)
print(json.dumps({key: told[key] for key in ("container", "peer", "received")}))
"""


@pytest.fixture(scope="module")
def host1(lab: Lab) -> Iterator[Host]:
    """`web`: a task on every host, on `front`, with a port for TCP and UDP. `both`: a task on host3, on `front` and on
    `inner`, which is internal, with a port for TCP and UDP."""
    first = cluster(with_agents(lab))
    first.docker("network create --driver overlay front")
    first.docker("network create --driver overlay --internal inner")
    for name, port, *options in (
        ("web", WEB, "--mode", "global"),
        ("both", BOTH, "--network", "inner", "--constraint", "node.hostname==host3"),
    ):
        ports = ["--publish", f"{port}:80", "--publish", f"{port}:80/udp"]
        first.docker("service", "create", "--name", name, *options, "--network", "front", *ports, "whoami", timeout=120)
    yield first
    lab.restore()
    outside(lab)
    for network in ("front", "inner"):
        first.docker("network", "rm", network, check=False)


def datagram(host: Host, port: int) -> Any:
    """What a `whoami` says to a datagram. The socket hears nobody but the one it asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(3)
        asking.connect((host.address, port))
        asking.send(b"who?")
        return json.loads(asking.recv(65535))


def ask(host: Host, service: str, url: str, size: int = 0) -> dict[str, Any]:
    """Ask (POST `size` bytes to) a `whoami` from within a service's container on a host."""
    [container] = task_containers(host, service)
    return json.loads(host.engine("exec", container, "python3", "-c", ASK, url, str(size)).out)


def test_tcp_and_udp_bring_the_clients_address_on_every_host(lab: Lab, host1: Host) -> None:
    for host in lab:
        for port in (WEB, BOTH):
            for answer in (
                eventually(lambda h=host, p=port: http(h, p)),
                eventually(lambda h=host, p=port: datagram(h, p)),
            ):
                assert answer["peer"]["address"] == lab.machine_address, f"{host.name}:{port}"


def test_a_task_reaches_itself_through_its_vip_and_its_port(lab: Lab, host1: Host) -> None:
    host = lab.host("host3")
    [container] = task_containers(host, "both")
    own = host.engine("inspect", "--format", "{{.Id}}", container).out
    for url in ("http://both/", f"http://{host.address}:{BOTH}/", f"http://{host1.address}:{BOTH}/"):
        assert ask(host, "both", url)["container"] == own, url


def test_large_payloads_pass_overlay_vip_and_mesh(lab: Lab, host1: Host) -> None:
    size = 3_000_000
    there = (
        lab.host("host3").engine("inspect", "--format", "{{.Id}}", task_containers(lab.host("host3"), "both")[0]).out
    )
    for url in ("http://both/", "http://tasks.both/", f"http://{lab.host('host2').address}:{BOTH}/"):
        answer = ask(host1, "web", url, size)
        assert (answer["container"], answer["received"]) == (there, size), url


def test_an_internal_network_leads_to_its_own_tasks_alone(lab: Lab, host1: Host) -> None:
    first, second = lab.host("host1"), lab.host("host2")
    for host in (first, second):
        options = ["--network", "inner", "--constraint", f"node.hostname=={host.name}"]
        host1.docker("service", "create", "--name", f"hidden-{host.name}", *options, "whoami", timeout=120)
    try:
        eventually(lambda: ask(first, "hidden-host1", "http://hidden-host2/"))
        [container] = task_containers(first, "hidden-host1")
        for address in (lab.machine_address, second.address):
            reached = first.engine("exec", container, "ping", "-c", "1", "-W", "1", address, check=False)
            assert reached.code != 0, f"{address}: {reached}"
    finally:
        host1.docker("service rm hidden-host1 hidden-host2")


def test_an_encrypted_network_is_refused_where_no_kernel_can(host1: Host) -> None:
    if host1.exec("ip link add swtry type wireguard", check=False).code == 0:
        host1.exec("ip link del swtry")
        pytest.skip("this kernel has WireGuard; test_sealed_network.py uses it")
    refused = host1.docker("network create --driver overlay --opt encrypted sealed", check=False)
    assert refused.code == 1
    assert "network sealed: encrypted networks need hosts with WireGuard in their kernel, and no node" in refused.err
    assert "sealed" not in host1.docker("network ls --format {{.Name}}").out.split()


def test_host_mode_is_the_tasks_own_host_alone_and_its_port_is_taken_once(lab: Lab, host1: Host) -> None:
    publish = ["--publish", f"mode=host,published={OWN},target=80"]
    there = ["--constraint", "node.hostname==host2"]
    host1.docker("service", "create", "--name", "own", *publish, *there, "whoami", timeout=120)
    try:
        answer = eventually(lambda: http(lab.host("host2"), OWN))
        assert answer["peer"]["address"] == lab.machine_address
        assert [host.name for host in lab if http(host, OWN)] == ["host2"]
        host1.docker("service", "create", "--detach", "--name", "second", *publish, *there, "whoami")
        eventually(
            lambda: (
                "no suitable node" in tasks(host1, "second")[0]["error"]
                and "host-mode port already in use on 1 node" in tasks(host1, "second")[0]["error"]
            )
        )
    finally:
        host1.docker("service rm own second", check=False)


def test_a_published_port_changes_during_an_update(lab: Lab, host1: Host) -> None:
    change = ["--publish-rm", f"{WEB}:80", "--publish-add", f"published={MOVED},target=80"]
    host1.docker("service", "update", *change, "--update-monitor", "100ms", "web", timeout=120)
    eventually(lambda: all(http(host, MOVED) for host in lab) and not any(http(host, WEB) for host in lab))
    host1.docker("service create --name next --replicas 1 --detach whoami")
    host1.docker("service", "update", "--detach", "--publish-add", f"{WEB}:80", "next")  # the port is free again
    eventually(lambda: all(http(host, WEB) for host in lab))
    host1.docker("service rm next")


def test_what_others_destroy_is_put_back_and_told(lab: Lab, host1: Host) -> None:
    [network] = host1.docker("network inspect front").json
    vxlan = f"swv-{network['Id'][:11]}"
    host = lab.host("host2")
    accidents = {
        "iptables -t nat -F; iptables -t mangle -F; iptables -F": "Restore",
        "ip link del swmesh": "AddLink",
        f"ip neigh flush dev {vxlan} nud permanent": "SetNeighbour",
        f"bridge fdb show dev {vxlan} | grep -o '^[0-9a-f:]* dst [0-9.]*' | while read mac dst ip; do "
        f"bridge fdb del $mac dev {vxlan} dst $ip; done": "SetFdb",
        f"ip link del {vxlan}": "AddLink",
    }
    eventually(lambda: all(http(one, BOTH) for one in lab))
    for accident, told in accidents.items():
        mark = (
            host.exec("journalctl -u swarm-agent -n 1 --show-cursor --no-pager -o cat")
            .lines[-1]
            .removeprefix("-- cursor: ")
        )
        host.exec(accident)

        def repaired(mark: str = mark, told: str = told) -> bool:
            log = host.exec(
                "journalctl", "-u", "swarm-agent", "--no-pager", "-o", "cat", f"--after-cursor={mark}"
            ).lines
            return any("the data plane had been changed by others; put back:" in line and told in line for line in log)

        eventually(repaired)
        eventually(lambda: http(host, BOTH) and ask(host, "web", "http://both/"))
    assert len(running(host1, "web")) == 3, "no task was lost over it"


def test_a_port_may_be_bound_to_nodes_by_label_and_follows_it(lab: Lab, host1: Host) -> None:
    host1.docker("node", "update", "--label-add", "edge=true", "host2")
    condition = "swarm.publish.nodes=node.labels.edge==true"
    host1.docker(
        "service", "create", "--name", "edge", "--label", condition, "--publish", f"{EDGE}:80", "whoami", timeout=120
    )
    try:
        for open_on in ("host2", "host3"):
            host1.docker("node", "update", "--label-add", "edge=true", open_on)
            eventually(lambda name=open_on: http(lab.host(name), EDGE))
            for host in lab:
                if host.name != open_on:
                    eventually(lambda h=host: refuses(h, EDGE))
            host1.docker("node", "update", "--label-rm", "edge", open_on)
            eventually(lambda name=open_on: refuses(lab.host(name), EDGE))
        wrong = host1.docker("service", "update", "--label-add", "swarm.publish.nodes=edge", "edge", check=False)
        assert "'edge' is no condition on nodes" in wrong.err
    finally:
        host1.docker("service", "rm", "edge")


def refuses(host: Host, port: int) -> bool:
    with socket.socket() as asking:
        asking.settimeout(3)
        return asking.connect_ex((host.address, port)) == errno.ECONNREFUSED


RESOLVE = """
import socket, sys
kind = {"A": socket.AF_INET, "AAAA": socket.AF_INET6, "PTR": 0}[sys.argv[1]]
if kind:
    print(*sorted({found[4][0] for found in socket.getaddrinfo(sys.argv[2], 80, kind, socket.SOCK_STREAM)}))
else:
    print(socket.gethostbyaddr(sys.argv[2])[0])
"""


def test_a_network_with_ipv6_has_addresses_names_and_vips_of_both_families(lab: Lab, host1: Host) -> None:
    subnets = ["--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64"]
    host1.docker("network", "create", "-d", "overlay", "--ipv6", "--attachable", *subnets, "dual")
    for name, *options in (("six", "--replicas", "3"), ("rr", "--replicas", "2", "--endpoint-mode", "dnsrr")):
        host1.docker("service", "create", "--name", name, "--network", "dual", *options, "whoami", timeout=120)
    try:
        [network] = json.loads(host1.docker("network", "inspect", "dual").out)
        assert network["EnableIPv6"]
        # In either order: the docker CLI keeps its --subnet flags in a map.
        assert {pool["Subnet"] for pool in network["IPAM"]["Config"]} == {"10.9.0.0/24", "fd00:9::/64"}
        [service] = json.loads(host1.docker("service", "inspect", "six").out)
        vip, vip6 = (entry["Addr"] for entry in service["Endpoint"]["VirtualIPs"])
        assert vip.startswith("10.9.0.") and vip6.startswith("fd00:9::") and vip6.endswith("/64")
        host = next(host for host in lab if task_containers(host, "six"))
        container = task_containers(host, "six")[0]

        def resolve(kind: str, name: str) -> str:
            return host.engine("exec", container, "python3", "-c", RESOLVE, kind, name).out.strip()

        assert resolve("AAAA", "six") == vip6.partition("/")[0]
        assert resolve("A", "six") == vip.partition("/")[0]
        everybody = resolve("AAAA", "tasks.six").split()
        assert len(everybody) == 3 and len(resolve("AAAA", "rr").split()) == 2
        assert resolve("PTR", vip6.partition("/")[0]) == "six.dual"
        # A container knows its own addresses by its own hosts file.
        assert [resolve("PTR", address).split(".")[0] for address in everybody].count("six") == 2
        for address in everybody:
            assert eventually(lambda a=address: ask(host, "six", f"http://[{a}]/"))["peer"]["address"].startswith(
                "fd00:9::"
            )
        answering = {ask(host, "six", f"http://[{vip6.partition('/')[0]}]/")["container"] for _ in range(30)}
        assert len(answering) == 3
        own = host1.docker("run", "--rm", "--network", "dual", "whoami", "python3", "-c", RESOLVE, "AAAA", "six")
        assert own.out.strip() == vip6.partition("/")[0]
    finally:
        host1.docker("service", "rm", "six", "rr")
        eventually(lambda: not host1.docker("network", "rm", "dual", check=False).code or None)
