"""The client's address through the mesh, judged by the frames on the wire: both ways through the entry host, source
kept, nothing untranslated outside the tunnels, nothing too large."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from network_bed import PATIENCE, Bed
from scapy.layers.inet import ICMP, IP
from wire import Frame, Wire

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(120 * PATIENCE),
]
CLIENT, ENTRY, TASK_HOST = "10.99.0.100", "10.99.0.1", "10.99.0.2"
TASK = "10.0.0.22"
OVERLAYS = ipaddress.IPv4Network("10.0.0.0/16")
MESH_VNI = 4096


@pytest.fixture(scope="module")
def made() -> Iterator[Bed]:
    with Bed() as bed:
        yield bed


def place(bed: Bed, networks: list[str]) -> None:
    """A published task on h2; the client asks h1, which has none. The last network has the default route."""
    bed.container(bed.hosts[1], "c2", 22, networks)
    bed.rows.append(("h2", bed.row("c2", 22, networks, answers_from=_task(networks))))
    bed.update()


def _task(networks: list[str]) -> str:
    return f"{Bed.SUBNETS[networks[-1]]}.22"


@pytest.mark.parametrize("networks", [["ingress"], ["ingress", "net1"]], ids=["one network", "two networks"])
@pytest.mark.parametrize(("kind", "port", "target"), [("tcp", 8080, 80), ("udp", 5353, 53)])
def test_both_ways_lead_through_the_entry_host(
    bed: Bed, networks: list[str], kind: str, port: int, target: int
) -> None:
    place(bed, networks)
    payload = 20_000 if kind == "tcp" else 0
    with Wire(bed) as wire:
        answers = bed.ask(bed.client, ENTRY, port, kind=kind, count=3, payload=payload)
    assert [answer.split()[:2] for answer in answers] == [["c2", CLIENT]] * 3

    # The client speaks with the entry host alone, in frames as in packets.
    talks = [frame for frame in wire.frames if frame.port == "client" and frame.talk]
    assert {frame.talk[::2] for frame in talks} == {(CLIENT, ENTRY), (ENTRY, CLIENT)}
    entry, client = wire.mac("h1"), wire.mac("client")
    assert {(frame.outer.src, frame.outer.dst) for frame in talks} == {(client, entry), (entry, client)}

    # The tunnel between the hosts carries the client's own address, there and back.
    tunnelled = [frame for frame in wire.frames if frame.tunnel and frame.port == "h2"]
    ways = {(frame.outer[IP].src, frame.outer[IP].dst, frame.vni, *_ends(frame, target)) for frame in tunnelled}
    assert ways == {
        (ENTRY, TASK_HOST, MESH_VNI, CLIENT, _task(networks), "asks"),
        (TASK_HOST, ENTRY, MESH_VNI, _task(networks), CLIENT, "answers"),
    }
    # Every connection comes and goes the same way, with a port from the range of tunnelled connections.
    assert len({frame.talk[1] for frame in talks if frame.talk[2] == ENTRY}) == 3
    ports = {frame.talk[1] for frame in tunnelled if frame.talk[3] == target}
    assert len(ports) == 3 and all(1024 <= port <= 32767 for port in ports)
    assert {frame.talk[3] for frame in tunnelled if frame.talk[1] == target} == ports

    assert [frame for frame in wire.frames if frame.port == "h3" and frame.talk] == []
    assert_clean(wire)


def _ends(frame: Frame, target: int) -> tuple[str, str, str]:
    source, port, destination, _ = frame.talk
    return source, destination, "answers" if port == target else "asks"


def assert_clean(wire: Wire) -> None:
    """No address of a cluster network outside a tunnel, no redirect or other complaint, no fragment. Sizes say nothing:
    virtual links carry several segments at once.
    """
    assert wire.frames
    for frame in wire.frames:
        if IP not in frame.outer:
            continue
        outer = frame.outer[IP]
        assert outer.frag == 0 and not outer.flags.MF, frame.outer.summary()
        for address in (outer.src, outer.dst):
            assert ipaddress.IPv4Address(address) not in OVERLAYS, frame.outer.summary()
        if outer.src != CLIENT:  # it may complain about what it did not ask for
            assert ICMP not in frame.outer or frame.outer[ICMP].type not in (3, 5, 11), frame.outer.summary()


def test_a_task_on_the_entry_host_answers_without_a_tunnel(bed: Bed) -> None:
    bed.container(bed.hosts[0], "c1", 21)
    bed.rows.append(("h1", bed.row("c1", 21)))
    bed.update()
    with Wire(bed) as wire:
        assert bed.ask(bed.client, ENTRY, 8080) == [f"c1 {CLIENT}"]
    assert [frame for frame in wire.frames if frame.tunnel] == []
    assert_clean(wire)


def test_a_connection_that_ends_with_its_endpoint_leaks_nothing(bed: Bed) -> None:
    """Late packets of a connection whose tracking entry was dropped must not leave a host untranslated."""
    place(bed, ["ingress"])
    with Wire(bed) as wire:
        assert bed.ask(bed.client, ENTRY, 8080) == [f"c2 {CLIENT}"]
        for host in bed.hosts:
            host.run("conntrack -D -r 10.0.0.22", check=False)
        # The task goes on with what the hosts have forgotten.
        late = (
            "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('10.0.0.22', 5300)); "
            f"s.sendto(b'late', ('{CLIENT}', 4444))"
        )
        bed.inside("c2", late)
    assert_clean(wire)


def test_a_new_task_with_a_freed_address_gets_no_old_flow(bed: Bed) -> None:
    """One UDP socket of the client goes on sending while its task is removed and another one takes the address."""
    place(bed, ["ingress"])
    assert bed.ask(bed.client, ENTRY, 5353, kind="udp", source=46001) == [f"c2 {CLIENT}"]
    assert bed.ask(bed.client, ENTRY, 8080, source=46002) == [f"c2 {CLIENT}"]
    bed.rows.clear()
    bed.update()  # the container's row is withdrawn without having been inactive: it lingers until its address is used
    bed.remove_container("c2")
    bed.container(bed.hosts[2], "other", 22)
    row = bed.row("other", 22, ports=())
    bed.rows.append(("h3", row))
    bed.update()
    for host in bed.hosts:
        lines = host.run("cat /proc/net/nf_conntrack").splitlines()
        tracked = [line for line in lines if f"src={TASK} dst={CLIENT}" in line and "dport=4600" in line]
        assert tracked == [], host.name
    with Wire(bed) as wire:
        for kind, port, source in (("udp", 5353, 46001), ("tcp", 8080, 46002)):
            [answer] = bed.ask(bed.client, ENTRY, port, kind=kind, source=source)
            assert answer.startswith("error"), answer
    assert [frame.talk for frame in wire.frames if frame.tunnel and TASK in frame.talk] == []
