"""preflight on real hosts: what stands in the way is found, named with its remedy, and nothing has been changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.lab.clusterkit import outside, with_agents
from tests.lab.labkit import Host, Lab, eventually
from tests.lab.playbooks import play

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> Lab:
    """Agents on all hosts, in no cluster."""
    with_agents(lab)
    outside(lab)
    return lab


def told(*arguments: str, well: bool = False, **env: str) -> str:
    """What preflight says, in one line: Ansible breaks long ones where it likes."""
    done = play("site.yml", "--tags", "preflight", *arguments, check=False, env=env)
    assert (done.returncode == 0) == well, done.stdout
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}
    return " ".join(done.stdout.split())


@pytest.fixture
def twins(hosts: Lab) -> Iterator[tuple[Host, Host]]:
    """host3 with the hostname and machine id of host2, as a copied disk has them."""
    _, second, third, *_ = hosts
    name, identity = third.exec("hostname").out, third.exec("cat /etc/machine-id").out
    third.exec("cat > /etc/machine-id && hostname host2", stdin=second.exec("cat /etc/machine-id").out + "\n")
    yield second, third
    third.exec(f"cat > /etc/machine-id && hostname {name}", stdin=identity + "\n")


@pytest.fixture
def squatter(hosts: Lab) -> Iterator[Host]:
    """host1, where somebody else has the port that managers are reached on."""
    first, *_ = hosts
    first.exec("systemd-run --quiet --unit=squatter python3 -m http.server 2377")
    eventually(lambda: "2377" in first.exec("ss -ltn").out)
    yield first
    first.exec("systemctl stop squatter")


def test_all_findings_of_all_hosts_come_at_once(twins: tuple[Host, Host], squatter: Host) -> None:
    text = told()
    assert "found 2377/tcp is taken by python3 wanted that port free for the cluster fix stop python3" in text
    assert "hostname host2, as on host3" in text and "hostname host2, as on host2" in text
    assert "machine id" in text and "systemd-machine-id-setup" in text


def test_one_address_for_two_hosts(hosts: Lab) -> None:
    """Two names of the inventory for one host."""
    text = told("--limit", "host1:host2", "-e", f"ansible_host={hosts.host('host1').address}")
    assert f"address {hosts.host('host1').address}, as on host2" in text and "set cluster_address for each host" in text


def test_without_root_it_says_which_user_it_was(hosts: Lab) -> None:
    become = {"ansible_become_user": "nobody", "ansible_become_method": "su", "ansible_become_flags": "-s /bin/sh"}
    assert "found user nobody wanted root fix add --become" in told("-e", json.dumps(become))


def test_a_finding_that_is_accepted_is_none(twins: tuple[Host, Host]) -> None:
    told("-e", '{"preflight_accept": ["hostname", "machine_id"]}', well=True)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles"])
def test_the_controllers_time_zone_is_no_difference_of_clocks(hosts: Lab, zone: str) -> None:
    told(well=True, TZ=zone)
