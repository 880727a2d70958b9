"""Overlays, VIPs and the ingress mesh with real packets: three hosts in network namespaces (network_bed.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

sys.path.insert(0, os.path.dirname(__file__))

from network_bed import PATIENCE, Bed, Container, Host, eventually, run

from swarm_agent.model.rows import PortRow
from swarm_agent.network import ipvs_netlink

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(120 * PATIENCE),
]
VIP = "10.0.1.200"


LACKING = {"iptables": "", "ipvs": ipvs_netlink.available()}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.skipif(bool(why), reason=why)) for name, why in LACKING.items()],
)
def made(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """A bed for each balancer that this kernel has."""
    with Bed(balancer=request.param) as bed:
        yield bed


@pytest.fixture
def remote(bed: Bed) -> Container:
    """A published task on h2; h1 and h3 have none."""
    task = bed.container(bed.hosts[1], "c2", 22)
    bed.rows.append(("h2", bed.row("c2", 22)))
    bed.update()
    return task


def call(bed: Bed, source: Host | Container | str, address: str, port: int = 8080, **more: object) -> list[str]:
    namespace = source if isinstance(source, str) else source.namespace
    return bed.ask(namespace, address, port, **more)  # type: ignore[arg-type]


# --- published ports -------------------------------------------------------------------------------------------------


def test_every_host_answers_and_the_task_sees_the_clients_address(bed: Bed, remote: Container) -> None:
    for host in bed.hosts:
        assert call(bed, bed.client, host.address, count=3) == ["c2 10.99.0.100"] * 3
        assert call(bed, bed.client, host.address, 5353, kind="udp", count=3) == ["c2 10.99.0.100"] * 3


def test_hosts_themselves_reach_published_ports(bed: Bed, remote: Container) -> None:
    for host in bed.hosts:
        for address in ("127.0.0.1", *(other.address for other in bed.hosts)):
            assert call(bed, host, address)[0].startswith("c2 "), f"{host.name} to {address}"
            assert call(bed, host, address, 5353, kind="udp")[0].startswith("c2 "), f"{host.name} to {address}, UDP"


def test_containers_reach_published_ports(bed: Bed, remote: Container) -> None:
    neighbour = bed.container(bed.hosts[1], "n2", 30, ["net1"])
    stranger = bed.container(bed.hosts[0], "n1", 31, ["net1"])
    for source in (neighbour, stranger, remote):
        for host in bed.hosts:
            answer = call(bed, source, host.address)
            assert answer[0].startswith("c2 "), f"{source.name} to {host.name}: {answer}"


def test_large_payloads_pass_the_tunnel(bed: Bed, remote: Container) -> None:
    assert call(bed, bed.client, "10.99.0.1", payload=5_000_000) == ["c2 10.99.0.100 5000000"]


def test_one_client_port_may_talk_to_two_entry_hosts_at_once(bed: Bed, remote: Container) -> None:
    code = """
import os, socket
links = []
for host in ("10.99.0.1", "10.99.0.3", "10.99.0.2"):
    link = socket.socket(); link.settimeout(3 * int(os.environ.get("PATIENCE", "1")))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    link.bind(("", 45678)); link.connect((host, 8080)); links.append(link)
print([link.recv(100) for link in links])
for link in links:
    link.sendall(b"again")
