"""Encrypted networks with real packets: three hosts in network namespaces, and what the wire between them shows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from network_bed import PATIENCE, Bed, Container, Host, eventually
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from wire import Frame, Wire

from swarm_agent.model.addresses import mac_of
from swarm_agent.network import wireguard
from swarm_agent.network.names import SEAL_LINK

LACKING = wireguard.available() if os.geteuid() == 0 else "network namespaces need root"
pytestmark = [pytest.mark.skipif(bool(LACKING), reason=LACKING), pytest.mark.timeout(180 * PATIENCE)]
SECRET = b"the quick brown fox jumps over"
WIREGUARD_PORT, VXLAN_PORT = 4790, 4788
REKEY = 120  # seconds after which WireGuard agrees on new keys; from its protocol, cannot be set


@pytest.fixture(scope="module")
def made() -> Iterator[Bed]:
    with Bed(encrypted=["net1", "dual"]) as bed:
        yield bed


@pytest.fixture
def pair(bed: Bed) -> tuple[Container, Container]:
    """Containers on the encrypted network, on h1 and h2."""
    first = bed.container(bed.hosts[0], "d1", 51, ["net1"])
    second = bed.container(bed.hosts[1], "d2", 52, ["net1"])
    bed.rows += [("h1", bed.row("d1", 51, ["net1"], ())), ("h2", bed.row("d2", 52, ["net1"], ()))]
    bed.update()
    return first, second


SPEAK = """
import socket, sys
link = socket.create_connection((sys.argv[1], 80), timeout=20)
link.makefile("rb").readline()
link.sendall(sys.argv[2].encode() * 100)
got = b""
while len(got) < len(sys.argv[2]) * 100:
    got += link.recv(65536)
print(len(got))
"""


def speak(source: Container, address: str, text: bytes = SECRET) -> str:
    """Send a text many times to a container that sends it back."""
    command = ["ip", "netns", "exec", source.namespace, sys.executable, "-c", SPEAK, address, text.decode()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * PATIENCE, check=True)
    return done.stdout.strip()


def between_hosts(wire: Wire) -> list[Frame]:
    addresses = {host.address for host in wire.bed.hosts}
    return [
        frame for frame in wire.frames if IP in frame.outer and {frame.outer[IP].src, frame.outer[IP].dst} <= addresses
    ]


def is_clear(frame: Frame) -> bool:
    """Whether it is VXLAN of an encrypted network, or can be read."""
    return (UDP in frame.outer and frame.outer[UDP].dport == VXLAN_PORT) or SECRET in bytes(frame.outer)


def test_nothing_of_it_can_be_read_on_the_wire(bed: Bed, pair: tuple[Container, Container]) -> None:
    with Wire(bed) as wire:
        assert speak(pair[0], "10.0.1.52") == str(len(SECRET) * 100)
    frames = between_hosts(wire)
    assert len(frames) > 8
    assert {frame.outer[UDP].dport if UDP in frame.outer else None for frame in frames} == {WIREGUARD_PORT}
    assert not any(SECRET in bytes(frame.outer) for frame in wire.frames)
    assert max(frame.outer[IP].len for frame in frames) <= 1500


def test_nor_what_goes_by_ipv6(bed: Bed) -> None:
    first = bed.container(bed.hosts[0], "e1", 71, ["dual"])
    bed.container(bed.hosts[1], "e2", 72, ["dual"])
    bed.rows += [("h1", bed.row("e1", 71, ["dual"], ())), ("h2", bed.row("e2", 72, ["dual"], ()))]
    bed.update()
    other = bed.DUAL.beside("10.0.2.72")
    with Wire(bed) as wire:
        assert speak(first, other) == str(len(SECRET) * 100)
    frames = between_hosts(wire)
    assert len(frames) > 8
    assert {frame.outer[UDP].dport if UDP in frame.outer else None for frame in frames} == {WIREGUARD_PORT}
    assert not any(SECRET in bytes(frame.outer) for frame in wire.frames)
    assert bed.ask(first.namespace, other, 80, payload=2_000_000) == [f"e2 {bed.DUAL.beside('10.0.2.71')} 2000000"]


def test_the_same_talk_on_an_open_network_is_seen(bed: Bed) -> None:
    """What shows that the test above would notice."""
    first = bed.container(bed.hosts[0], "c1", 21)
    bed.container(bed.hosts[1], "c2", 22)
    bed.rows += [("h1", bed.row("c1", 21, ports=())), ("h2", bed.row("c2", 22, ports=()))]
    bed.update()
    with Wire(bed) as wire:
        assert speak(first, "10.0.0.22") == str(len(SECRET) * 100)
    assert any(SECRET in bytes(frame.outer) for frame in between_hosts(wire))


def test_large_payloads_and_vips_pass(bed: Bed, pair: tuple[Container, Container]) -> None:
    assert bed.ask(pair[0].namespace, "10.0.1.52", 80, payload=2_000_000) == ["d2 10.0.1.51 2000000"]
    vip = "10.0.1.200"
    bed.rows = [("h2", bed.row("d2", 52, ["net1"], (), {"net1": vip})), ("h1", bed.row("d1", 51, ["net1"], ()))]
    bed.update()
    assert bed.ask(pair[0].namespace, vip, 80) == ["d2 10.0.1.11"]
    assert bed.ask(bed.hosts[2].namespace, vip, 80) == ["d2 10.0.1.13"]


def test_a_clear_packet_does_not_enter_an_encrypted_network(bed: Bed, pair: tuple[Container, Container]) -> None:
    opened = bed.container(bed.hosts[1], "c2", 22)
    before = dropped(bed.hosts[1])
    forge(bed, 4789, 4097, "10.0.0.22")  # what it would do: see the open network
    forge(bed, 4789, 4098, "10.0.1.52")
    forge(bed, VXLAN_PORT, 4098, "10.0.1.52")
    assert eventually(lambda: (echoes(opened), dropped(bed.hosts[1])) == (1, before + 1))
    assert echoes(pair[1]) == 0


def forge(bed: Bed, port: int, vni: int, target: str) -> None:
    """Somebody in the hosts' network sends a frame with a ping to h2 as if it came from another host."""
    inner = Ether(dst=mac_of(target), src="02:42:00:00:00:01") / IP(src=target[:-2] + "99", dst=target) / ICMP()
    payload = bytes(VXLAN(vni=vni, flags=8) / inner)
    code = f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto({payload!r}, ('10.99.0.2', {port}))"
    subprocess.run(["ip", "netns", "exec", bed.client, sys.executable, "-c", code], check=True)


