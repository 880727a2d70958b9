"""How long endpoints stay reachable after they left, and which tracked connections go with them."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_agent.model.rows import AddressRow, EndpointRow, PortRow
from swarm_agent.network.conntrack import Answers, SentTo
from swarm_agent.network.drain import LINGER, Draining, OwnedRow, advance, stale_connections, stale_of

HOSTS = {"a": "192.168.0.1", "b": "192.168.0.2"}


def row(task: str, ip: str = "10.0.0.5", vip: str = "", protocol: str = "udp") -> EndpointRow:
    ports = (PortRow(protocol, 53, 5353, "ingress"),)
    return EndpointRow(task, "s", "dns", 1, "c", (AddressRow("n", ip, "", vip),), ports)


def inactive(item: OwnedRow) -> OwnedRow:
    return item[0], msgspec.structs.replace(item[1], active=False)


def test_a_withdrawn_row_stays_inactive_until_the_time_is_over() -> None:
    item = ("a", row("t"))
    state, rows = advance(Draining(), [item], HOSTS, 0)
    assert rows == [item]
    state, rows = advance(state, [], HOSTS, 1)
    assert rows == [inactive(item)]
    assert state.next_wake() == 1 + LINGER
    state, rows = advance(state, [], HOSTS, 1 + LINGER / 2)
    assert rows == [inactive(item)]
    state, rows = advance(state, [], HOSTS, 1 + LINGER)
    assert rows == []
    assert state.next_wake() is None


def test_a_dead_hosts_rows_do_not_stay() -> None:
    state, _ = advance(Draining(), [("a", row("t"))], HOSTS, 0)
    _, rows = advance(state, [], {"b": "192.168.0.2"}, 1)
    assert rows == []


def test_a_row_that_was_inactive_before_goes_at_once() -> None:
    state, _ = advance(Draining(), [inactive(("a", row("t")))], HOSTS, 0)
    _, rows = advance(state, [], HOSTS, 1)
    assert rows == []


def test_a_row_that_returns_is_active_again() -> None:
    item = ("a", row("t"))
    state, _ = advance(Draining(), [item], HOSTS, 0)
    state, _ = advance(state, [], HOSTS, 1)
    state, rows = advance(state, [item], HOSTS, 2)
    assert rows == [item]
    assert state.next_wake() is None


def test_an_address_goes_to_its_next_task_at_once() -> None:
    state, _ = advance(Draining(), [("a", row("old"))], HOSTS, 0)
    _, rows = advance(state, [("b", row("new"))], HOSTS, 1)
    assert rows == [("b", row("new"))]


def test_inactive_endpoints_lose_udp_and_removed_ones_all() -> None:
    item = ("a", row("t"))
    assert stale_connections([item], [inactive(item)]) == [Answers("10.0.0.5", "udp")]
    assert stale_connections([inactive(item)], []) == [Answers("10.0.0.5")]
    assert stale_connections([item], []) == [Answers("10.0.0.5")]
    assert stale_connections([item], [item]) == []


def test_an_address_that_goes_over_to_another_task_loses_all() -> None:
    old, new = ("a", row("old")), ("b", row("new"))
    assert stale_connections([inactive(old)], [new]) == [Answers("10.0.0.5"), SentTo("udp", 5353)]
    assert stale_connections([old], [inactive(new)]) == [Answers("10.0.0.5")]
    assert stale_connections([inactive(old), new], [new]) == [], "its next task's connections stay"


def test_first_endpoint_of_a_udp_port_or_vip_frees_those_who_asked_before() -> None:
    assert stale_connections([], [("a", row("t", vip="10.0.0.9"))]) == [
        SentTo("udp", 5353),
        SentTo("udp", ip="10.0.0.9"),
    ]
    assert stale_connections([], [("a", row("t", protocol="tcp"))]) == []


ROWS = st.builds(
    lambda task, owner, end, vip, protocol, published, active: (
        owner,
        EndpointRow(
            task, "s", "dns", 1, "c", (AddressRow("n", f"10.0.0.{end}", "", vip),),
            (PortRow(protocol, 53, published, "ingress"),), active,
        ),
    ),
    st.sampled_from("tuvw"), st.sampled_from("ab"), st.integers(5, 7), st.sampled_from(["", "10.0.0.100"]),
    st.sampled_from(["udp", "tcp"]), st.sampled_from([0, 5353, 5354]), st.booleans(),
)  # fmt: skip
TABLES = st.lists(ROWS, max_size=5, unique_by=lambda item: item[1].task_id)


@settings(max_examples=300, deadline=None)
@given(TABLES, TABLES, st.integers(0, 5))
def test_only_rows_that_have_to_do_with_a_change_are_looked_at(
    before: list[OwnedRow], after: list[OwnedRow], same: int
) -> None:
    after = list({row.task_id: (owner, row) for owner, row in (*after, *before[:same])}.values())
    assert stale_connections(before, after) == stale_of(before, after)
