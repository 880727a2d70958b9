"""The choice of addresses: one is taken, several are refused with words that name them (moby's texts)."""

import ipaddress

import pytest

from swarm_agent.model.errors import BadRequest
from swarm_agent.node.addresses import Interface, interfaces, join_host_port, resolve, split_host_port

LO = Interface("lo", (ipaddress.ip_address("127.0.0.1"),), loopback=True)


def nic(name: str, *addresses: str) -> Interface:
    return Interface(name, tuple(ipaddress.ip_address(address) for address in addresses))


def test_a_single_address_needs_no_choice():
    found = resolve("0.0.0.0:2377", "", "", [LO, nic("eth0", "10.0.0.5", "fe80::1")])
    assert (found.advertise_addr, found.listen, found.data_path) == ("10.0.0.5:2377", "0.0.0.0", "10.0.0.5")


def test_two_addresses_on_one_interface_are_refused_by_name():
    with pytest.raises(BadRequest) as refusal:
        resolve("0.0.0.0:2377", "", "", [LO, nic("eth0", "10.0.0.5", "10.0.1.5")])
    assert str(refusal.value) == (
        "could not choose an IP address to advertise since this system has multiple addresses "
        "on interface eth0 (10.0.0.5 and 10.0.1.5)"
    )


def test_two_addresses_on_two_interfaces_are_refused_by_name():
    with pytest.raises(BadRequest, match=r"different interfaces \(10.0.0.5 on eth0 and 192.168.1.5 on eth1\)"):
        resolve("0.0.0.0:2377", "", "", [nic("eth0", "10.0.0.5"), nic("eth1", "192.168.1.5")])


def test_the_engines_own_networks_are_no_candidates():
    found = resolve(
        "", "", "", [nic("eth0", "10.0.0.5"), nic("docker0", "172.17.0.1")], [ipaddress.ip_network("172.17.0.0/16")]
    )
    assert found.advertise == "10.0.0.5"


def test_an_interface_may_be_named():
    nics = [nic("eth0", "10.0.0.5"), nic("eth1", "192.168.1.5")]
    assert resolve("0.0.0.0:2377", "eth1", "", nics).advertise_addr == "192.168.1.5:2377"
    assert resolve("0.0.0.0:2377", "eth1:4000", "eth0", nics).data_path == "10.0.0.5"
    assert resolve("eth0:2500", "", "", nics).advertise_addr == "10.0.0.5:2500"


@pytest.mark.parametrize(
    ("advertise", "text"),
    [
        ("0.0.0.0", "advertise address must be a non-zero IP address"),
        ("10.0.0.1:port", "advertise address must be a non-zero IP address"),
        ("nic9", "advertise address must be a non-zero IP address or network interface"),
        ("eth2", r"interface eth2 has more than one IPv4 address \(10.2.0.1 and 10.2.0.2\)"),
        ("eth3", "interface eth3 has no usable IPv4 or IPv6 addresses"),
    ],
)
def test_bad_advertise_addresses_are_refused(advertise, text):
    nics = [nic("eth0", "10.0.0.5"), nic("eth2", "10.2.0.1", "10.2.0.2"), nic("eth3")]
    with pytest.raises(BadRequest, match=text):
        resolve("0.0.0.0:2377", advertise, "", nics)


def test_an_address_that_only_others_see_needs_one_own_address_or_a_word():
    one, two = nic("eth0", "10.0.0.5"), nic("eth1", "192.168.1.5")
    assert resolve("0.0.0.0:2377", "203.0.113.9", "", [LO, one]).advertise_addr == "203.0.113.9:2377"
    with pytest.raises(BadRequest, match="must specify a listening address because the address to advertise is not"):
        resolve("0.0.0.0:2377", "203.0.113.9", "", [LO, one, two])
    assert resolve("10.0.0.5:2377", "203.0.113.9", "", [LO, one, two]).listen == "10.0.0.5"
    assert resolve("0.0.0.0:2377", "192.168.1.5", "", [LO, one, two]).advertise == "192.168.1.5"


def test_no_address_at_all():
    with pytest.raises(BadRequest, match="could not find the system's IP address"):
        resolve("", "", "", [LO])


def test_host_and_port_of_both_families():
    assert split_host_port("[fd00::1]:2377") == ("fd00::1", 2377)
    assert join_host_port("fd00::1", 2377) == "[fd00::1]:2377"
    for bad in ("host", "host:", ":1", "host:0", "host:99999", "host:٣"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            split_host_port(bad)


def test_the_kernel_lists_loopback():
    assert any(found.loopback and found.name == "lo" for found in interfaces())
