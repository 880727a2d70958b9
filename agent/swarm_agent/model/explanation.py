"""What `swarmctl explain` is told (management API: GET /swarm-agent/v1/explain/TERM). Texts are for people."""

from __future__ import annotations

from .base import Object, always


class NodeVerdict(Object, frozen=True):
    """Whether a node could take one more task, and everything that speaks against it."""

    node_id: str = ""
    hostname: str = ""
    objections: list[str] = always(list)


class Step(Object, frozen=True):
    """A task in the story of its slot, and why it was made."""

    task_id: str = ""
    service_id: str = ""
    name: str = ""
    node_id: str = ""
    hostname: str = ""
    created_at: str = ""
    desired_state: str = ""
    state: str = ""
    since: str = ""
    cause: str = ""
    why: str = ""


class Explanation(Object, frozen=True):
    """`facts` are sentences, the most important first. `nodes`: for a task that waits for a node. `story`: newest
    first."""

    kind: str = ""
    id: str = ""
    name: str = ""
    facts: list[str] = always(list)
    nodes: list[NodeVerdict] = always(list)
    story: list[Step] = always(list)


class RebalanceRequest(Object, frozen=True):
    """POST /swarm-agent/v1/rebalance. `service`: id or name, empty for all that may be moved."""

    service: str = ""
    dry_run: bool = False


class PlannedMove(Object, frozen=True):
    """One move of the look ahead. Nodes by host name."""

    service: str = ""
    task_id: str = ""
    slot: int = always(int)
    source: str = ""
    target: str = ""
    reason: str = ""


class LeftAlone(Object, frozen=True):
    service: str = ""
    reason: str = ""


class RebalanceAnswer(Object, frozen=True):
    """What will be moved, one task of a service after the other, and what will not."""

    moves: list[PlannedMove] = always(list)
    left_alone: list[LeftAlone] = always(list)
