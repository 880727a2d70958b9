"""The data plane beside a real engine: its networks, its firewall rules, its restarts."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pytest

sys.path.insert(0, os.path.dirname(__file__))

from network_bed import CLIENT, HERE, ROOT, SERVER, eventually, make_network, run
from private_engine import IMAGE, PrivateEngine, missing

from swarm_agent.model.addresses import mac_of
from swarm_agent.model.rows import AddressRow, EndpointRow, PortRow
from swarm_agent.network import NetworkTables

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing() or "-"), pytest.mark.timeout(180)]
UNDERLAY = "10.98.0.1"
CLIENT_NAMESPACE = "swe-client"


@dataclass
class EngineHost:
    """A namespace with a real engine and a NetworkManager."""

    engine: PrivateEngine
    agent: subprocess.Popen[str]
    servers: list[subprocess.Popen[str]]

    def command(self, text: str) -> str:
        assert self.agent.stdin and self.agent.stdout
        self.agent.stdin.write(text + "\n")
        self.agent.stdin.flush()
        return self.agent.stdout.readline().strip()

    def update(self, *rows: EndpointRow, networks: tuple[str, ...] = ("ingress", "inner")) -> None:
        known = {
            "ingress": make_network("ingress", 4097, ingress=True),
            "inner": make_network("inner", 4098, internal=True),
            "third": make_network("third", 4099, name="taken"),
        }
        own = {"ingress": "10.0.0.2/24", "inner": "10.0.1.2/24", "third": "10.0.2.2/24"}
        tables = NetworkTables(
            networks=[known[name] for name in networks],
            own={name: own[name] for name in networks},
            hosts={"h1": UNDERLAY},
            endpoints=[("h1", row) for row in rows],
        )
        text = base64.b64encode(msgspec.msgpack.encode(tables)).decode()
        assert self.command(f"update {text}") == "applied"

    def inside(self, command: str, check: bool = True) -> str:
        return run(f"ip netns exec {self.engine.namespace} {command}", check=check)

    def container(self, name: str, *addresses: tuple[str, str]) -> EndpointRow:
        """A container of the engine with these (network, address); the row that its node would publish."""
        (network, ip), *others = addresses
        self.engine.docker("run", "-d", "--name", name, "--network", network, "--ip", ip, IMAGE)
        for more, address in others:
            self.engine.docker("network", "connect", "--ip", address, more, name)
        pid = self.engine.docker("inspect", "-f", "{{.State.Pid}}", name)
        server = subprocess.Popen(
            ["nsenter", "-t", pid, "-n", sys.executable, "-c", SERVER, name], stdout=subprocess.PIPE, text=True
        )
        self.servers.append(server)
        assert server.stdout and server.stdout.readline().strip() == "ready"
        rows = tuple(AddressRow(network, ip, mac_of(ip)) for network, ip in addresses)
        return EndpointRow(name, "svc", "web", 1, name, rows, (PortRow("tcp", 80, 8080, "ingress"),))

    def ask(self, address: str, namespace: str = "", port: int = 8080) -> str:
        command = ["ip", "netns", "exec", namespace or self.engine.namespace, sys.executable, "-c", CLIENT]
        command += ["tcp", address, str(port), "0", "1", "0"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


@pytest.fixture(scope="module")
def host() -> Iterator[EngineHost]:
    engine = PrivateEngine()
    servers: list[subprocess.Popen[str]] = []
    agent = None
    try:
        run(f"ip netns add {CLIENT_NAMESPACE}")
        run(f"ip -n {engine.namespace} link add eth0 type veth peer name eth0 netns {CLIENT_NAMESPACE}")
        for namespace, address in ((engine.namespace, UNDERLAY), (CLIENT_NAMESPACE, "10.98.0.100")):
            run(f"ip -n {namespace} addr add {address}/24 dev eth0")
            run(f"ip -n {namespace} link set eth0 up")
        engine.start()
        engine.load_image()
        agent = subprocess.Popen(
            [
                *["ip", "netns", "exec"],
                engine.namespace,
                sys.executable,
                str(HERE / "network_host.py"),
                "h1",
                UNDERLAY,
                str(engine.socket),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT / "agent"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        yield EngineHost(engine, agent, servers)
    finally:
        for process in (*servers, *([agent] if agent else [])):
            process.kill()
            process.wait()
        engine.close()
        run(f"ip netns del {CLIENT_NAMESPACE}", check=False)


@pytest.fixture
def clean(host: EngineHost) -> Iterator[EngineHost]:
    host.update()
    yield host
    for process in host.servers:
        process.kill()
        process.wait()
    host.servers.clear()
    host.engine.remove_containers()


def test_engine_networks_are_made_with_our_subnet_and_gateway(clean: EngineHost) -> None:
    assert clean.command("attach ingress") == "ingress"
    (network,) = json.loads(clean.engine.docker("network", "inspect", "ingress"))
    assert network["IPAM"]["Config"] == [{"Subnet": "10.0.0.0/24", "IPRange": "10.0.0.252/30", "Gateway": "10.0.0.2"}]
    assert network["Labels"] == {"com.docker.swarm.network.id": "ingress"}
    assert json.loads(clean.engine.docker("network", "inspect", "inner"))[0]["Internal"] is True


def test_a_taken_name_is_left_to_its_owner(clean: EngineHost) -> None:
    clean.engine.docker("network", "create", "taken")
    clean.update(networks=("ingress", "third"))
    assert clean.command("attach third") == "third"  # the id
    assert json.loads(clean.engine.docker("network", "inspect", "taken"))[0]["Labels"] == {}
    clean.engine.docker("network", "rm", "taken")


def test_published_port_reaches_a_container_with_the_clients_address(clean: EngineHost) -> None:
    clean.update(clean.container("c1", ("ingress", "10.0.0.20")))
    assert clean.ask(UNDERLAY, CLIENT_NAMESPACE) == "c1 10.98.0.100"
    assert clean.ask("127.0.0.1").startswith("c1 ")
    assert clean.ask(UNDERLAY).startswith("c1 ")


def test_a_container_on_an_internal_network_too_is_reached(clean: EngineHost) -> None:
    clean.update(clean.container("c1", ("ingress", "10.0.0.20"), ("inner", "10.0.1.20")))
    assert clean.ask(UNDERLAY, CLIENT_NAMESPACE) == "c1 10.98.0.100"


def test_an_engine_restart_does_not_cut_the_mesh(clean: EngineHost) -> None:
    engine = clean.engine
    engine.stop()
    engine.start("--live-restore")
    clean.update(clean.container("c1", ("ingress", "10.0.0.20")))
    engine.kill()
    assert clean.ask(UNDERLAY, CLIENT_NAMESPACE) == "c1 10.98.0.100"
    engine.start("--live-restore")
    assert eventually(lambda: clean.ask(UNDERLAY, CLIENT_NAMESPACE) == "c1 10.98.0.100")
    first = next(line for line in clean.inside("iptables -S DOCKER-USER").splitlines() if line.startswith("-A"))
    assert first == "-A DOCKER-USER -j SWARM-FORWARD"


def test_a_hung_engine_does_not_hold_up_the_kernel(clean: EngineHost) -> None:
    row = clean.container("c1", ("ingress", "10.0.0.20"))
    clean.engine.send(signal.SIGSTOP)
    try:
        clean.update(row)
        assert clean.ask(UNDERLAY, CLIENT_NAMESPACE) == "c1 10.98.0.100"
        clean.inside("iptables -t nat -F SWARM-PUBLISH")
        assert eventually(lambda: clean.ask(UNDERLAY, CLIENT_NAMESPACE) == "c1 10.98.0.100")
    finally:
        clean.engine.send(signal.SIGCONT)


def test_a_network_removed_by_hand_comes_back(clean: EngineHost) -> None:
    clean.engine.docker("network", "rm", "inner")
    assert eventually(lambda: "inner" in clean.engine.docker("network", "ls", "--format", "{{.Name}}").split())
    assert eventually(lambda: "master swb-inner" in clean.inside("ip link show swv-inner", check=False))


def test_networks_that_are_not_needed_any_more_go(clean: EngineHost) -> None:
    clean.update(networks=("ingress",))
    assert eventually(lambda: "inner" not in clean.engine.docker("network", "ls", "--format", "{{.Name}}").split())
    assert "swv-inner" not in clean.inside("ip link")


def test_leaving_removes_networks_and_rules_but_not_the_engines_own(clean: EngineHost) -> None:
    clean.container("c1", ("ingress", "10.0.0.20"))  # still there: it is taken off
    assert clean.command("remove") == "removed"
    assert clean.engine.docker("network", "ls", "--filter", "label=com.docker.swarm.network.id", "-q") == ""
    assert "SWARM" not in clean.inside("iptables-save")
    assert "DOCKER" in clean.inside("iptables-save")
    assert "lookup 19" not in clean.inside("ip rule")
