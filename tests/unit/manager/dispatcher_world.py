"""A dispatcher on a store in virtual time, and peers: the nodes' ends of its channels."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec

from swarm_agent.manager.dispatcher import Dispatcher
from swarm_agent.model.objects import Cluster, Node, NodeDescription, Task, TaskStatus
from swarm_agent.model.session import (
    Assignments,
    FromNode,
    Heartbeat,
    Hello,
    Statuses,
    TaskStatusUpdate,
    ToNode,
    Welcome,
    decode_to_node,
    encode_message,
)
from swarm_agent.model.specs import ConfigReference, ContainerSpec, SecretReference, TaskSpec
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import rfc3339
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store
from tests.sim import virtual_time

replace = msgspec.structs.replace


class Peer:
    """A node's end of a channel."""

    def __init__(self, dispatcher: Dispatcher, node_id: str) -> None:
        self.node_id = node_id
        self._to_leader: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._to_node: asyncio.Queue[bytes] = asyncio.Queue()
        self.served = asyncio.create_task(dispatcher.session(node_id, self))

    async def send(self, data: bytes) -> None:
        self._to_node.put_nowait(data)

    async def receive(self) -> bytes | None:
        return await self._to_leader.get()

    def say(self, message: FromNode) -> None:
        self._to_leader.put_nowait(encode_message(message))

    def say_bytes(self, data: bytes | None) -> None:
        self._to_leader.put_nowait(data)

    def hello(self, hostname: str = "host", advertise: str = "10.9.0.1") -> None:
        self.say(Hello(description=NodeDescription(hostname=hostname), advertise=advertise))

    def report(self, task_id: str, state: TaskState, **status: Any) -> None:
        self.say(Statuses(updates=[TaskStatusUpdate(task_id, TaskStatus(state=state, **status))]))

    async def next(self) -> ToNode:
        async with asyncio.timeout(5):
            return decode_to_node(await self._to_node.get())

    async def welcome(self) -> Welcome:
        message = await self.next()
        assert isinstance(message, Welcome)
        return message

    async def assignments(self) -> Assignments:
        message = await self.next()
        assert isinstance(message, Assignments)
        return message

    async def silent(self, seconds: float = 1.0) -> bool:
        """Nothing is sent to the node for a while."""
        await asyncio.sleep(seconds)
        return self._to_node.empty()

    async def closed(self) -> bool:
        async with asyncio.timeout(5):
            await self.served
        return True


class World:
    """A dispatcher on a store in virtual time, with gossip's verdicts as told."""

    def __init__(self) -> None:
        self.store: Store = memory_store(clock=lambda: rfc3339(virtual_time.clock()))
        self.gossip: dict[str, bool] = {}
        self.dispatcher = self.make()
        self.beating: set[str] = set()

    def make(self) -> Dispatcher:
        return Dispatcher(self.store, clock=virtual_time.clock, liveness=self.gossip.get)

    async def create(self, *objects: Any) -> None:
        await self.store.update(lambda tx: [tx.create(obj) for obj in objects])

    async def change(self, kind: type[Any], id_: str, **fields: Any) -> None:
        def write(tx: Any) -> None:
            tx.update(replace(tx.get(kind, id_), **fields))

        await self.store.update(write)

    async def delete(self, kind: type[Any], id_: str) -> None:
        await self.store.update(lambda tx: tx.delete(kind, id_))

    def node(self, id_: str = "n") -> Node:
        node = self.store.view().get(Node, id_)
        assert node is not None
        return node

    def status(self, task_id: str) -> TaskStatus:
        task = self.store.view().get(Task, task_id)
        assert task is not None
        return task.status

    async def join(self, node_id: str = "n") -> Peer:
        """A node that is a member, connected and told everything so far."""
        if self.store.view().get(Node, node_id) is None:
            await self.create(Node(id=node_id))
        peer = Peer(self.dispatcher, node_id)
        peer.hello(node_id)
        await peer.welcome()
        await peer.assignments()
        return peer

    async def beat(self, peer: Peer, seconds: float) -> None:
        """The node beats once a second for a time."""
        for _ in range(round(seconds)):
            peer.say(Heartbeat())
            await asyncio.sleep(1)


def simulate(scenario: Any) -> None:
    """Run `scenario(world)` with a dispatcher in virtual time."""

    async def main() -> None:
        world = World()
        await world.create(Cluster(id="cluster", ca_cert="PEM", gossip_keys=["k1"]))
        await world.dispatcher.start()
        try:
            await scenario(world)
        finally:
            await world.dispatcher.stop()

    work: Coroutine[Any, Any, None] = main()
    virtual_time.run(work)


def skip(seconds: float) -> None:
    """Let the clock leap, as on a machine that was suspended."""
    asyncio.get_running_loop()._virtual.now += seconds  # type: ignore[attr-defined]


def task(id_: str, node_id: str = "n", state: TaskState = TaskState.ASSIGNED, **fields: Any) -> Task:
    return Task(
        **{
            "id": id_,
            "node_id": node_id,
            "status": TaskStatus(state=state),
            "desired_state": TaskState.RUNNING,
            **fields,
        }
    )


def large(size: int = 20_000) -> TaskSpec:
    """The spec of tasks of which less than a hundred fit into one log entry."""
    return TaskSpec(container_spec=ContainerSpec(env=["X=" + "x" * size]))


def using(secrets: tuple[str, ...] = (), configs: tuple[str, ...] = ()) -> TaskSpec:
    return TaskSpec(
        container_spec=ContainerSpec(
            secrets=[SecretReference(secret_id=each) for each in secrets],
            configs=[ConfigReference(config_id=each) for each in configs],
        )
    )
