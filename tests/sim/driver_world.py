"""The asyncio driver under a seed: real `RaftNode`s on an event loop whose time and threads are simulated.

What raft_world.py is for the core, this is for raft/driver.py and raft/snapshotting.py: the order of writing, sending,
applying and answering; tasks that are cancelled; failing and hanging disks; keys that turn; orderly stops. A call
given to a thread runs, whole, at a later moment of virtual time, those of one thread in order. Hosts lose power before
any effect: a message, a write, a sync.

Checked: one leader per term; every member applies the same at each index; nobody speaks after its disk failed; a caller
is never left waiting; no read is stale; and what was acknowledged is there after *all* hosts lost power at once.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from swarm_agent.model.errors import ClusterError
from swarm_agent.raft.driver import RaftNode
from swarm_agent.raft.errors import FatalError, RaftError
from swarm_agent.raft.settings import Settings
from swarm_agent.raft.worker import Done, Worker

from .raft_disk import SimFiles
from .raft_host import Crashed, Machine
from .raft_oracle import Violation
from .virtual_time import VirtualLoop

T = TypeVar("T")

SETTINGS = Settings(segment_size=16 * 1024, snapshot_interval=25, keep_entries=5, stall=3.0)
PATIENCE = 60.0
"""Virtual seconds within which every call must have ended, whatever happens."""


class SimLoop(VirtualLoop):
    """Nothing runs in real threads: what is given to one runs in the loop, here at once."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        self.call_soon(_settle, future, func, args)
        return future


