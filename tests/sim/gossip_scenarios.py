"""What is asked of a cluster of any size, in virtual time: how long a row and a death take to be known, what quiet
costs, how long agreement takes after restarts and splits. The tests run these small, tests/bench/gossip_sizes.py large.
"""

from __future__ import annotations

from swarm_agent.gossip.config import Config

from .gossip_world import World


def quiet(world: World, seconds: float) -> float:
    """Bytes sent per node and second, packets only."""
    before = sum(node.bytes_out for node in world.nodes.values())
    world.run(seconds)
    return (sum(node.bytes_out for node in world.nodes.values()) - before) / len(world.nodes) / seconds


def row_times(world: World, rows: int, gap: float = 1.5) -> list[float]:
    """Seconds until a new row is on every node, for rows of different owners one after another."""
    nodes = list(world.nodes.values())
    times = []
    for number in range(rows):
        owner = nodes[(number * 7919) % len(nodes)].id
        sequence = world.publish(owner, f"row{number}", b"10.0.0.1:8080")
        start = world.now
        waiting = [node for node in nodes if node.id != owner]

        def everywhere(owner: str = owner, sequence: int = sequence) -> bool:
            nonlocal waiting
            waiting = [node for node in waiting if node.sequence_of(owner) < sequence]
            return not waiting

        assert world.run_until(everywhere, 30, step=0.01), f"{len(waiting)} nodes have not got the row"
        times.append(world.now - start)
        world.run(gap)
    return times


def kill_times(world: World, victim: str) -> tuple[float, float]:
    """Power off: seconds until the first and until the last of the others holds it for dead."""
    world.run(world._net.uniform(0, 1))
    start = world.now
    world.kill(victim)
    known: dict[str, float] = {}
    seen = len(world.deaths)
    others = sum(node.up for node in world.nodes.values())

    def all_know() -> bool:
        nonlocal seen
        for at, observer, subject in world.deaths[seen:]:
            if subject == victim:
                known.setdefault(observer, at)
        seen = len(world.deaths)
        return len(known) == others

    if not all_know() and not world.run_until(all_know, 120, step=0.02):
        raise AssertionError(f"{others - len(known)} of {others} do not know after 120 s")
    return min(known.values()) - start, max(known.values()) - start


def restart(world: World, id: str) -> None:
    """The host comes back as another process."""
    world.start(id)
    world.join(id, next(other.id for other in world.nodes.values() if other.up and other.id != id))


def mass_restart(world: World, share: float, down: float = 0.5) -> float:
    """That share of the nodes loses power at once and is back after `down`; seconds until all agree."""
    nodes = list(world.nodes)[1:]
    gone = nodes[: max(1, int(len(nodes) * share))]
    for id in gone:
        world.kill(id)
    world.run(down)
    for id in gone:
        restart(world, id)
    return world.settle(120)


def rolling_restart(world: World, count: int, gap: float) -> tuple[float, int]:
    """One node after another restarts with a farewell; seconds until agreement after the last, deaths declared."""
    before = len(world.deaths)
    for id in list(world.nodes)[1 : 1 + count]:
        world.leave(id)
        world.run_until(lambda id=id: world.nodes[id].core.left, 3, step=0.02)
        world.kill(id)
        world.run(gap)
        restart(world, id)
        world.run(gap)
    took = world.settle(120)
    return took, len(world.deaths) - before


def split(world: World, seconds: float, share: float = 0.5) -> float:
    """That share of the nodes and the others do not hear each other for that long; seconds until all agree after it."""
    ids = list(world.nodes)
    part = max(1, int(len(ids) * share))
    world.partition(ids[:part], ids[part:])
    before = len(world.deaths)
    world.run(seconds)
    assert len(world.deaths) > before, "the halves do not miss each other"
    world.heal()
    return world.settle(180)


def false_deaths_under_loss(world: World, loss: float, seconds: float) -> int:
    """Living nodes declared dead by anybody while packets are lost."""
    world.loss = loss
    before = len(world.deaths)
    world.run(seconds)
    world.loss = 0.0
    return len({subject for _, _, subject in world.deaths[before:]})


def hiccups(world: World, id: str, stop: float, go: float, frozen: bool = False) -> None:
    """That node stops for `stop` / 2 to `stop` seconds after running for up to `go`, again and again. `frozen`: its
    kernel too.
    """

    def next_pause() -> None:
        if world.nodes[id].up:
            length = world._net.uniform(stop / 2, stop)
            world.pause(id, length, frozen)
            world.at(length + world._net.uniform(0, go), next_pause)

    world.at(world._net.uniform(0, go), next_pause)


def false_deaths_of_starved(world: World, count: int, seconds: float) -> int:
    """So many nodes read up to 1 s late, and as many stop for up to 2 s again and again: living nodes, these or others,
    that anybody declared dead.
    """
    ids = list(world.nodes)[1:]
    before = len(world.deaths)
    for id in ids[:count]:
        world.nodes[id].lag = 1.0
    for id in ids[-count:]:
        hiccups(world, id, 2.0, 0.5)
    world.run(seconds)
    return len({subject for _, _, subject in world.deaths[before:]})


def formed(count: int, seed: object = 0, *, check: bool = True, config: Config | None = None) -> World:
    """A world of that many nodes that know each other, after their first probes."""
    world = World(f"{count}/{seed}", check=check, config=config)
    world.formed(count)
    world.run(1.0)
    return world
