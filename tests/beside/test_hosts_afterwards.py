"""After Docker Swarm was on them, the lab's hosts are as before: the next tests meet nothing of it.

This runs after test_cli_beside_swarm.py (pytest takes files by name), however that ended.
"""

from __future__ import annotations

import pytest

from tests.bench import systems
from tests.lab.clusterkit import http
from tests.lab.labkit import Host, Lab, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TRACES = {
    "namespaces that Swarm's engine forgot": "ls -d /run/docker/netns/*-* 2> /dev/null || true",
    "tunnels": "ip -o link show type vxlan",
    "networks": "docker -H unix:///run/docker.sock network ls -q --filter driver=overlay",
    "the bridge to overlays": "docker -H unix:///run/docker.sock network ls -q --filter name=docker_gwbridge",
    "containers": "docker -H unix:///run/docker.sock ps -aq",
    "listeners": "ss -Htln 'sport = :2377 or sport = :7946'",
    "the engine's configuration": f"ls {systems.DAEMON_JSON}.kept 2> /dev/null || true",
}


def traces(host: Host) -> dict[str, str]:
    found = {what: host.exec(command).out for what, command in TRACES.items()}
    return {what: out for what, out in found.items() if out}


def test_nothing_of_swarm_is_left(lab: Lab) -> None:
    for host in lab:
        assert "Swarm: inactive" in host.engine("info").out
        assert "Live Restore Enabled: true" in host.engine("info").out
        assert eventually(lambda host=host: "Swarm: inactive" in host.docker("info").out)
        assert not traces(host), host.name


def test_an_overlay_of_ours_has_the_first_tunnel_id(lab: Lab) -> None:
    """Which a forgotten namespace of Swarm's would keep for itself."""
    host = lab.host("host1")
    host.docker("swarm", "init", "--advertise-addr", host.address)
    try:
        host.docker("service create --detach --name web --publish 8080:80 whoami")
        eventually(lambda: http(host, 8080))
    finally:
        host.docker("swarm leave --force", timeout=120)
