"""Which managers may be taken out of raft."""

from __future__ import annotations

import pytest

from swarm_agent.node.role_keeper import can_remove
from swarm_agent.raft.settings import MemberStatus, Status


def status(*members: tuple[int, bool, bool]) -> Status:
    """Member 1 leads; members are (id, voter, active)."""
    found = tuple(MemberStatus(id_, "", voter, active, 0) for id_, voter, active in members)
    return Status(id=1, term=1, leader=1, leads=True, first=1, last=1, committed=1, applied=1, members=found)


@pytest.mark.parametrize(
    ("members", "leaving", "allowed"),
    [
        (((1, True, False), (2, True, True), (3, True, True)), 3, True),  # the leader counts as heard of
        (((1, True, True), (2, True, True), (3, True, False)), 2, False),  # 1 of the remaining 2 would answer
        (((1, True, True), (2, True, True), (3, True, False)), 3, True),  # the dead one may go
        (((1, True, True),), 1, False),
        (((1, True, True), (2, False, False)), 2, True),  # a learner has no vote to lose
        (((1, True, True), (2, True, False)), 9, True),  # not a member
    ],
)
def test_a_manager_may_go_while_the_rest_keeps_a_majority(members, leaving, allowed):
    assert can_remove(leaving, status(*members)) is allowed
