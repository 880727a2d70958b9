"""Hosts get other addresses while the cluster works: nobody leaves, nobody joins, nothing is restarted by hand.

host1 and host2 manage and need each other for a majority, so a manager that moved has to be found before there can be a
leader to write its address down. host3 works.
"""

from __future__ import annotations

import pytest

from tests.lab.clusterkit import cluster, nodes, outside, with_agents
from tests.lab.labkit import Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


def elsewhere(host: Host) -> str:
    """An address that the host does not have."""
    prefix, last = host.address.rsplit(".", 1)
    return f"{prefix}.{int(last) + 50}"


def readdress(host: Host, address: str) -> None:
    """The host's link has this address and no other."""
    host.exec(f"ip -4 addr flush dev eth0 && ip addr add {address}/24 dev eth0")


@pytest.fixture
def first(lab: Lab) -> Host:
    first = cluster(with_agents(lab))
    first.docker("node promote host2")
    settled(first)
    yield first
    for host in lab:
        readdress(host, host.address)
    lab.restore()
    outside(lab)


def settled(asked: Host, **moved: str) -> None:
    """All hosts are ready; the managers' and the moved hosts' addresses are as they should be, everywhere."""

    def told() -> bool:
        listed = {node["Hostname"]: node for node in nodes(asked)}
        assert {node["Status"] for node in listed.values()} == {"Ready"}, listed
        assert {name for name in ("host1", "host2") if listed[name]["ManagerStatus"]} == {"host1", "host2"}
        for name, address in moved.items():
            node = asked.docker("node", "inspect", name).json[0]
            assert node["Status"]["Addr"] == address
            if "ManagerStatus" in node:
                assert node["ManagerStatus"]["Addr"] == f"{address}:2377"
                assert node["ManagerStatus"]["Reachability"] == "reachable"
        return True

    eventually(told, timeout=60)


def known_managers(host: Host) -> set[str]:
    return {peer["Addr"] for peer in host.docker("info", "--format", "{{json .Swarm.RemoteManagers}}").json}


def test_managers_and_workers_move_and_the_cluster_goes_on(lab: Lab, first: Host):
    second, third = lab.host("host2"), lab.host("host3")

    # A manager, while it runs.
    readdress(second, elsewhere(second))
    settled(first, host2=elsewhere(second))
    first.docker("config create one -", stdin="x")
    assert second.docker("config ls --format {{.Name}}").lines == ["one"]
    for host in lab:
        eventually(lambda host=host: known_managers(host) == {f"{first.address}:2377", f"{elsewhere(second)}:2377"})

    # The other one, and its agent finds the new address when it starts.
    first.exec("systemctl stop swarm-agent")
    readdress(first, elsewhere(first))
    first.exec("systemctl start swarm-agent")
    settled(second, host1=elsewhere(first), host2=elsewhere(second))
    assert first.docker("info --format {{.Swarm.NodeAddr}}").out == elsewhere(first)
    second.docker("config create two -", stdin="x")
    assert sorted(first.docker("config ls --format {{.Name}}").lines) == ["one", "two"]

    # A worker.
    readdress(third, elsewhere(third))
    settled(second, host3=elsewhere(third))
