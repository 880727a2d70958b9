"""A test bed for the data plane: hosts, containers and clients as network namespaces, with the machine's real kernel.

Hosts and clients hang on one switch (a bridge in a namespace of its own). A container is a namespace with a link into
its host's bridge and a server that tells, on any port, its name and the peer's address.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from swarm_agent.model.addresses import mac_of
from swarm_agent.model.dualstack import DualStack
from swarm_agent.model.objects import Network, NetworkDriverState
from swarm_agent.model.rows import AddressRow, EndpointRow, PeerRow, PortRow
from swarm_agent.model.specs import Driver, IPAMConfig, IPAMOptions, NetworkSpec
from swarm_agent.network import NetworkTables, own_peer_rows
from swarm_agent.network.names import bridge_name
from swarm_agent.network.tables import VNI_OPTION

HERE = Path(__file__).parent
PATIENCE = int(os.environ.get("PATIENCE", "1"))  # how many times longer than usual things may take: emulated processors
ROOT = HERE.parent.parent

SERVER = """
import socket, sys, threading
name = sys.argv[1]
def listen(family):
    tcp = socket.socket(family); tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    udp = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        for link in (tcp, udp):
            link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    tcp.bind(("", 80)); tcp.listen(64)
    udp.bind(("", 53))
    threading.Thread(target=datagrams, args=(udp,), daemon=True).start()
    return tcp
def datagrams(udp):
    while True:
        data, peer = udp.recvfrom(65536)
        udp.sendto(f"{name} {peer[0]}".encode(), peer)
def connection(link, peer):
    with link:
        link.sendall(f"{name} {peer[0]}\\n".encode())
        while data := link.recv(65536):
            link.sendall(data)
def serve(tcp):
    while True:
        threading.Thread(target=connection, args=tcp.accept(), daemon=True).start()
