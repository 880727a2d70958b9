"""Words put into the mouths of members that need not exist: for scenarios in which one message decides."""

from __future__ import annotations

from swarm_agent.gossip import messages as m
from swarm_agent.gossip.seal import Keyring, Sealer

from .gossip_world import KEY, Node, World


class Forger:
    """Somebody with the key who says what we want to have said."""

    def __init__(self, world: World, id: str = "forger") -> None:
        self.world = world
        self.id = id
        self.sealer = Sealer(b"world", Keyring([KEY]), b"forgerforger")

    def say(self, to: Node, *messages: m.Message) -> None:
        header = m.begin(m.Header(self.id, 0, 0, 0, 0))
        packet = self.sealer.seal(m.pack(header, [m.encode(message) for message in messages]))
        to.core.receive(self.world.now, ("10.9.9.9", 7946), packet)
        self.world._after(to)


def lone(world: World, *members: tuple[str, int]) -> Node:
    """A node that believes in these members, none of which answers."""
    node = world.start("n0")
    for number, (id, incarnation) in enumerate(members):
        world.true_incarnation[id] = 10**9
        alive = m.Alive(id, incarnation, "10.8.0.1", 1000 + number, incarnation, b"")
        world.do("n0", lambda core, alive=alive: core.membership.alive(alive))
    return node