def _settle(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if future.cancelled():
        return
    try:
        future.set_result(func(*args))
    except BaseException as error:
        future.set_exception(error)


class SimWorker:
    """A worker of one life of a host: each call takes time, and is carried out, whole, at its end."""

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._incarnation = host.incarnation
        self._free = 0.0
        self._stopped = False

    def submit(self, call: Callable[[], Any], done: Done) -> None:
        if self._stopped:
            return
        loop = self._host.world.loop
        self._free = max(loop.time(), self._free) + 1e-6 + self._host.write_time()
        loop.call_at(self._free, self._carry_out, call, done)

    run = Worker.run

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._host.world.loop

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.sleep(max(0.0, self._free - self._host.world.loop.time()) + 1e-6)

    def _carry_out(self, call: Callable[[], Any], done: Done) -> None:
        if not self._host.is_on(self._incarnation):
            return
        result, failure = None, None
        try:
            result = call()
        except Crashed:
            self._host.crash("in a write")
            return
        except BaseException as error:
            failure = error
        done(result, failure)


class DriverMachine(Machine):
    """The machine of the core's simulation, as the driver wants it; tells the world of what it applies."""

    def __init__(self, world: DriverWorld) -> None:
        super().__init__()
        self._world = world

    def apply(self, index: int, data: bytes) -> None:
        super().apply(index, data)
        self._world.applied(index, self.chain)

    def install(self, state: Machine) -> None:
        self.index, self.chain, self.values = state.index, state.chain, dict(state.values)


class Link:
    """The transport of one life of a host."""

    def __init__(self, host: Host, incarnation: int) -> None:
        self._host = host
        self._incarnation = incarnation

    def send(self, member: int, data: bytes) -> None:
        host = self._host
        if not host.is_on(self._incarnation):
            return
        if host.died:
            host.world.violations.append(f"host {host.id} speaks after it died of its disk")
        try:
            host.effect()
        except Crashed:
            # In the middle of the driver's work: nothing that it does from here on leaves the machine.
            host.off = True
            host.world.loop.call_soon(host.crash, "before a message")
            return
        host.world.carry(host.id, member, bytes(data))


class Host:
    """One machine and what runs on it."""

    def __init__(self, world: DriverWorld, id_: int) -> None:
        self.world = world
        self.id = id_
        self.rng = random.Random(world.rng.getrandbits(64))
        self.files = SimFiles(random.Random(world.rng.getrandbits(64)))
        self.keys = [bytes([id_]) * 32]
        self.node: RaftNode | None = None
        self.machine = DriverMachine(world)
        self.incarnation = 0
        self.off = True
        self.died = False
        self.slow = 0.0
        self.crash_in: int | None = None

    def is_on(self, incarnation: int) -> bool:
        return not self.off and self.incarnation == incarnation

    def write_time(self) -> float:
        return self.rng.uniform(0.0, self.slow) if self.slow else self.rng.expovariate(500)

    def effect(self) -> None:
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                raise Crashed

    async def boot(self, bootstrap: str | None = None) -> None:
        world = self.world
        self.files.effect = lambda: None
        self.incarnation += 1
        self.died, self.slow, self.crash_in = False, 0.0, None
        self.machine = DriverMachine(world)
        self.off = False
        try:
            member = type("Member", (RaftNode,), {"WORKER": functools.partial(SimWorker, self)})
            self.node = await member.start(
                self.files,
                self.id,
                self.keys,
                self.machine,
                Link(self, self.incarnation),
                rng=random.Random(self.rng.getrandbits(64)),
                bootstrap=bootstrap,
                settings=SETTINGS,
                fatal=self.dies,
            )
        except FatalError as error:
            raise Violation(f"host {self.id} does not start any more: {error}") from error
        self.files.effect = self.effect

    def dies(self, error: BaseException) -> None:
        if not self.files.failing and not self.off:
            self.world.violations.append(f"host {self.id} died: {error}")
        self.died = True
        self.world.note(f"{self.id} dies: {error}")

    def crash(self, why: str) -> None:
        """Power off: the process is no more, and the disk has what it has."""
        self.world.note(f"{self.id} loses power {why}")
        self.off = True
        self.incarnation += 1
        node, self.node = self.node, None
        if node is not None:
            node._shut()
            for task in tuple(node._tasks):
                task.cancel()
        self.files.effect = lambda: None
        self.files.crash()

    async def stop(self) -> None:
        """Stop in order, as the agent does."""
        node = self.node
        if node is None:
            return
        self.world.note(f"{self.id} is stopped")
        try:
            async with asyncio.timeout(3):
                await node.members.transfer_leadership()
        except (RaftError, TimeoutError):
            pass
        if self.node is node:
            await node.stop()
            if self.node is node:
                self.node, self.off = None, True
                self.incarnation += 1

    async def turn_keys(self) -> None:
        node, incarnation = self.node, self.incarnation
        if node is None or len(self.keys) > 1:
            return
        self.keys = [self.rng.randbytes(32), *self.keys]
        self.world.note(f"{self.id} turns its keys")
        try:
            await node.rotate_keys(self.keys)
        except (FatalError, RaftError):
            return
        if self.is_on(incarnation):
            self.keys = self.keys[:1]


class DriverWorld:
    """A cluster of three under one seed. `play` runs faults, `end` heals and checks."""

    FAULTS = ("crash", "crash soon", "cut", "cut one way", "slow disk", "hanging disk", "failing disk", "lossy")
    DEEDS = ("transfer", "stop", "turn keys")

    def __init__(self, seed: int, loop: SimLoop) -> None:
        root = random.Random(seed)
        self.loop = loop
        self.rng = random.Random(root.getrandbits(64))
        self.net = random.Random(root.getrandbits(64))
        self.chance = random.Random(root.getrandbits(64))
        self.delay = root.choice((0.001, 0.005, 0.03))
        self.loss = 0.0
        self.cuts: set[tuple[int, int]] = set()
        self.faults = tuple(fault for fault in (*self.FAULTS, *self.DEEDS) if root.random() < 0.6)
        self.hosts = {id_: Host(self, id_) for id_ in (1, 2, 3)}
        self.chains: dict[int, bytes] = {}
        self.leaders: dict[int, int] = {}
        self.acknowledged: dict[int, str] = {}
        self.reads = self.writes = 0
        self.violations: list[str] = []
        self.story: list[str] = []
        self._deeds: set[asyncio.Task[None]] = set()
        self._healed = False

    def note(self, text: str) -> None:
        self.story.append(f"{self.loop.time():8.3f} {text}")

    # --- what is checked all the time ---------------------------------------------------------------------------------

    def applied(self, index: int, chain: bytes) -> None:
        if self.chains.setdefault(index, chain) != chain:
            self.violations.append(f"two members applied different entries up to {index}")

    def observe(self, host: Host) -> None:
        core = host.node._core if host.node is not None else None
        leads = core is not None and core.leadership is not None
        if core is not None and leads and self.leaders.setdefault(core.term, host.id) != host.id:
            self.violations.append(f"two leaders in term {core.term}")

    def check(self) -> None:
        if self.violations:
            raise Violation(self.violations[0])

    # --- network ------------------------------------------------------------------------------------------------------

    def carry(self, sender: int, to: int, data: bytes) -> None:
        if (sender, to) not in self.cuts and self.net.random() >= self.loss:
            self.loop.call_later(self.net.expovariate(1 / self.delay), self._arrive, to, data)

    def _arrive(self, to: int, data: bytes) -> None:
        host = self.hosts[to]
        if host.node is not None and not host.off:
            host.node.deliver(data)
            self.observe(host)

    # --- clients ------------------------------------------------------------------------------------------------------

    async def client(self, number: int) -> None:
        rng = random.Random(number)
        while not self._healed:
            hosts = list(self.hosts.values())
            leading = [host for host in hosts if host.node is not None and host.node.is_leader]
            write = rng.random() < 0.6
            host = rng.choice(leading if write and leading else hosts)
            if host.node is not None and not host.off:
                if write:
                    await self.ends(self.write(host))
                else:
                    await self.ends(self.read(host))
            await asyncio.sleep(rng.uniform(0.005, 0.1))

    async def ends(self, call: Awaitable[T]) -> T:
        """A call that must come to an end."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await call
        except TimeoutError:
            raise Violation("a caller was left waiting") from None

    async def write(self, host: Host) -> bool:
        node, incarnation = host.node, host.incarnation
        assert node is not None
        self.writes += 1
        value = f"w{self.writes}"
        try:
            index = await node.propose(value.encode())
        except RaftError:
            return False
        if host.is_on(incarnation) and not host.died:  # else the answer never left the machine
            self.acknowledged[index] = value
        return True

    async def read(self, host: Host) -> bool:
        node, incarnation, machine = host.node, host.incarnation, host.machine
        assert node is not None
        at_least = max(self.acknowledged, default=0)
        try:
            await node.read_barrier()
        except (ClusterError, TimeoutError):
            return False
        if host.is_on(incarnation) and not host.died:
            self.reads += 1
            if machine.index < at_least:
                self.violations.append(
                    f"host {host.id} answered a read at {machine.index}, {at_least} was acknowledged"
                )
        return True

    # --- a run --------------------------------------------------------------------------------------------------------

    async def found(self) -> None:
        """Three members, as they come to be in production."""
        first = self.hosts[1]
        await first.boot("host1")
        for id_ in (2, 3):
            await self.hosts[id_].boot()
            assert first.node is not None
            await self.patiently(lambda id_=id_: first.node.members.add_learner(id_, f"host{id_}"))
            await self.patiently(lambda id_=id_: first.node.members.promote(id_))

    @staticmethod
    async def patiently(call: Callable[[], Awaitable[int]]) -> None:
        while True:
            try:
                await call()
                return
            except RaftError:
                await asyncio.sleep(0.1)

    async def play(self, seconds: float) -> None:
        clients = [asyncio.create_task(self.client(number)) for number in range(4)]
        end = self.loop.time() + seconds
        try:
            while self.loop.time() < end:
                await asyncio.sleep(self.chance.uniform(0.1, 2.0))
                self.check()
                if self.faults:
                    await self.fault(self.chance.choice(self.faults))
        finally:
            self._healed = True
            results = await asyncio.gather(*clients, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def fault(self, kind: str) -> None:
        host = self.chance.choice(list(self.hosts.values()))
        if host.off or host.died:
            if host.died and not host.off:
                host.crash("after its disk failed")
            if self.chance.random() < 0.7:
                self.note(f"{host.id} boots")
                await host.boot()
            return
        self.note(f"{kind}: {host.id}")
        if kind == "crash":
            host.crash("suddenly")
        elif kind == "crash soon":
            host.crash_in = self.chance.randint(1, 12)
        elif kind in ("cut", "cut one way"):
            other = self.chance.choice([id_ for id_ in self.hosts if id_ != host.id])
            links = {(host.id, other), (other, host.id)} if kind == "cut" else {(host.id, other)}
            self.cuts |= links
            self.loop.call_later(self.chance.uniform(0.5, 8), self.cuts.difference_update, links)
        elif kind in ("slow disk", "hanging disk"):
            host.slow = 1.5 if kind == "slow disk" else 15.0
            self.loop.call_later(self.chance.uniform(0.5, 5), setattr, host, "slow", 0.0)
        elif kind == "failing disk":
            host.files.failing = True
        elif kind == "lossy":
            self.loss = 0.3
            self.loop.call_later(self.chance.uniform(0.5, 5), setattr, self, "loss", 0.0)
        else:
            deed = {"transfer": self._transfer, "stop": Host.stop, "turn keys": Host.turn_keys}[kind]
            task = asyncio.ensure_future(deed(host))
            self._deeds.add(task)
            task.add_done_callback(self._deeds.discard)

    @staticmethod
    async def _transfer(host: Host) -> None:
        try:
            if host.node is not None:
                await host.node.members.transfer_leadership()
        except RaftError:
            pass

    async def end(self) -> None:
        """No more faults; all hosts lose power at once and come back; then everything is there, and work goes on."""
        self.check()
        await asyncio.gather(*self._deeds, return_exceptions=True)
        self.cuts.clear()
        self.loss = 0.0
        for host in self.hosts.values():
            host.crash("with all others")
        for host in self.hosts.values():
            await host.boot()
        async with asyncio.timeout(30):
            while not any([await self.write(host) for host in self.hosts.values()]):  # noqa: ASYNC110 (virtual)
                await asyncio.sleep(0.1)
        for host in self.hosts.values():
            await self.ends(self.read(host))
            self.check()
            lost = {i: v for i, v in self.acknowledged.items() if host.machine.values.get(i) != v}
            if lost:
                raise Violation(f"acknowledged, and not on host {host.id}: {lost}")
        for host in self.hosts.values():
            await host.stop()
        self.check()


def simulate(seed: int, seconds: float = 25.0) -> DriverWorld:
    """One run. Raises Violation, with the story as a note."""

    async def run() -> DriverWorld:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        world = DriverWorld(seed, loop)
        try:
            await world.found()
            await world.play(seconds)
            await world.end()
        except Exception as error:
            error.add_note(f"seed {seed}, faults {world.faults}\n" + "\n".join(world.story[-60:]))
            raise
        return world

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(run())
