"""Encrypted networks: what is planned for them, what happens where the kernel cannot, and the messages to WireGuard."""

from __future__ import annotations

import base64
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from swarm_agent.model.objects import Network, NetworkDriverState
from swarm_agent.model.rows import PeerRow
from swarm_agent.model.specs import Driver, NetworkSpec
from swarm_agent.network import NetworkManager, NetworkUnavailable, wireguard
from swarm_agent.network.diff import kernel_operations
from swarm_agent.network.iptables import IptablesBalancer
from swarm_agent.network.names import MESH_LINK, SEAL_LINK, SEAL_TABLE
from swarm_agent.network.nlsocket import attributes
from swarm_agent.network.plan import plan
from swarm_agent.network.sealing import LACKING
from swarm_agent.network.state import (
    AddRule,
    AddWireGuard,
    KernelPlan,
    KernelState,
    RemoveSealed,
    Rule,
    SetFdb,
    SetRoute,
    SetSealed,
    WireGuard,
)
from swarm_agent.network.tables import VNI_OPTION, HostFacts, NetworkTables, own_peer_rows


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


FACTS = HostFacts("me", "192.168.7.1", key=key(1))
HOSTS = {"me": "192.168.7.1", "other": "192.168.7.2", "third": "192.168.7.3"}
VXLAN_PORT, WIREGUARD_PORT = 4788, 4790


def network(name: str, number: int, encrypted: bool, ingress: bool = False) -> Network:
    options = {"encrypted": ""} if encrypted else {}
    return Network(
        id=name,
        spec=NetworkSpec(name=name, ingress=ingress, driver_configuration=Driver("overlay", options)),
        driver_state=NetworkDriverState("overlay", {VNI_OPTION: str(4096 + number)}),
    )


SECRET, OPEN = network("secret", 2, True), network("open", 3, False)
PEERS = [
    ("me", PeerRow("secret", "10.0.2.2", "02:42:0a:00:02:02", key(1))),
    ("other", PeerRow("secret", "10.0.2.3", "02:42:0a:00:02:03", key(2))),
    ("third", PeerRow("open", "10.0.3.4", "02:42:0a:00:03:04", key(3))),
]


def planned(facts: HostFacts = FACTS, *, networks: list[Network] | None = None, peers: object = PEERS) -> KernelPlan:
    tables = NetworkTables(
        networks=networks or [network("ingress", 1, False, ingress=True), SECRET, OPEN],
        own={"ingress": "10.0.1.2/24", "secret": "10.0.2.2/24", "open": "10.0.3.2/24"},
        hosts=HOSTS,
        peers=peers,  # type: ignore[arg-type]
    )
    return plan(tables, facts, IptablesBalancer())


def test_vxlan_of_an_encrypted_network_has_a_port_of_its_own_that_leads_through_wireguard() -> None:
    state = planned().state
    assert (state.vxlans["swv-secret"].port, state.vxlans["swv-open"].port) == (VXLAN_PORT, 4789)
    assert Rule(0, 0, SEAL_TABLE, VXLAN_PORT) in state.rules
    assert state.wireguards == {SEAL_LINK: WireGuard(key(1), WIREGUARD_PORT, 1440, "169.254.77.2/32")}


def test_only_hosts_on_an_encrypted_network_of_this_host_are_peers() -> None:
    state = planned().state
    assert state.sealed == {(SEAL_LINK, key(2)): "192.168.7.2"}
    assert {prefix for table, prefix in state.routes if table == SEAL_TABLE} == {"192.168.7.2/32"}


def test_an_encrypted_networks_packets_leave_room_for_wireguard() -> None:
    state = planned().state
    assert (state.networks["secret"].mtu, state.networks["open"].mtu) == (1390, 1450)
    assert state.vxlans["swv-secret"].mtu == 1390


def test_clear_packets_of_an_encrypted_network_are_dropped_both_ways() -> None:
    chains = planned().state.chains
    assert chains["mangle", "SWARM-MARK-OUT"][0] == f"! -o {SEAL_LINK} -p udp -m udp --dport {VXLAN_PORT} -j DROP"
    assert chains["raw", "SWARM-RAW"][:3] == (
        f"-i {SEAL_LINK} -p udp -m udp --dport {VXLAN_PORT} -m addrtype --dst-type LOCAL -j RETURN",
        f"-i {SEAL_LINK} -j DROP",
        f"-p udp -m udp --dport {VXLAN_PORT} -m addrtype --dst-type LOCAL -j DROP",
    )


def test_a_cluster_without_encrypted_networks_has_nothing_of_it() -> None:
    state = planned(networks=[OPEN]).state
    assert not state.wireguards and not state.sealed
    assert not any(SEAL_LINK in rule for chain in state.chains.values() for rule in chain)


def test_published_ports_are_encrypted_when_the_ingress_network_is() -> None:
    mesh = planned(networks=[network("ingress", 1, True, ingress=True)]).state.vxlans[MESH_LINK]
    assert (mesh.port, mesh.mtu) == (VXLAN_PORT, 1390)
    assert planned().state.vxlans[MESH_LINK].port == 4789


