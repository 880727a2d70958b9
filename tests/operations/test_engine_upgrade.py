"""Another version of the engine's package, from a repository that the hosts have: by the module, and host by host.

The packages are the host's own docker.io, packed again under other versions, so that a real dpkg replaces a real engine
although no mirror can be reached.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.clusterkit import cluster, outside, with_agents
from tests.lab.labkit import Host, Lab, eventually, run
from tests.lab.playbooks import play

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

OLD, NEW = "20.10.24", "20.10.99"
# A repository in a folder: what is packed is what is installed, with its own scripts.
REPACK = r"""
set -e
mkdir -p /root/repository/pack/DEBIAN && cd /root/repository
for script in preinst postinst prerm postrm conffiles; do
    test ! -e /var/lib/dpkg/info/docker.io.$script || cp -p /var/lib/dpkg/info/docker.io.$script pack/DEBIAN/$script
done
dpkg -L docker.io | while read -r path; do test -d "$path" || ! test -e "$path" || printf '%s\n' "$path"; done |
    tar --create --files-from=- 2> /dev/null | tar --extract --directory pack
current=$(dpkg-query --show --showformat='${Version}' docker.io)
for version in "$current" VERSION+lab; do
    dpkg-query --status docker.io | awk '/^[^ ]/ { skip = /^(Status|Conffiles|Version):/ } !skip' > pack/DEBIAN/control
    echo "Version: $version" >> pack/DEBIAN/control
    dpkg-deb -Znone --build pack docker.io_$version.deb > /dev/null
    dpkg-deb --field docker.io_$version.deb
    echo "Filename: ./docker.io_$version.deb"
    echo "Size: $(stat --format %s docker.io_$version.deb)"
    echo "SHA256: $(sha256sum docker.io_$version.deb | cut -d' ' -f1)"
    echo
done > Packages
rm -rf pack
mv /etc/apt/sources.list.d /root/repository/away; mkdir /etc/apt/sources.list.d
test ! -e /etc/apt/sources.list || mv /etc/apt/sources.list /root/repository/sources.list
echo "deb [trusted=yes] file:/root/repository ./" > /etc/apt/sources.list.d/lab.list
echo "$current"
""".replace("VERSION", NEW)
PUT_BACK = f"""
apt-get install --yes --allow-downgrades docker.io=$(ls /root/repository | sed -n 's/docker.io_\\({OLD}.*\\).deb/\1/p')
rm -rf /etc/apt/sources.list.d && mv /root/repository/away /etc/apt/sources.list.d
test ! -e /root/repository/sources.list || mv /root/repository/sources.list /etc/apt/sources.list
rm -rf /root/repository
"""


@pytest.fixture(scope="module")
def first(lab: Lab) -> Iterator[Host]:
    with_agents(lab)
    first = cluster(lab)
    for host in lab:
        host.exec(REPACK, timeout=300)
    yield first
    for host in lab:
        host.exec(PUT_BACK, timeout=300)
    outside(lab)


def engine(host: str, *arguments: str, **parameters: object) -> tuple[int, str]:
    """Exit code and output of swarm_engine."""
    program = [".venv/bin/ansible", "-i", "inventories/lab.yml", host, "--diff", *arguments]
    done = run([*program, "-m", "swarm.cluster.swarm_engine", "-a", json.dumps(parameters)], check=False, timeout=300)
    return done.code, done.out


def version(host: Host) -> str:
    return host.exec("dpkg-query --show --showformat='${Version}' docker.io").out


def test_a_version_is_brought_and_taken_back_and_check_mode_tells_of_it(first: Host) -> None:
    code, output = engine("host1", version="20.10")
    assert code == 0 and "SUCCESS" in output, output
    code, output = engine("host1", version="27.5")
    assert code != 0 and "No version 27.5 of docker.io is known to apt" in output and f"{NEW}+lab" in output
    was = version(first)
    code, output = engine("host1", "--check", version=NEW)
    assert f"replaced docker.io {was} by {NEW}+lab" in output and version(first) == was
    code, output = engine("host1", version=NEW)
    assert "CHANGED" in output and version(first) == f"{NEW}+lab", output
    code, output = engine("host1", version=NEW)
    assert "SUCCESS" in output
    code, output = engine("host1", version=OLD)
    assert "CHANGED" in output and version(first) == was
    eventually(lambda: "Swarm: active" in first.docker("info").out)


def test_engines_are_upgraded_one_after_the_other_with_their_tasks_elsewhere(first: Host, lab: Lab) -> None:
    first.docker("service create --detach --name web --replicas 3 --stop-grace-period 1s alpine sleep 1d")
    pinned = "agent_archive=.cache/" + first.exec("basename $(readlink /opt/swarm-agent/current)").out + ".tar.gz"
    options = ("-e", pinned, "-e", "upgrade_drain=true", "-e", f"upgrade_engine_version={NEW}")
    done = play("playbooks/upgrade.yml", *options)
    assert {version(host) for host in lab} == {f"{NEW}+lab"}
    # Drained, the engine, active again.
    assert {name: done.changed[name] for name in lab.hosts} == dict.fromkeys(lab.hosts, 3), done.stdout
    states = [first.docker("node", "inspect", name).json[0]["Spec"] for name in lab.hosts]
    assert [(state["Availability"], state.get("Labels")) for state in states] == [("active", {})] * 3
    again = play("playbooks/upgrade.yml", *options)
    assert set(again.changed.values()) == {0}, again.stdout