both = [listen(socket.AF_INET), listen(socket.AF_INET6)]
print("ready", flush=True)
threading.Thread(target=serve, args=(both[1],), daemon=True).start()
serve(both[0])
"""

CLIENT = """
import os, socket, sys, threading
patience = max(1, int(os.environ.get("PATIENCE", "1")) // 4)
kind, host, port, source, count, payload = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
for _ in range(int(count)):
    if kind == "tcp":
        link = socket.socket(family)
        link.settimeout(5 * patience)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if int(source):
            link.bind(("", int(source)))
        try:
            link.connect((host, int(port)))
            answer = link.makefile("rb").readline().decode().strip()
            if int(payload):
                link.settimeout(10 * patience)
                def send():
                    link.sendall(bytes(int(payload)))
                    link.shutdown(socket.SHUT_WR)
                threading.Thread(target=send).start()
                got = 0
                while data := link.recv(1 << 20):
                    got += len(data)
                answer += f" {got}"
            print(answer)
        except OSError as error:
            print(f"error {error}")
        link.close()
    else:
        link = socket.socket(family, socket.SOCK_DGRAM)
        link.settimeout(5 * patience)
        if int(source):
            link.bind(("", int(source)))
        link.sendto(b"x", (host, int(port)))
        try:
            print(link.recv(100).decode())
        except OSError as error:
            print(f"error {error}")
        link.close()
"""


PING = """
import socket, struct
open("/proc/sys/net/ipv4/ping_group_range", "w").write("0 0")
link = socket.socket(socket.{family}, socket.SOCK_DGRAM, {protocol}); link.settimeout({patience})
link.sendto(struct.pack(">BBHHH", {question}, 0, 0, 1, 1) + b"x" * 56, ("{address}", 0))
assert link.recv(1500)[0] == {answer}
"""


def run(command: str, check: bool = True, timeout: float = 60) -> str:
    """Run a command; its output. Raises with what it printed when it fails."""
    result = subprocess.run(command.split(), capture_output=True, text=True, timeout=timeout * PATIENCE, check=False)
    if check and result.returncode:
        raise RuntimeError(f"{command}: exit status {result.returncode}: {result.stderr.strip()}")
    return result.stdout


@dataclass
class Container:
    namespace: str
    name: str
    address: str


@dataclass
class Host:
    """A host: a namespace with an underlay address and a NetworkManager."""

    bed: Bed
    name: str
    address: str
    process: subprocess.Popen[str]
    own: dict[str, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.bed.prefix + self.name

    def command(self, text: str) -> str:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def run(self, command: str, check: bool = True) -> str:
        return run(f"ip netns exec {self.namespace} {command}", check=check)


def make_network(
    network_id: str,
    vni: int,
    name: str = "",
    ingress: bool = False,
    internal: bool = False,
    encrypted: bool = False,
    subnets: Sequence[str] = (),
) -> Network:
    """`subnets`: of IPv4 and IPv6, for a network that has both."""
    driver = Driver("overlay", {"encrypted": ""}) if encrypted else None
    return Network(
        id=network_id,
        spec=NetworkSpec(
            name=name or network_id,
            ingress=ingress,
            internal=internal,
            ipv6_enabled=bool(subnets),
            driver_configuration=driver,
        ),
        driver_state=NetworkDriverState("overlay", {VNI_OPTION: str(vni)}),
        ipam_options=IPAMOptions(configs=[IPAMConfig(subnet) for subnet in subnets]) if subnets else None,
    )


class Bed:
    """Three hosts h1..h3 with the networks "ingress" (10.0.0.0/24), "net1" (10.0.1.0/24) and "dual" (10.0.2.0/24 and
    fd00:2::/64), and a client.
    """

    SUBNETS = {"ingress": "10.0.0", "net1": "10.0.1", "dual": "10.0.2"}
    DUAL = DualStack("10.0.2.0/24", "fd00:2::/64")

    def __init__(self, hosts: int = 3, balancer: str = "auto", encrypted: Sequence[str] = ()) -> None:
        self.balancer = balancer
        self.encrypted = encrypted
        self.keys: dict[str, str] = {}  # what hosts say of their WireGuard key instead of the truth
        # Runs of several checkouts stay out of each other's way.
        self.prefix = f"swt{zlib.crc32(str(ROOT).encode()) & 0xFFF:03x}-"
        self.folder = tempfile.mkdtemp(prefix="swt")
        self.rows: list[tuple[str, EndpointRow]] = []
        self.containers: dict[str, Host] = {}  # the host of each
        self._processes: list[subprocess.Popen[str]] = []
        self._servers: dict[str, subprocess.Popen[str]] = {}  # by container
        self._sweep()
        run(f"ip netns add {self.prefix}switch")
        self._in("switch", "ip link add br0 type bridge", "ip link set br0 up")
        dual = (self.DUAL.subnet, self.DUAL.subnet6)
        self.networks = [
            make_network("ingress", 4097, ingress=True),
            make_network("net1", 4098, encrypted="net1" in encrypted),
            make_network("dual", 4099, encrypted="dual" in encrypted, subnets=dual),
        ]
        self.hosts = [self._host(number) for number in range(1, hosts + 1)]
        self.client = self._machine("client", "10.99.0.100")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sweep(self) -> None:
        for line in run("ip netns list").splitlines():
            if line.startswith(self.prefix):
                run(f"ip netns del {line.split()[0]}")

    def _in(self, name: str, *commands: str) -> None:
        for command in commands:
            run(f"ip netns exec {self.prefix}{name} {command}")

    def _machine(self, name: str, address: str) -> str:
        namespace = self.prefix + name
        run(f"ip netns add {namespace}")
        run(f"ip -n {namespace} link add eth0 type veth peer name {name} netns {self.prefix}switch")
        self._in("switch", f"ip link set {name} master br0 up")
        self._in(name, f"ip addr add {address}/24 dev eth0", "ip link set eth0 up", "ip link set lo up")
        return namespace

    def _host(self, number: int) -> Host:
        name, address = f"h{number}", f"10.99.0.{number}"
        self._machine(name, address)
        # Like a host with Docker's firewall: nothing is forwarded that no rule accepts.
        self._in(name, "sysctl -qw net.ipv4.ip_forward=1", "iptables -P FORWARD DROP", "ip6tables -P FORWARD DROP")
        process = self._agent(name, address)
        own = {network: f"{prefix}.{10 + number}/24" for network, prefix in self.SUBNETS.items()}
        return Host(self, name, address, process, own)

    def reset(self) -> None:
        """Back to hosts without containers and rows, all alive."""
        for name in list(self.containers):
            self.remove_container(name)
        self.rows.clear()
        self.keys.clear()
        self.update()

    def remove_container(self, name: str) -> None:
        host = self.containers.pop(name)
        process = self._servers.pop(name)
        process.kill()
        process.wait()
        for line in host.run("ip -o link").splitlines():
            link = line.split()[1].partition("@")[0]
            if link.startswith(f"{name}-"):
                host.run(f"ip link del {link}")
        run(f"ip netns del {self.prefix}{name}")

    def _agent(self, name: str, address: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                *f"ip netns exec {self.prefix}{name}".split(),
                sys.executable,
                str(HERE / "network_host.py"),
                name,
                address,
                "",
                f"{self.folder}/{name}",
                self.balancer,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                "PYTHONPATH": str(ROOT / "agent"),
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "PATIENCE": str(PATIENCE),
            },
        )
        self._processes.append(process)
        return process

    def restart_agent(self, host: Host) -> None:
        """Kill a host's NetworkManager and start a new one."""
        host.process.kill()
        host.process.wait()
        host.process = self._agent(host.name, host.address)

    def close(self) -> None:
        self._processes += self._servers.values()
        for process in self._processes:
            process.kill()
            process.wait()
        self._sweep()
        shutil.rmtree(self.folder, ignore_errors=True)

    def key(self, host: Host) -> str:
        """A host's public WireGuard key; "" where the kernel has none."""
        return host.command("key") if self.encrypted else ""

    # --- the cluster's side ---------------------------------------------------------------------------------------

    def update(self, hosts: Sequence[Host] | None = None, alive: Sequence[Host] | None = None) -> None:
        """Give every host the tables as they are, and wait until they are in the kernels."""
        alive = self.hosts if alive is None else alive
        peers: list[tuple[str, PeerRow]] = [
            (host.name, row)
            for host in alive
            for row in own_peer_rows(host.own, self.keys.get(host.name, self.key(host)))
        ]
        names = {host.name for host in alive}
        for host in hosts or alive:
            tables = NetworkTables(
                networks=self.networks,
                own=host.own,
                hosts={other.name: other.address for other in alive},
                endpoints=[item for item in self.rows if item[0] in names],
                peers=peers,
            )
            answer = host.command("update " + base64.b64encode(msgspec.msgpack.encode(tables)).decode())
            assert answer == "applied", f"{host.name}: {answer}"

    def container(self, host: Host, name: str, number: int, networks: Sequence[str] = ("ingress",)) -> Container:
        """A container with the address ending in `number` on each network; the last one has the default route."""
        namespace = self.prefix + name
        run(f"ip netns add {namespace}")
        self.containers[name] = host
        self._in(name, "ip link set lo up")
        for index, network in enumerate(networks):
            address = f"{self.SUBNETS[network]}.{number}"
            link = f"eth{index}"
            run(f"ip -n {namespace} link add {link} type veth peer name {name}-{index} netns {host.namespace}")
            self._in(
                name,
                f"ip link set {link} address {mac_of(address)} mtu {1390 if network in self.encrypted else 1450}",
                f"ip addr add {address}/24 dev {link}",
                f"ip link set {link} up",
                f"ip route replace default via {host.own[network].partition('/')[0]}",
            )
            if network == "dual":
                self._in(
                    name,
                    f"ip addr add {self.DUAL.with_prefix(address)} dev {link} nodad",
                    f"ip -6 route replace default via {self.DUAL.beside(host.own[network])}",
                )
            self._in(host.name, f"ip link set {name}-{index} master {bridge_name(network)} up")
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-c", SERVER, name], stdout=subprocess.PIPE, text=True
        )
        self._servers[name] = process
        assert process.stdout and process.stdout.readline().strip() == "ready"
        return Container(namespace, name, f"{self.SUBNETS[networks[0]]}.{number}")

    def inside(self, name: str, code: str) -> None:
        """Run Python in a container."""
        subprocess.run(
            ["ip", "netns", "exec", self.prefix + name, sys.executable, "-c", code], check=True, timeout=30 * PATIENCE
        )

    def ping(self, name: str, address: str) -> None:
        """An echo from a container to the address, answered; raises CalledProcessError."""
        six = ":" in address
        self.inside(
            name, PING.format(address=address, family="AF_INET6" if six else "AF_INET", protocol=58 if six else 1,
                              question=128 if six else 8, answer=129 if six else 0, patience=3 * PATIENCE)
        )  # fmt: skip

    def row(
        self,
        name: str,
        number: int,
        networks: Sequence[str] = ("ingress",),
        ports: Sequence[PortRow] = (PortRow("tcp", 80, 8080, "ingress"), PortRow("udp", 53, 5353, "ingress")),
        vips: dict[str, str] | None = None,
        active: bool = True,
        answers_from: str = "",
    ) -> EndpointRow:
        addresses = tuple(
            AddressRow(
                network,
                f"{self.SUBNETS[network]}.{number}",
                mac_of(f"{self.SUBNETS[network]}.{number}"),
                (vips or {}).get(network, ""),
            )
            for network in networks
        )
        return EndpointRow(name, "svc", "web", number, name, addresses, tuple(ports), active, answers_from=answers_from)

    # --- traffic --------------------------------------------------------------------------------------------------

    def ask(
        self,
        namespace: str,
        address: str,
        port: int,
        kind: str = "tcp",
        count: int = 1,
        source: int = 0,
        payload: int = 0,
    ) -> list[str]:
        """Answers of `count` new connections: "NAME PEER", or "error …"."""
        command = ["ip", "netns", "exec", namespace, sys.executable, "-c", CLIENT]
        command += [kind, address, str(port), str(source), str(count), str(payload)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120 * PATIENCE, check=True
        ).stdout.splitlines()


def eventually(check: object, timeout: float = 30) -> bool:
    """Whether a callable becomes true in time."""
    end = time.monotonic() + timeout * PATIENCE
    while time.monotonic() < end:
        if check():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False