print([link.recv(100) for link in links])
"""
    command = ["ip", "netns", "exec", bed.client, sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, timeout=30 * PATIENCE, check=True).stdout
    assert output.splitlines() == [str([b"c2 10.99.0.100\n"] * 3), str([b"again"] * 3)]


def test_all_tasks_of_a_service_get_connections(bed: Bed) -> None:
    for number, host in enumerate((bed.hosts[0], bed.hosts[0], bed.hosts[1], bed.hosts[2]), start=1):
        bed.container(host, f"t{number}", 40 + number)
        bed.rows.append((host.name, bed.row(f"t{number}", 40 + number)))
    bed.update()
    answers = call(bed, bed.client, "10.99.0.1", count=120)
    counts = {name: answers.count(f"{name} 10.99.0.100") for name in ("t1", "t2", "t3", "t4")}
    assert sum(counts.values()) == 120
    assert min(counts.values()) >= 10  # expected 30 each; below 10 by chance: less than 1 in 100,000


def test_default_route_over_another_network_keeps_the_mesh_working(bed: Bed) -> None:
    bed.container(bed.hosts[1], "c2", 22, ["ingress", "net1"])  # the last network has the default route
    bed.rows.append(("h2", bed.row("c2", 22, ["ingress", "net1"])))
    bed.update()
    for host in bed.hosts:
        assert call(bed, bed.client, host.address) == ["c2 10.99.0.100"]


def test_a_host_without_any_route_to_the_tasks_network_answers_and_leads_nobody_else_there(bed: Bed) -> None:
    outside = bed.hosts[2]
    own = outside.own
    try:
        outside.own = {network: address for network, address in own.items() if network != "net1"}
        bed.container(bed.hosts[1], "c2", 22, ["ingress", "net1"])
        bed.rows.append(("h2", bed.row("c2", 22, ["ingress", "net1"], answers_from="10.0.1.22")))
        bed.update()
        assert "default" not in outside.run("ip route")
        assert call(bed, bed.client, outside.address, count=3) == ["c2 10.99.0.100"] * 3
        assert call(bed, outside, outside.address, count=3) == [f"c2 {outside.address}"] * 3
        other = bed.container(outside, "c3", 23)
        assert call(bed, other, "10.0.1.22", 80)[0].startswith("error")
    finally:
        outside.own = own
        bed.reset()


def test_a_task_answers_clients_that_its_own_host_has_no_route_to(bed: Bed, remote: Container) -> None:
    """As on a host of a private network without a default route, when another host is the way in."""
    door, inner = bed.hosts[0], bed.hosts[1]
    try:
        run(f"ip -n {bed.client} addr add 192.0.2.9/32 dev eth0")
        run(f"ip -n {bed.client} route add {door.address}/32 dev eth0 src 192.0.2.9")
        door.run("ip route add 192.0.2.9/32 dev eth0")
        assert not inner.run("ip route get 192.0.2.9", check=False)  # unreachable
        assert call(bed, bed.client, door.address, count=3) == ["c2 192.0.2.9"] * 3
        assert call(bed, bed.client, door.address, 5353, kind="udp", count=3) == ["c2 192.0.2.9"] * 3
    finally:
        door.run("ip route del 192.0.2.9/32 dev eth0", check=False)
        run(f"ip -n {bed.client} addr del 192.0.2.9/32 dev eth0")
        run(f"ip -n {bed.client} route del {door.address}/32", check=False)


def test_a_port_may_be_bound_to_addresses(bed: Bed) -> None:
    bed.container(bed.hosts[1], "c2", 22)
    port = PortRow("tcp", 80, 8080, "ingress", "", ("10.99.0.1/32",))
    bed.rows.append(("h2", bed.row("c2", 22, ports=(port,))))
    bed.update()
    assert call(bed, bed.client, "10.99.0.1") == ["c2 10.99.0.100"]
    assert "refused" in call(bed, bed.client, "10.99.0.2")[0]
    assert "refused" in call(bed, bed.hosts[0], "127.0.0.1")[0]


def test_services_bound_to_different_addresses_share_a_port(bed: Bed) -> None:
    for host, name, number in ((bed.hosts[1], "c2", 22), (bed.hosts[2], "c3", 23)):
        bed.container(host, name, number)
        port = PortRow("tcp", 80, 8080, "ingress", "", (f"10.99.0.{number - 20}/32",))
        bed.rows.append((host.name, bed.row(name, number, ports=(port,))))
    bed.update()
    assert set(call(bed, bed.client, "10.99.0.2", count=6)) == {"c2 10.99.0.100"}
    assert set(call(bed, bed.client, "10.99.0.3", count=6)) == {"c3 10.99.0.100"}
    assert "refused" in call(bed, bed.client, "10.99.0.1")[0]


SCTP = """
import socket, struct, sys
def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
def packet(source, target, tag, chunk):
    head = struct.pack(">HHI", source, target, tag)
    body = struct.pack(">BBHIIHHI", chunk, 0, 20, 0x1234, 65536, 1, 1, 1)
    return head + struct.pack("<I", crc32c(head + bytes(4) + body)) + body
def receive(link, chunk):
    while True:
        data, peer = link.recvfrom(2000)
        data = data[(data[0] & 15) * 4:]
        if data[12] == chunk:
            return data, peer
link = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132); link.settimeout(10)
"""
SCTP_TASK = (
    SCTP
    + """
print("ready", flush=True)
data, peer = receive(link, 1)
source, target = struct.unpack(">HH", data[:4])
link.sendto(packet(target, source, 0x1234, 2), peer)
print(target, peer[0], flush=True)
"""
)
SCTP_CLIENT = (
    SCTP
    + """
