"""Which nodes have died, from two witnesses: the node's own session with the leader and gossip's view of it.

A session is lively: a beat a second, so silence shows early. But it only tells of the path to the leader, and short
time-outs on one path make false alarms. Gossip hears of a node from all sides, but takes its time to be sure.
Together:

    silent for more than 1 beat, and gossip says dead           down silent for 3 beats, and gossip does not say alive
    down silent for 3 heartbeat periods (15 s), whatever gossip says down: it cannot be told what to run (this is
    Swarm's own rule)

A connection that was *closed* says that the host's kernel lives and its agent does not: it is being restarted or
upgraded. Its containers run on, so it gets RESTART periods, whatever gossip says.

A node that has not reported to this leader yet may be on its way from the last one: it gets REGISTRATION periods
where gossip has no opinion, and twice Swarm's time where gossip sees it alive.

If the leader itself was asleep (paused, starved), all nodes seem silent. `check` notices that it is called late and
takes that time off.

All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

BEATS_PER_PERIOD = 5
"""A node beats this often per heartbeat period of the cluster's settings (5 s by default, as in Swarm)."""

SILENT_BEATS = 3
SILENT_PERIODS = 3
REGISTRATION = 2
"""Heartbeat periods that a node has to find a new leader."""

RESTART = 2
"""Heartbeat periods that an agent has to come back after its connection was closed."""

FAILED = "heartbeat failure"
FAILED_UNKNOWN = 'heartbeat failure for node in "unknown" state'

Gossip = Callable[[str], bool | None]
"""Gossip's verdict on a node: True alive, False dead, None unknown."""


@dataclass(slots=True)
class _Witness:
    heard: float
    registered: bool
    closed: bool = False  # the node's side ended the session


class Liveness:
    """When each node was last heard. Only nodes that are not known to be down are in here."""

    def __init__(self, period: float = 5.0) -> None:
        self._period = period
        self._nodes: dict[str, _Witness] = {}
        self._checked: float | None = None

    @property
    def beat(self) -> float:
        """Seconds between a node's beats."""
        return self._period / BEATS_PER_PERIOD

    @property
    def interval(self) -> float:
        """Seconds between calls of `check`."""
        return min(self.beat / 4, 0.5)

    def set_period(self, period: float) -> None:
        """The cluster's heartbeat period was changed."""
        self._period = period

    def expect(self, node_id: str, now: float) -> None:
        """The node is a member; it should report to this leader soon."""
        self._nodes.setdefault(node_id, _Witness(now, registered=False))

    def heard(self, node_id: str, now: float) -> None:
        """Something came from the node."""
        witness = self._nodes.get(node_id)
        if witness is None:
            self._nodes[node_id] = _Witness(now, registered=True)
        else:
            witness.heard = now
            witness.registered = True
            witness.closed = False

    def closed(self, node_id: str, now: float) -> None:
        """The node's side closed its session: its agent ended, its host did not."""
        witness = self._nodes.get(node_id)
        if witness is not None:
            witness.heard = now
            witness.closed = True

    def forget(self, node_id: str) -> None:
        """The node is down or gone."""
        self._nodes.pop(node_id, None)

    def check(self, now: float, gossip: Gossip) -> list[tuple[str, str]]:
        """Nodes that must be taken for dead, with the message for their status; they are forgotten until heard
        again."""
        self._forgive(now)
        dead = []
        for node_id, witness in self._nodes.items():
            silent = now - witness.heard
            if silent > self.beat and self._is_dead(witness, silent, gossip(node_id)):
                dead.append((node_id, FAILED if witness.registered else FAILED_UNKNOWN))
        for node_id, _ in dead:
            del self._nodes[node_id]
        return dead

    def _is_dead(self, witness: _Witness, silent: float, alive: bool | None) -> bool:
        if witness.closed:
            return silent >= RESTART * self._period
        patience = 1 if witness.registered else 2
        if alive is False:
            return witness.registered or silent >= SILENT_BEATS * self.beat
        if alive is None:
            beats = SILENT_BEATS * self.beat
            return silent >= (beats if witness.registered else max(beats, REGISTRATION * self._period))
        return silent >= patience * SILENT_PERIODS * self._period

    def _forgive(self, now: float) -> None:
        late = now - self._checked - 2 * self.interval if self._checked is not None else 0.0
        self._checked = now
        if late > 0:
            for witness in self._nodes.values():
                witness.heard = min(now, witness.heard + late)
