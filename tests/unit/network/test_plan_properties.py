"""For any sequence of tables and accidents: bringing a host to its plan step by step ends where a fresh host ends."""

from __future__ import annotations

import base64
import dataclasses
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_agent.model.addresses import mac_of
from swarm_agent.model.objects import Network, NetworkDriverState
from swarm_agent.model.rows import AddressRow, EndpointRow, PeerRow, PortRow
from swarm_agent.model.specs import Driver, IPAMConfig, IPAMOptions, NetworkSpec
from swarm_agent.network.diff import link_of_sysctl
from swarm_agent.network.frontends import Balancer
from swarm_agent.network.iptables import IptablesBalancer
from swarm_agent.network.ipvs import IpvsBalancer
from swarm_agent.network.parts import Memory
from swarm_agent.network.plan import plan
from swarm_agent.network.state import KernelState
from swarm_agent.network.tables import VNI_OPTION, HostFacts, NetworkTables
from tests.unit.network.kernel_model import KernelModel

KEYS = {f"n{index}": base64.b64encode(bytes([index]) * 32).decode() for index in range(5)}
FACTS = HostFacts("n0", "192.168.7.1", key=KEYS["n0"])
NODES = {f"n{index}": f"192.168.7.{index + 1}" for index in range(4)} | {"n4": "192.168.8.1"}
NETWORKS = {"ingress": "10.0.0", "alpha": "10.0.1", "beta": "10.0.2"}
SUBNETS6 = {"beta": "fd00:2::/64"}


def network(name: str) -> Network:
    subnets = [f"{NETWORKS[name]}.0/24", *([SUBNETS6[name]] if name in SUBNETS6 else [])]
    return Network(
        id=name,
        spec=NetworkSpec(
            name=name,
            ingress=name == "ingress",
            ipv6_enabled=name in SUBNETS6,
            driver_configuration=Driver("overlay", {"encrypted": ""} if name == "beta" else {}),
        ),
        ipam_options=IPAMOptions(configs=[IPAMConfig(subnet) for subnet in subnets]),
        driver_state=NetworkDriverState("overlay", {VNI_OPTION: str(4097 + list(NETWORKS).index(name))}),
    )


@st.composite
def endpoint_rows(draw: Callable[..., object]) -> tuple[str, EndpointRow]:
    number = draw(st.integers(20, 29))
    addresses = tuple(
        AddressRow(
            name,
            f"{NETWORKS[name]}.{number}",
            mac_of(f"{NETWORKS[name]}.{number}"),
            draw(st.sampled_from(["", f"{NETWORKS[name]}.200", f"{NETWORKS[name]}.201"])),
        )
        for name in draw(st.sets(st.sampled_from(list(NETWORKS)), min_size=1))
    )
    port = st.builds(
        PortRow,
        st.sampled_from(["tcp", "udp", ""]),
        st.integers(1, 3),
        st.sampled_from([0, 8080, 8081]),
        st.sampled_from(["ingress", "host"]),
    )
    row = EndpointRow(
        f"task{number}",
        draw(st.sampled_from(["service", "another", ""])),
        "web",
        number,
        "container",
        addresses,
        tuple(draw(st.lists(port, max_size=2))),
        draw(st.booleans()),
    )
    return draw(st.sampled_from(list(NODES))), row


def keys(node: str) -> st.SearchStrategy[str]:
    """A host's WireGuard key: none, its first, or the one that it has since it was started again."""
    return st.sampled_from(["", KEYS[node], KEYS[node].swapcase()])


def unique_by_task(rows: list[tuple[str, EndpointRow]]) -> list[tuple[str, EndpointRow]]:
    return list({row.task_id: (owner, row) for owner, row in rows}.values())


@st.composite
def tables(draw: Callable[..., object]) -> NetworkTables:
    names = draw(st.sets(st.sampled_from(list(NETWORKS))))
    nodes = draw(st.sets(st.sampled_from(list(NODES))))
    peers = [
        (node, PeerRow(name, f"{prefix}.{10 + index}", mac_of(f"{prefix}.{10 + index}"), draw(keys(node))))
        for index, node in enumerate(sorted(nodes))
        for name, prefix in NETWORKS.items()
    ]
    return NetworkTables(
        networks=[network(name) for name in names],
        own={name: f"{NETWORKS[name]}.{draw(st.integers(5, 6))}/24" for name in names if draw(st.booleans())},
        hosts={node: NODES[node] for node in nodes},
        endpoints=unique_by_task(draw(st.lists(endpoint_rows(), max_size=6))),
        peers=peers,
    )