link.sendto(packet(40000, 8080, 0, 1), (sys.argv[1], 0))
data, peer = receive(link, 2)
print(*struct.unpack(">HH", data[:4]), peer[0])
"""
)


def test_sctp_is_published_on_every_host_with_the_clients_address(bed: Bed) -> None:
    """The machine's kernel may have no SCTP, so both ends are raw sockets: a first packet and its answer."""
    bed.container(bed.hosts[1], "c2", 22)
    bed.rows.append(("h2", bed.row("c2", 22, ports=(PortRow("sctp", 3868, 8080, "ingress"),))))
    bed.update()
    for host in bed.hosts:
        inside = ["ip", "netns", "exec", bed.prefix + "c2", sys.executable, "-c", SCTP_TASK]
        with subprocess.Popen(inside, stdout=subprocess.PIPE, text=True) as task:
            assert task.stdout and task.stdout.readline() == "ready\n"
            asking = ["ip", "netns", "exec", bed.client, sys.executable, "-c", SCTP_CLIENT, host.address]
            told = subprocess.run(asking, capture_output=True, text=True, timeout=30, check=True).stdout
            assert told == f"8080 40000 {host.address}\n"
            assert task.stdout.readline() == "3868 10.99.0.100\n"


def test_ports_follow_rows(bed: Bed, remote: Container) -> None:
    assert call(bed, bed.client, "10.99.0.1") == ["c2 10.99.0.100"]
    bed.rows.clear()
    bed.update()
    assert call(bed, bed.client, "10.99.0.1")[0].startswith("error")
    assert call(bed, bed.client, "10.99.0.2")[0].startswith("error")
    bed.rows.append(("h2", bed.row("c2", 22)))
    bed.update()
    assert call(bed, bed.client, "10.99.0.1") == ["c2 10.99.0.100"]


@pytest.mark.parametrize("value", ["0", "1"])
def test_works_with_bridge_netfilter_on_and_off(bed: Bed, remote: Container, value: str) -> None:
    other = bed.container(bed.hosts[1], "d2", 23, ["net1"])
    bed.container(bed.hosts[0], "d1", 24, ["net1"])
    vips = {"net1": VIP}
    bed.rows += [("h2", bed.row("d2", 23, ["net1"], (), vips)), ("h1", bed.row("d1", 24, ["net1"], (), vips))]
    bed.update()
    subprocess.run("modprobe -q br_netfilter", shell=True, check=False)  # an engine has, where there is one
    for host in bed.hosts:
        host.run(f"sysctl -qw net.bridge.bridge-nf-call-iptables={value}")
    for host in bed.hosts:
        assert call(bed, bed.client, host.address) == ["c2 10.99.0.100"]
    answers = call(bed, other, VIP, 80, count=12)
    assert {answer.split()[0] for answer in answers} == {"d1", "d2"}


# --- overlays and VIPs -----------------------------------------------------------------------------------------------


def test_containers_of_one_network_reach_each_other_across_hosts(bed: Bed) -> None:
    first = bed.container(bed.hosts[0], "d1", 51, ["net1"])
    bed.container(bed.hosts[1], "d2", 52, ["net1"])
    bed.rows += [("h1", bed.row("d1", 51, ["net1"], ())), ("h2", bed.row("d2", 52, ["net1"], (), active=False))]
    bed.update()
    assert call(bed, first, "10.0.1.52", 80) == ["d2 10.0.1.51"]
    assert call(bed, first, "10.0.1.52", 80, payload=3_000_000) == ["d2 10.0.1.51 3000000"]
    assert call(bed, first, "10.0.1.12", 80)[0].startswith("error [Errno 111]")  # the other host's own address answers
    assert call(bed, bed.hosts[2], "10.0.1.52", 80) == ["d2 10.0.1.13"]


def test_vip_reaches_all_tasks_from_every_host_and_itself(bed: Bed) -> None:
    tasks = []
    for number, host in enumerate(bed.hosts, start=1):
        tasks.append(bed.container(host, f"d{number}", 60 + number, ["net1"]))
        bed.rows.append((host.name, bed.row(f"d{number}", 60 + number, ["net1"], (), {"net1": VIP})))
    bed.update()
    for source in (*tasks, *bed.hosts):
        answers = call(bed, source, VIP, 80, count=40)
        assert {answer.split()[0] for answer in answers} == {"d1", "d2", "d3"}, f"{source.name}: {answers}"
    udp = call(bed, tasks[0], VIP, 53, kind="udp", count=40)
    assert {answer.split()[0] for answer in udp} == {"d1", "d2", "d3"}