def echoes(container: Container) -> int:
    """How many pings have reached a container."""
    command = ["ip", "netns", "exec", container.namespace, "cat", "/proc/net/snmp"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Icmp:"))
    return int(values[names.index("InEchos")])


def dropped(host: Host) -> int:
    """How many clear packets to the port of encrypted networks a host has dropped."""
    lines = host.run("iptables -t raw -nvxL SWARM-RAW").splitlines()
    return sum(int(line.split()[0]) for line in lines if f"dpt:{VXLAN_PORT}" in line and "DROP" in line)


def test_a_host_without_key_gets_nothing_rather_than_clear_packets(bed: Bed, pair: tuple[Container, Container]) -> None:
    with Wire(bed) as wire:
        bed.keys["h2"] = ""
        bed.update()
        answers = bed.ask(pair[0].namespace, "10.0.1.52", 80)
    assert answers[0].startswith("error")
    assert not any(is_clear(frame) for frame in between_hosts(wire))
    del bed.keys["h2"]
    bed.update()
    assert bed.ask(pair[0].namespace, "10.0.1.52", 80) == ["d2 10.0.1.51"]


@pytest.mark.parametrize(
    "damage",
    [
        f"ip link del {SEAL_LINK}",
        f"ip link set {SEAL_LINK} down",
        "ip rule del iif lo ipproto udp dport 4788",
        "iptables -t raw -F",
        "iptables -t mangle -F",
    ],
)
def test_what_others_break_is_put_back(bed: Bed, pair: tuple[Container, Container], damage: str) -> None:
    assert speak(pair[0], "10.0.1.52") == str(len(SECRET) * 100)
    with Wire(bed) as wire:
        bed.hosts[0].run(damage)
        assert eventually(lambda: bed.ask(pair[0].namespace, "10.0.1.52", 80) == ["d2 10.0.1.51"])
        assert eventually(lambda: "4788" in bed.hosts[0].run("ip rule") and "4788" in guards(bed))
    assert not any(is_clear(frame) for frame in between_hosts(wire))


def guards(bed: Bed) -> str:
    rules = [bed.hosts[0].run(f"iptables -t {table} -S") for table in ("raw", "mangle")]
    return rules[0] if all(str(VXLAN_PORT) in text for text in rules) else ""


def test_a_removed_peer_is_removed(bed: Bed, pair: tuple[Container, Container]) -> None:
    key = bed.key(bed.hosts[1])
    bed.update(hosts=[bed.hosts[0]], alive=[bed.hosts[0], bed.hosts[2]])
    sealed = bed.hosts[0].command("sealed")
    assert key not in sealed and bed.key(bed.hosts[2]) in sealed


def test_the_key_outlives_the_agent(bed: Bed, pair: tuple[Container, Container]) -> None:
    before = bed.key(bed.hosts[0])
    bed.restart_agent(bed.hosts[0])
    bed.update()
    assert bed.key(bed.hosts[0]) == before
    assert bed.ask(pair[0].namespace, "10.0.1.52", 80) == ["d2 10.0.1.51"]


def test_no_packet_is_lost_when_keys_change(bed: Bed, pair: tuple[Container, Container]) -> None:
    count = int((REKEY + 20) / 0.1)
    speak(pair[0], "10.0.1.52")
    with Wire(bed, seconds=2 * REKEY) as wire:
        command = f"ip netns exec {pair[0].namespace} ping -q -i 0.1 -W 10 -c {count} 10.0.1.52"
        done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert f"{count} packets transmitted, {count} received, 0% packet loss" in done.stdout, done.stdout
    payloads = [bytes(frame.outer[UDP].payload) for frame in between_hosts(wire) if frame.port == "h1"]
    assert sum(payload[:4] == b"\x01\0\0\0" for payload in payloads) >= 1  # a handshake while packets were under way