def test_a_host_without_wireguard_leaves_the_network_out_and_sends_nothing_in_the_clear() -> None:
    result = planned(replace(FACTS, key=""))
    assert result.problems == (f"network secret (secret): {LACKING}",)
    assert set(result.state.networks) == {"ingress", "open"}
    assert not result.state.wireguards
    assert "DROP" in result.state.chains["mangle", "SWARM-MARK-OUT"][0]


def test_a_malformed_key_is_named_and_the_host_is_no_peer() -> None:
    result = planned(peers=[("other", PeerRow("secret", "10.0.2.3", "02:42:0a:00:02:03", "; rm -rf"))])
    assert result.state.sealed == {}
    assert "peer row of network secret from node other" in result.problems[0]


def test_a_host_without_key_gets_no_entry_on_an_encrypted_network() -> None:
    peers = [("other", PeerRow("secret", "10.0.2.3", "02:42:0a:00:02:03")), PEERS[2]]
    state = planned(peers=peers).state
    assert {link for link, _ in state.fdb} == {"swv-open", MESH_LINK}
    assert ("swv-secret", "10.0.2.3") not in state.neighbours


def test_the_way_is_there_before_packets_are_sent_to_it() -> None:
    operations = kernel_operations(KernelState(networks=planned().state.networks), planned().state)
    positions = [
        next(at for at, operation in enumerate(operations) if isinstance(operation, kind))
        for kind in (AddWireGuard, SetSealed, SetRoute, AddRule, SetFdb)
    ]
    assert positions == sorted(positions)
    ways = [one for one in operations[positions[2] : positions[4]] if isinstance(one, SetRoute | AddRule)]
    assert ways == [
        SetRoute(SEAL_TABLE, "192.168.7.2/32", "192.168.7.2", SEAL_LINK),
        AddRule(Rule(0, 0, SEAL_TABLE, VXLAN_PORT)),
    ]


def test_a_host_that_comes_back_with_another_key_replaces_its_old_one() -> None:
    fresh = PeerRow("secret", "10.0.2.3", "02:42:0a:00:02:03", key(9))
    before, after = planned().state, planned(peers=[PEERS[0], ("other", fresh), PEERS[2]]).state
    assert kernel_operations(before, after) == [
        SetSealed(SEAL_LINK, key(9), "192.168.7.2", WIREGUARD_PORT),
        RemoveSealed(SEAL_LINK, key(2)),
    ]


def test_own_rows_tell_the_key() -> None:
    assert own_peer_rows({"n": "10.0.0.2/24"}, key(1)) == [PeerRow("n", "10.0.0.2", "02:42:0a:00:00:02", key(1))]


async def test_a_task_is_told_at_once_that_its_host_cannot_encrypt() -> None:
    manager = NetworkManager(node_id="me", underlay="192.168.7.1", engine_socket="/nonexistent/docker.sock")
    manager.update(NetworkTables(networks=[SECRET], own={"secret": "10.0.2.2/24"}))
    with pytest.raises(NetworkUnavailable) as caught:
        await manager.attach("secret")
    assert str(caught.value) == (
        "network secret cannot be had on this host: encrypted networks need WireGuard, which this host's kernel lacks"
    )
    await manager.stop()


# --- keys and messages ------------------------------------------------------------------------------------------------


def test_the_public_key_is_that_of_curve25519() -> None:
    """The test vector of RFC 7748, section 6.1."""
    private = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    public = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert wireguard.public_key(private) == base64.b64encode(public).decode()


def test_the_key_outlives_the_agent_and_is_for_its_owner_only(tmp_path: Path) -> None:
    first = wireguard.own_key(tmp_path / "network.key")
    assert len(first) == 32 and wireguard.own_key(tmp_path / "network.key") == first
    assert (tmp_path / "network.key").stat().st_mode & 0o777 == 0o600
    assert wireguard.own_key(tmp_path / "another.key") != first
    (tmp_path / "network.key").write_bytes(b"cut")
    assert len(wireguard.own_key(tmp_path / "network.key")) == 32


def test_a_peer_may_send_as_its_own_address_only() -> None:
    body = wireguard.encoded(SetSealed(SEAL_LINK, key(2), "192.168.7.2", WIREGUARD_PORT))
    ((kind, peers),) = attributes(body, 0)
    ((_, peer),) = attributes(peers, 0)
    found = dict(attributes(peer, 0))
    assert kind == 8 and found[1] == bytes([2]) * 32
    assert found[4][2:8] == WIREGUARD_PORT.to_bytes(2, "big") + socket.inet_aton("192.168.7.2")
    ((_, allowed),) = attributes(found[9], 0)
    assert dict(attributes(allowed, 0)) == {1: b"\x02\0", 2: socket.inet_aton("192.168.7.2"), 3: b"\x20"}


def test_a_peer_is_removed_by_its_key() -> None:
    ((_, peers),) = attributes(wireguard.encoded(RemoveSealed(SEAL_LINK, key(2))), 0)
    ((_, peer),) = attributes(peers, 0)
    assert dict(attributes(peer, 0)) == {1: bytes([2]) * 32, 3: b"\x01\0\0\0"}