def test_vip_answers_ping(bed: Bed) -> None:
    """IPVS balances TCP, UDP and SCTP alone: there the host answers for the task."""
    bed.container(bed.hosts[0], "d1", 61, ["net1"])
    bed.container(bed.hosts[1], "d2", 62, ["net1"])
    bed.rows.append(("h2", bed.row("d2", 62, ["net1"], (), {"net1": VIP})))
    bed.update()
    for _ in range(2):
        bed.ping("d1", VIP)
    bed.ping("h3", VIP)
    with pytest.raises(subprocess.CalledProcessError):
        bed.ping("d1", "10.0.1.201")


def test_vip_without_an_active_task_refuses_at_once(bed: Bed) -> None:
    source = bed.container(bed.hosts[0], "d1", 61, ["net1"])
    bed.rows.append(("h2", bed.row("d2", 62, ["net1"], (), {"net1": VIP}, active=False)))
    bed.update()
    for asking in (source, bed.hosts[0]):
        assert "refused" in call(bed, asking, VIP, 80)[0]


def test_loopback_of_a_host_stays_closed_to_its_containers(bed: Bed) -> None:
    task = bed.container(bed.hosts[0], "d1", 61, ["net1"])
    listener = subprocess.Popen(
        ["ip", "netns", "exec", bed.hosts[0].namespace, sys.executable, "-m", "http.server", "-b", "127.0.0.1", "9000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert eventually(lambda: "127.0.0.1:9000" in bed.hosts[0].run("ss -ltn"))
        run(f"ip netns exec {task.namespace} ip addr del 127.0.0.1/8 dev lo")
        run(f"ip netns exec {task.namespace} ip route add 127.0.0.1 via 10.0.1.11")
        run(f"ip netns exec {task.namespace} ip route flush table local")
        run(f"ip netns exec {task.namespace} sysctl -qw net.ipv4.conf.eth0.route_localnet=1")
        before = bed.hosts[0].run("iptables -t raw -nvxL SWARM-RAW")
        assert call(bed, task, "127.0.0.1", 9000)[0].startswith("error")
        after = bed.hosts[0].run("iptables -t raw -nvxL SWARM-RAW")
        assert dropped(after) > dropped(before)
    finally:
        listener.kill()
        listener.wait()


def dropped(listing: str) -> int:
    return sum(int(line.split()[0]) for line in listing.splitlines() if " DROP " in line)


# --- endpoints that go -----------------------------------------------------------------------------------------------

HELD = """
import os, socket, sys
patience = max(1, int(os.environ.get("PATIENCE", "1")) // 4)
link = socket.socket(); link.settimeout(5 * patience); link.connect((sys.argv[1], int(sys.argv[2])))
print(link.recv(100).decode().strip(), flush=True)
for line in sys.stdin:
    link.sendall(line.encode())
    print(link.recv(100).decode().strip(), flush=True)
"""


def test_open_connections_outlive_their_endpoint(bed: Bed, remote: Container) -> None:
    vip_task = bed.container(bed.hosts[1], "d2", 62, ["net1"])
    source = bed.container(bed.hosts[0], "d1", 61, ["net1"])
    bed.rows.append(("h2", bed.row("d2", 62, ["net1"], (), {"net1": VIP})))
    bed.rows.append(("h1", bed.row("d1", 61, ["net1"], ())))
    bed.update()
    held = [
        subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-c", HELD, address, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for namespace, address, port in ((bed.client, "10.99.0.1", 8080), (source.namespace, VIP, 80))
    ]
    try:
        greetings = [say(link, None) for link in held]
        assert greetings == ["c2 10.99.0.100", f"{vip_task.name} 10.0.1.11"]
        bed.rows = [item for item in bed.rows if item[0] == "h1"]
        bed.update()
        assert call(bed, bed.client, "10.99.0.1")[0].startswith("error")
        assert [say(link, "still there") for link in held] == ["still there"] * 2
    finally:
        for link in held:
            link.kill()
            link.wait()


def say(process: subprocess.Popen[str], text: str | None) -> str:
    assert process.stdin and process.stdout
    if text is not None:
        process.stdin.write(text + "\n")
        process.stdin.flush()
    return process.stdout.readline().strip()


def test_no_connection_is_lost_while_endpoints_change(bed: Bed) -> None:
    bed.container(bed.hosts[1], "c2", 22)
    bed.container(bed.hosts[2], "c3", 23)
    source = bed.container(bed.hosts[0], "d1", 61, ["net1"])
    bed.container(bed.hosts[1], "d2", 62, ["net1"])
    bed.container(bed.hosts[2], "d3", 63, ["net1"])

    def rows(second: bool, third: bool) -> None:
        bed.rows = [("h1", bed.row("d1", 61, ["net1"], ()))]
        for host, number, active in (("h2", 2, second), ("h3", 3, third)):
            bed.rows.append((host, bed.row(f"c{number}", 20 + number, active=active)))
            bed.rows.append((host, bed.row(f"d{number}", 60 + number, ["net1"], (), {"net1": VIP}, active=active)))
        bed.update()

    rows(True, True)
    count = max(300, 3000 // PATIENCE)  # enough for several changes, which are slower too
    with ThreadPoolExecutor() as pool:
        port = pool.submit(call, bed, bed.client, "10.99.0.1", 8080, count=count)
        vip = pool.submit(call, bed, source, VIP, 80, count=count)
        changes = 0
        while not (port.done() and vip.done()):
            rows(changes % 3 != 0, changes % 3 != 1)
            changes += 1
        answers = [*port.result(), *vip.result()]
    assert changes > 3
    assert [answer for answer in answers if answer.startswith("error")] == []
    assert {answer.split()[0] for answer in answers} == {"c2", "c3", "d2", "d3"}


UDP_CLIENT = """
import os, socket, sys
patience = max(1, int(os.environ.get("PATIENCE", "1")) // 4)
link = socket.socket(type=socket.SOCK_DGRAM); link.settimeout(3 * patience); link.bind(("", 46000))
link.connect(("10.99.0.1", 5353))
for line in sys.stdin:
    try:
        link.send(b"x"); print(link.recv(100).decode(), flush=True)
    except OSError as error:
        print("none", flush=True)
"""


def test_a_udp_client_moves_to_another_task_at_once(bed: Bed) -> None:
    bed.container(bed.hosts[1], "c2", 22)
    bed.container(bed.hosts[2], "c3", 23)
    client = subprocess.Popen(
        ["ip", "netns", "exec", bed.client, sys.executable, "-c", UDP_CLIENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert say(client, "") == "none"  # tracked as untranslated from here on
        bed.rows = [("h2", bed.row("c2", 22))]
        bed.update()
        assert say(client, "") == "c2 10.99.0.100"
        bed.rows = [("h3", bed.row("c3", 23))]
        bed.update()
        assert say(client, "") == "c3 10.99.0.100"
        bed.rows = [("h2", bed.row("c2", 22)), ("h3", msgspec.structs.replace(bed.row("c3", 23), active=False))]
        bed.update()
        assert say(client, "") == "c2 10.99.0.100"
    finally:
        client.kill()
        client.wait()


def test_a_dead_host_is_forgotten_with_its_connections(bed: Bed, remote: Container) -> None:
    bed.container(bed.hosts[2], "c3", 23)
    bed.rows.append(("h3", bed.row("c3", 23)))
    bed.update()
    first = bed.hosts[0]
    call(bed, bed.client, first.address, count=40)
    assert "10.0.0.22" in first.run("cat /proc/net/nf_conntrack")
    bed.update(alive=[first, bed.hosts[2]])
    assert call(bed, bed.client, "10.99.0.1", count=6) == ["c3 10.99.0.100"] * 6
    assert "10.0.0.22" not in first.run("cat /proc/net/nf_conntrack")
    assert "10.99.0.2" not in first.run("ip neigh show dev swmesh")
    assert mac_entries(first, "02:42:0a:00:00:16") == 0


def mac_entries(host: Host, mac: str) -> int:
    return host.run("bridge fdb").count(mac)


# --- repair and removal ----------------------------------------------------------------------------------------------

ROUTES = "ip route show table 1937178624"
DAMAGES = {
    "iptables flushed": ["iptables -t nat -F", "iptables -t mangle -F", "iptables -t raw -F", "iptables -F"],
    "our chains emptied": ["iptables -t {published} -F SWARM-PUBLISH", "iptables -t mangle -F SWARM-MARK"],
    "a rule put before ours": ["iptables -I FORWARD 1 -d 10.0.0.0/8 -j DROP"],
    "mesh link deleted": ["ip link del swmesh"],
    "mesh link down": ["ip link set swmesh down"],
    "neighbours lost": ["ip neigh flush dev swmesh nud permanent"],
    "routes lost": ["ip route flush table 1937178624"],
    "rules lost": [*["ip rule del priority 1073"] * 3, "ip rule del priority 32800"],
    "vxlan deleted": ["ip link del swv-ingress"],
    "reverse path filter set": ["sysctl -qw net.ipv4.conf.swmesh.rp_filter=1"],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_repaired(bed: Bed, remote: Container, damage: str) -> None:
    published = "mangle" if bed.balancer == "ipvs" else "nat"  # the table that has the chain
    # The task's own host need not have a route to it there.
    damaged = [host for host in bed.hosts if damage != "routes lost" or host.run(ROUTES, check=False)]
    assert damaged
    for host in damaged:
        for command in DAMAGES[damage]:
            host.run(command.format(published=published))
    try:
        assert eventually(lambda: all(call(bed, bed.client, host.address) == ["c2 10.99.0.100"] for host in bed.hosts))
        assert eventually(lambda: all(not missing_parts(host) for host in bed.hosts))
    finally:
        for host in bed.hosts:
            host.run("iptables -D FORWARD -d 10.0.0.0/8 -j DROP", check=False)


def missing_parts(host: Host) -> list[str]:
    state = host.run("ip link") + host.run("ip rule") + host.run("iptables-save") + host.run("ip neigh show dev swmesh")
    wanted = [
        "swv-ingress",
        "swv-net1",
        "swmesh",
        "0x8000 lookup 1937178624",
        "from all lookup 1937178624",
        ":SWARM-PUBLISH",
        "PERMANENT",
    ]
    return [part for part in wanted if part not in state]


def test_a_deleted_bridge_is_made_anew_with_its_containers(bed: Bed, remote: Container) -> None:
    bed.hosts[1].run("ip link del swb-ingress")
    assert eventually(lambda: call(bed, bed.client, "10.99.0.1") == ["c2 10.99.0.100"])
    assert "swb-ingress" in bed.hosts[1].run("ip link show c2-0")


def test_a_restarted_agent_disturbs_nothing_while_it_hears_of_others(bed: Bed, remote: Container) -> None:
    bed.container(bed.hosts[0], "c1", 21)
    bed.rows.append(("h1", bed.row("c1", 21)))
    bed.update()
    first = bed.hosts[0]
    before = first.run("ip -o link show swmesh").split(":")[0]
    bed.restart_agent(first)
    everything, bed.rows = bed.rows, [item for item in bed.rows if item[0] == "h1"]
    bed.update(hosts=[first], alive=[first])  # all that a fresh agent knows: itself
    answers = set(call(bed, bed.client, first.address, count=20))
    assert answers == {"c1 10.99.0.100", "c2 10.99.0.100"}
    assert first.run("ip -o link show swmesh").split(":")[0] == before  # the same link, not a new one
    bed.rows = everything
    bed.update()
    bed.rows = [item for item in everything if item[0] == "h1"]
    bed.update()  # h2 was heard and has no task now
    assert set(call(bed, bed.client, first.address, count=10)) == {"c1 10.99.0.100"}


@pytest.mark.parametrize("balancer", [name for name, why in LACKING.items() if not why])
def test_removal_leaves_a_host_as_it_was_found(balancer: str) -> None:
    with Bed(hosts=2, balancer=balancer) as bed:
        host = bed.hosts[0]
        host.run("iptables -A FORWARD -s 192.0.2.0/24 -j ACCEPT")
        host.run("ip rule add fwmark 0x1 lookup 100 priority 900")
        before = picture(host)
        bed.update()
        bed.container(bed.hosts[1], "c2", 22)
        bed.rows.append(("h2", bed.row("c2", 22)))
        bed.update()
        assert picture(host) != before
        assert host.command("remove") == "removed"
        assert picture(host) == before


def picture(host: Host) -> list[str]:
    """Links, rules, routes and firewall of a host, without counters. Empty tables are the same as none."""
    firewall = [line for line in host.run("iptables-save").splitlines() if line.startswith(("-A", ":SWARM"))]
    routes = host.run("ip -4 route show table all").splitlines()
    links = [line.split()[1] for line in host.run("ip -o link").splitlines()]
    return [*links, *host.run("ip rule").splitlines(), *routes, *firewall]