BALANCERS = pytest.mark.parametrize("balancer", [IptablesBalancer(), IpvsBalancer()], ids=lambda item: item.name)


def wanted(state: NetworkTables, balancer: Balancer) -> KernelState:
    planned = plan(state, FACTS, balancer)
    assert planned.problems == ()
    return planned.state


LINKS = ["swmesh", "swb-alpha", "swb-beta", "swv-alpha", "swv-beta", "swseal"]
ACCIDENTS = [*LINKS, "nat", "filter", "nat6", "filter6", "ipvs", ""]


@BALANCERS
@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(tables(), st.sampled_from(ACCIDENTS)), min_size=1, max_size=6))
def test_step_by_step_ends_where_a_fresh_host_ends(balancer: Balancer, steps: list[tuple[NetworkTables, str]]) -> None:
    host = KernelModel()
    for state, accident in steps:
        fresh = KernelModel()
        fresh.bring_to(wanted(state, balancer))
        host.bring_to(wanted(state, balancer))
        assert without_host_settings(host) == without_host_settings(fresh)
        assert host.bring_to(wanted(state, balancer)) == []
        if accident.startswith(("nat", "filter")):
            host.flush_table(accident)
        elif accident == "ipvs":
            host.clear_ipvs()
        elif accident:
            host.lose_link(accident)


def without_host_settings(host: KernelModel) -> KernelState:
    """Settings of the host itself are left when a host leaves its cluster; all else must match."""
    host_settings = {path for path in host.sysctls if not link_of_sysctl(path)}
    kept = KernelModel(**{name: getattr(host, name) for name in KernelModel.__dataclass_fields__})
    kept.timeouts = None
    kept.sysctls = {path: value for path, value in host.sysctls.items() if path not in host_settings}
    return kept.state()


@BALANCERS
@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(tables(), st.integers(0, 6), st.booleans()), min_size=2, max_size=6))
def test_a_plan_that_takes_up_the_last_one_is_the_plan_from_scratch(
    balancer: Balancer, steps: list[tuple[NetworkTables, int, bool]]
) -> None:
    """Each step keeps some rows of the one before, and sometimes all of its surroundings."""
    memory, last = Memory(), NetworkTables()
    for state, kept, same_place in steps:
        rows = unique_by_task([*state.endpoints, *list(last.endpoints)[:kept]])
        last = dataclasses.replace(last if same_place else state, endpoints=rows)
        assert plan(last, FACTS, balancer, memory) == plan(last, FACTS, balancer)


@BALANCERS
@settings(max_examples=30, deadline=None)
@given(tables(), st.integers())
def test_the_plan_does_not_depend_on_the_order_of_rows(balancer: Balancer, state: NetworkTables, seed: int) -> None:
    rng = random.Random(seed)
    shuffled = NetworkTables(
        networks=rng.sample(list(state.networks), len(state.networks)),
        own=dict(reversed(list(state.own.items()))),
        hosts=dict(reversed(list(state.hosts.items()))),
        endpoints=rng.sample(list(state.endpoints), len(state.endpoints)),
        peers=rng.sample(list(state.peers), len(state.peers)),
    )
    assert wanted(shuffled, balancer) == wanted(state, balancer)


@BALANCERS
@settings(max_examples=30, deadline=None)
@given(tables())
def test_leaving_the_cluster_leaves_nothing(balancer: Balancer, state: NetworkTables) -> None:
    host = KernelModel()
    host.bring_to(wanted(state, balancer))
    host.bring_to(wanted(NetworkTables(), balancer))
    assert without_host_settings(host) == KernelState()


@settings(max_examples=30, deadline=None)
@given(tables(), tables())
def test_a_host_may_change_its_balancer(before: NetworkTables, after: NetworkTables) -> None:
    host, fresh = KernelModel(), KernelModel()
    host.bring_to(wanted(before, IptablesBalancer()))
    host.bring_to(wanted(after, IpvsBalancer()))
    fresh.bring_to(wanted(after, IpvsBalancer()))
    assert without_host_settings(host) == without_host_settings(fresh)
    host.bring_to(wanted(after, IptablesBalancer()))
    fresh = KernelModel()
    fresh.bring_to(wanted(after, IptablesBalancer()))
    assert without_host_settings(host) == without_host_settings(fresh)
