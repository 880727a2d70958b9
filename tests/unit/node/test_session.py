"""A node's session with real managers over real TLS: when it is given up for one with somebody else."""

import asyncio
import logging
import random
from dataclasses import dataclass, field

import pytest

from swarm_agent.model.objects import NodeDescription
from swarm_agent.model.session import ManagerPeer
from swarm_agent.node.session import SessionClient
from tests.unit.node.two_managers import until


@dataclass
class Knowledge:
    """What a node hears from others than its leader, and what became of its session."""

    dead: set[str] = field(default_factory=set)
    leader: str = ""
    states: list[bool] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)  # where gossip knows managers to be


@pytest.fixture
def known():
    return Knowledge()


@pytest.fixture
async def session(two, known):
    """The second manager's session, which is with the first."""
    _, second = two
    client = SessionClient(
        advertise=second.state.advertise,
        managers=[ManagerPeer(each.id, each.address) for each in two],
        context=second.holder.client_context,
        describe=lambda: NodeDescription(hostname="h2"),
        on_welcome=lambda _: None,
        on_assignments=lambda _: None,
        on_state=known.states.append,
        on_stream=lambda message, address: None,
        address_of=lambda node: known.moved.get(node, ""),
        alive=lambda node: node not in known.dead,
        leader=lambda: known.leader,
        rng=random.Random(1),
    )
    client.start()
    await until(client.connected.is_set)
    yield client
    await client.stop()


async def test_a_session_with_a_manager_that_gossip_finds_dead_is_given_up_once(two, session, known, caplog):
    caplog.set_level(logging.INFO)
    known.dead.add(two[0].id)
    await until(lambda: known.states[:3] == [True, False, True])  # nobody else leads: it is tried again, as the last
    assert f"the session with {two[0].address} is given up: it is dead, as gossip has heard" in caplog.text
    await asyncio.sleep(2.5)  # some beats
    assert session.connected.is_set() and known.states == [True, False, True]


async def test_a_session_is_given_up_when_raft_has_another_leader(two, session, known, caplog):
    caplog.set_level(logging.INFO)
    known.leader = two[0].address
    await asyncio.sleep(1.5)
    assert known.states == [True]
    known.leader = two[1].address
    await until(lambda: known.states[:3] == [True, False, True])
    assert f"the session with {two[0].address} is given up: {two[1].address} leads now" in caplog.text


async def test_dead_managers_are_asked_last_and_the_leader_by_raft_first(two, session, known):
    first, second = (each.address for each in two)
    known.dead.add(two[0].id)
    assert {tuple(session._candidates()) for _ in range(20)} == {(second, first)}
    known.leader = first
    assert session._candidates() == [first, second]


async def test_a_dead_manager_that_had_moved_is_asked_last_at_both_of_its_addresses(two, session, known):
    first, second = (each.address for each in two)
    port = first.rpartition(":")[2]
    known.moved[two[0].id] = "127.0.0.99"
    assert {*session._candidates()} == {first, second, f"127.0.0.99:{port}"}
    known.dead.add(two[0].id)
    assert {tuple(session._candidates()) for _ in range(20)} == {(second, first, f"127.0.0.99:{port}")}
