"""netcheck on real hosts: all is well before and after installation, and every accident is named with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.lab.labkit import Host, Lab
from tests.lab.playbooks import play

pytestmark = pytest.mark.lab

PLAYBOOK = "playbooks/netcheck.yml"
# Hosts start within moments of each other, on a busy machine within seconds.
QUICK = ("-e", "netcheck_timeout=12")


@pytest.fixture(autouse=True)
def _whole(lab: Lab) -> Iterator[None]:
    yield
    for host in lab:
        host.exec(
            "nft delete table inet netchecktest 2>/dev/null; nft delete table ip netchecknat 2>/dev/null;"
            f"ip address del {masked(host)}/32 dev eth0 2>/dev/null; ip link set dev eth0 mtu 1500"
        )
    lab.restore()


def refuse(host: Host, *rules: str) -> None:
    """Let a packet filter of the host's own drop what the rules say."""
    chain = "add chain inet netchecktest in { type filter hook input priority -10; }"
    added = "\n".join(f"add rule inet netchecktest in {rule} drop" for rule in rules)
    host.exec("nft -f -", stdin=f"add table inet netchecktest\n{chain}\n{added}\n")


def masked(host: Host) -> str:
    """An address of the lab's network that no host has."""
    network, number = host.address.rsplit(".", 1)
    return f"{network}.{int(number) + 200}"


def translate(host: Host, target: Host) -> str:
    """Let what the host sends to the target come from another address, as behind a router that hides it."""
    chain = "add chain ip netchecknat out { type nat hook postrouting priority 100; }"
    rule = f"add rule ip netchecknat out ip daddr {target.address} snat to {masked(host)}"
    host.exec(f"ip address add {masked(host)}/32 dev eth0")
    host.exec("nft -f -", stdin=f"add table ip netchecknat\n{chain}\n{rule}\n")
    return masked(host)


def told(*arguments: str, well: bool) -> str:
    done = play(PLAYBOOK, *arguments, check=False)
    assert (done.returncode == 0) == well, done.stdout
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}
    return " ".join(done.stdout.split())  # Ansible breaks long lines where it likes


def test_a_sound_network_before_anything_is_installed_or_after(lab: Lab) -> None:
    text = told(well=True)
    assert text.count("ok, mtu 1500") == len(lab.hosts) * (len(lab.hosts) - 1)
    assert "note:" not in text


def test_a_filter_for_the_port_of_encrypted_networks_is_noted_and_no_fault(lab: Lab) -> None:
    refuse(lab.host("host2"), "udp dport 4790")
    text = told(well=True)
    assert "note: 4790/udp does not arrive from host1 to host2, from host3 to host2: encrypted networks alone" in text


def test_filters_that_drop_in_one_direction_are_named_port_by_port(lab: Lab) -> None:
    first, second, third, *_ = lab
    refuse(third, f"ip saddr {first.address} udp dport 4789", f"ip saddr {second.address} udp dport 7946")
    refuse(first, f"ip saddr {second.address} tcp dport 2377")
    text = told(*QUICK, well=False)
    assert "from host1 to host3: 4789/udp (nothing arrives)" in text
    assert "from host2 to host3: 7946/udp (nothing arrives)" in text
    assert "from host2 to host1: 2377/tcp (no answer)" in text
    assert f"let 4789/udp in from {first.address}" in text
    assert "from host3 to" not in text


def test_a_cut_link_and_a_path_that_swallows_large_packets(lab: Lab) -> None:
    _, second, third, *_ = lab
    lab.cut("host1", "host2", one_way=True)
    refuse(third, f"ip saddr {second.address} ip length > 1420")
    text = told(*QUICK, well=False)
    assert "packets of 1420 bytes get from host2 to host3" in text and "driver.mtu=1370" in text
    assert "from host1 to host2: 7946/tcp" in text and "4789/udp (nothing arrives)" in text


def test_translated_addresses_are_named_in_the_direction_that_they_are_seen_in(lab: Lab) -> None:
    first, _, third, *_ = lab
    other = translate(first, third)
    text = told(*QUICK, well=False)
    assert f"host3 sees host1 as {other}, not as {first.address}" in text
    assert "sees host3 as" not in text and "host2 sees host1" not in text
