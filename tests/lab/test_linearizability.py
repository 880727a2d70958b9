"""No acknowledged write is lost and no read is stale, whatever happens to leaders.

Clients read and write through the sockets of all managers while the leader is killed, restarted, frozen, cut off in
three ways, and switched off: alone among three managers, and together with a follower among five, which leaves the
barest majority each time. What they write is the label of a config, always on condition of the version that they read,
as `docker` does; what they see must be explained by one register per config (tests/lab/linearizability.py). Besides,
each client creates secrets under names of its own: those acknowledged must all be there at the end, the removed ones
not.

The hosts' sockets stay within reach of the clients in every accident, also that of a leader cut off from the others:
that one must fail or wait, never answer from memory.

`make linearizability SWEEPS=20` meets with all accidents so many times, in another order each time.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.lab.apiclient import Api, ApiError, Unanswered
from tests.lab.clusterkit import nodes, outside, with_agents
from tests.lab.labkit import Host, Lab, eventually
from tests.lab.linearizability import Operation, Read, Register, Swap, check
from tests.lab.playbooks import play

SWEEPS = int(os.environ.get("SWEEPS", "1"))

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300 + 300 * SWEEPS)]

KEYS = ("north", "east", "south", "west")
CLIENTS = 9
PATIENCE = 4.0  # seconds a client waits for an answer, then goes on and never learns the outcome
PAUSE = 0.02  # seconds between two operations of a client: a history that can be checked in a moment


@dataclass
class History:
    """What the clients saw."""

    operations: list[Operation] = field(default_factory=list)
    created: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    refusals: Counter[str] = field(default_factory=Counter)

    def writes_between(self, start: float, end: float) -> int:
        """Acknowledged writes whose call and return both lie between."""
        return sum(
            isinstance(each.action, Swap) and each.returned is not None and start < each.called < each.returned < end
            for each in self.operations
        )


class Client:
    """Does one thing after another through one manager."""

    def __init__(self, name: str, host: Host, history: History) -> None:
        self._name = name
        self._api = Api(host.socket, timeout=PATIENCE)
        self._history = history
        self._count = 0

    async def run(self, stop: asyncio.Event) -> None:
        async with self._api:
            while not stop.is_set():
                self._count += 1
                key = KEYS[(self._count + hash_of(self._name)) % len(KEYS)]
                found = await self._read(key)
                if found is not None and self._count % 2:
                    await self._swap(key, *found)
                if self._count % 5 == 0:
                    await self._create_and_remove(f"{self._name}-{self._count}")
                await asyncio.sleep(PAUSE)

    async def _read(self, key: str) -> tuple[str, str, int] | None:
        called = time.monotonic()
        try:
            config = await self._api.get(f"/configs/{key}")
        except (Unanswered, ApiError) as error:
            self._history.refusals[kind_of(error)] += 1
            return None
        value = config["Spec"]["Labels"]["value"]
        self._note(key, Read(value), called)
        return config["ID"], value, config["Version"]["Index"]

    async def _swap(self, key: str, identifier: str, expected: str, version: int) -> None:
        value = f"{self._name}-{self._count}"
        called = time.monotonic()
        spec = {"Name": key, "Labels": {"value": value}}
        try:
            await self._api.post(f"/configs/{identifier}/update?version={version}", spec)
        except (Unanswered, ApiError) as error:
            self._history.refusals[kind_of(error)] += 1
            if not refused(error):
                self._note(key, Swap(expected, value), called, known=False)
            return
        self._note(key, Swap(expected, value), called)

    async def _create_and_remove(self, name: str) -> None:
        """Of every two secrets one is removed again."""
        history = self._history
        try:
            made = await self._api.post("/secrets/create", {"Name": name, "Data": "eA=="})
        except (Unanswered, ApiError):
            history.doubtful.add(name)
            return
        history.created.add(name)
        if self._count % 10 == 0:
            history.created.remove(name)
            try:
                await self._api.delete(f"/secrets/{made['ID']}")
            except (Unanswered, ApiError):
                history.doubtful.add(name)
                return
            history.removed.add(name)

    def _note(self, key: str, action: Read | Swap, called: float, *, known: bool = True) -> None:
        returned = time.monotonic() if known else None
        self._history.operations.append(Operation(self._name, key, action, called, returned))


def hash_of(name: str) -> int:
    return sum(name.encode())


def refused(error: Unanswered | ApiError) -> bool:
    """Whether the manager said that it did not do it, rather than that it does not know."""
    return isinstance(error, ApiError) and error.message.endswith("update out of sequence")


def kind_of(error: Unanswered | ApiError) -> str:
    return "no answer" if isinstance(error, Unanswered) else error.message


# --- accidents --------------------------------------------------------------------------------------------------------


def kill_agent(lab: Lab, victim: Host) -> None:
    victim.exec("kill -9 $(systemctl show --property MainPID --value swarm-agent)")


def restart_agent(lab: Lab, victim: Host) -> None:
    victim.exec("systemctl restart swarm-agent")


def freeze(lab: Lab, victim: Host) -> None:
    victim.freeze()


def cut_off(lab: Lab, victim: Host) -> None:
    lab.cut(victim.name)


def muted(lab: Lab, victim: Host) -> None:
    """It hears the others and they do not hear it."""
    lab.cut(victim.name, one_way=True)


def deafened(lab: Lab, victim: Host) -> None:
    """They hear it and it does not hear them."""
    for other in lab:
        if other is not victim:
            lab.cut(other.name, victim.name, one_way=True)


def power_off(lab: Lab, victim: Host) -> None:
    victim.kill()


ACCIDENTS: tuple[Callable[[Lab, Host], None], ...] = (
    *(kill_agent, restart_agent, freeze, cut_off, muted, deafened, power_off),
)
PASSING = (kill_agent, restart_agent)  # the agent comes back by itself, and may lead again


def leader_as_told_by(host: Host) -> str | None:
    """Name of the host that leads, by the word of this one."""
    return next((node["Hostname"] for node in nodes(host) if node["ManagerStatus"] == "Leader"), None)


def all_agree(lab: Lab) -> Host | None:
    """The leader, when every manager names the same one and holds all managers for reachable."""
    told = {leader_as_told_by(host) for host in lab}
    reachable = all(node["ManagerStatus"] in ("Leader", "Reachable") for node in nodes(next(iter(lab))))
    [leader] = told
    return lab.host(leader) if leader and reachable else None


def victims_of(lab: Lab, leader: Host, rng: random.Random) -> list[Host]:
    """The leader and as many others as the group can do without."""
    others = [host for host in lab if host is not leader]
    return [leader, *rng.sample(others, (len(lab.hosts) - 1) // 2 - 1)]


async def meet_with_accidents(lab: Lab, history: History, rng: random.Random) -> Counter[str]:
    """All of them, one after another; for each, how many writes were acknowledged between the accident and its end."""
    written: Counter[str] = Counter()
    for accident in [accident for _ in range(SWEEPS) for accident in rng.sample(ACCIDENTS, len(ACCIDENTS))]:
        leader = await asyncio.to_thread(eventually, lambda: all_agree(lab), 60)
        victims = victims_of(lab, leader, rng)
        survivor = next(host for host in lab if host not in victims)
        begun = time.monotonic()
        for victim in victims:
            await asyncio.to_thread(accident, lab, victim)
        if accident not in PASSING:
            lost = {None, *(victim.name for victim in victims)}
            await asyncio.to_thread(
                eventually, lambda asked=survivor, lost=lost: leader_as_told_by(asked) not in lost, 60
            )
        # Long enough for what was asked of the lost leader to run into its time limit, and for writes by the next.
        while history.writes_between(begun, time.monotonic()) < 20 or time.monotonic() < begun + PATIENCE:
            await asyncio.sleep(0.1)
            assert time.monotonic() < begun + 60, f"{accident.__name__}: no writes for a minute"
        written[accident.__name__] += history.writes_between(begun, time.monotonic())
        await asyncio.to_thread(lab.restore)
    await asyncio.to_thread(eventually, lambda: all_agree(lab), 60)
    return written


# --- the test ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[3, 5], ids=["three", "five"])
def managers(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """So many hosts, all managers of one cluster that has the configs. What is beyond three goes at the end."""
    if request.param > len(lab.hosts):
        lab = lab.grow(request.param)
        play("site.yml", "--skip-tags", "cluster")
    else:
        with_agents(lab)
    outside(lab)
    first, *others = lab
    first.docker("swarm", "init", "--advertise-addr", first.address)
    token = first.docker("swarm join-token -q manager").out
    for host in others:
        host.docker("swarm", "join", "--token", token, f"{first.address}:2377")
    for key in KEYS:
        first.docker("config", "create", "--label", "value=none", key, "-", stdin="x")
    yield lab
    lab.restore()
    eventually(lambda: all("Swarm:" in host.docker("info", check=False).out for host in lab))
    outside(lab)
    lab.shrink(3)


async def test_every_history_is_linearizable_and_no_acknowledged_write_is_lost(managers: Lab):
    history, stop, rng = History(), asyncio.Event(), random.Random(os.environ.get("SEED", "1"))
    hosts = list(managers)
    clients = [Client(f"{hosts[n % len(hosts)].name}-{n}", hosts[n % len(hosts)], history) for n in range(CLIENTS)]
    running = [asyncio.create_task(client.run(stop)) for client in clients]
    try:
        written = await meet_with_accidents(managers, history, rng)
    finally:
        stop.set()
        await asyncio.gather(*running)
    print(
        f"{len(history.operations)} operations, acknowledged during accidents: {dict(written)}, "
        f"refused: {history.refusals}"
    )
    violation = check(history.operations, Register(start="none"))
    assert violation is None, str(violation)
    for host in managers:
        names = set(host.docker("secret ls --format {{.Name}}").lines)
        assert history.created - names == set(), f"acknowledged and lost, {host.name} says"
        assert names & history.removed == set(), f"removed and back, {host.name} says"
        assert names <= history.created | history.doubtful, f"never asked for, {host.name} says"
    by_host = Counter(each.client.split("-")[0] for each in history.operations)
    assert min(by_host[host.name] for host in managers) > 100, f"all managers were asked: {by_host}"
