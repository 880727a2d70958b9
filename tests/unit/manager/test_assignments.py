"""An outbox: a node that applies all messages it is sent knows exactly what it would be told anew."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from swarm_agent.manager.assignments import Outbox, gossip_seeds
from swarm_agent.model.objects import (
    Cluster,
    Config,
    ManagerStatus,
    Network,
    NetworkAttachment,
    Node,
    NodeStatus,
    Secret,
    Task,
    TaskStatus,
)
from swarm_agent.model.session import Assignments, ToNode, Welcome, decode_to_node, encode_message
from swarm_agent.model.specs import (
    ConfigReference,
    ContainerSpec,
    NetworkSpec,
    NodeSpec,
    SecretReference,
    SecretSpec,
    TaskSpec,
)
from swarm_agent.model.states import TaskState
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store
from swarm_agent.store.view import Change

replace = msgspec.structs.replace
STATES = [state for state in TaskState if state is not TaskState.REMOVE]


class Knowledge:
    """What a node knows after the messages it got."""

    def __init__(self) -> None:
        self.welcome: Welcome | None = None
        self.tasks: dict[str, Task] = {}
        self.secrets: dict[str, Secret] = {}
        self.configs: dict[str, Config] = {}

    def take(self, messages: list[ToNode]) -> None:
        for sent in messages:
            message = decode_to_node(encode_message(sent))
            if isinstance(message, Welcome):
                self.welcome = message
                continue
            if message.complete:
                self.tasks, self.secrets, self.configs = {}, {}, {}
            self._merge(self.tasks, message.tasks, message.gone_tasks)
            self._merge(self.secrets, message.secrets, message.gone_secrets)
            self._merge(self.configs, message.configs, message.gone_configs)

    def _merge(self, known: dict[str, Any], new: list[Any], gone: list[str]) -> None:
        for id_ in gone:
            del known[id_]
        known.update({each.id: each for each in new})

    def content(self) -> tuple[Any, ...]:
        """All of it, without what the node itself reported."""
        assert self.welcome is not None
        node = replace(self.welcome.node, version=None, updated_at="", status=None)
        welcome = replace(self.welcome, node=node, gossip_seeds=[])
        tasks = {id_: replace(task, status=None, version=None, updated_at="") for id_, task in self.tasks.items()}
        return welcome, tasks, self.secrets, self.configs


def mark(outbox: Outbox, changes: list[Change]) -> None:
    """As the dispatcher does."""
    for change in changes:
        if change.kind is Task:
            outbox.mark_task(change.id)
        elif change.kind in (Secret, Config):
            outbox.mark_file(change.kind, change.id)
        else:
            outbox.mark_welcome()


def random_task(rng: random.Random, number: int, networks: list[Network]) -> Task:
    container = ContainerSpec(
        secrets=[SecretReference(secret_id=f"s{rng.randrange(4)}") for _ in range(rng.randrange(3))],
        configs=[ConfigReference(config_id=f"c{rng.randrange(4)}") for _ in range(rng.randrange(2))],
    )
    attachments = [NetworkAttachment(network=network) for network in rng.sample(networks, rng.randrange(len(networks)))]
    return Task(
        id=f"t{number}",
        node_id=rng.choice(["me", "me", "other", ""]),
        spec=TaskSpec(container_spec=container),
        networks_attachments=attachments,
        status=TaskStatus(state=rng.choice(STATES)),
        desired_state=TaskState.RUNNING,
    )


def one_change(rng: random.Random, tx: Any, number: int) -> None:
    kind = rng.choice([Task, Task, Task, Task, Secret, Config, Network, Node, Cluster])
    objects = tx.all(kind)
    if kind is Task and (not objects or rng.random() < 0.3):
        tx.create(random_task(rng, number, tx.all(Network) or [Network(id="gone")]))
    elif kind is Task:
        chosen = rng.choice(objects)
        what = rng.randrange(4)
        if what == 0:
            tx.delete(Task, chosen.id)
        elif what == 1:
            tx.update(replace(chosen, desired_state=rng.choice([TaskState.SHUTDOWN, TaskState.REMOVE])))
        elif what == 2:
            tx.update(replace(chosen, status=TaskStatus(state=rng.choice(STATES))))
        else:
            tx.update(replace(chosen, node_id=rng.choice(["me", "other"])))
    elif kind in (Secret, Config, Network):
        id_ = f"{kind.KIND[0]}{rng.randrange(4)}"
        stored = tx.get(kind, id_)
        if stored is None:
            tx.create(kind(id=id_, spec=type(kind().spec)(name=id_, labels={"n": str(number)})))
        elif rng.random() < 0.5:
            tx.delete(kind, id_)
        else:
            tx.update(replace(stored, spec=replace(stored.spec, labels={"n": str(number)})))
    elif kind is Node:
        chosen = rng.choice(objects)
        fields = rng.choice(
            [
                {"attachments": {f"n{rng.randrange(4)}": "10.0.0.2/24"}},
                {"spec": NodeSpec(labels={"n": str(number)})},
                {"status": NodeStatus(state=rng.choice(["ready", "down"]), addr="10.9.0.1")},
                {"manager_status": ManagerStatus(addr=f"10.9.0.{rng.randrange(3)}:2377")},
            ]
        )
        tx.update(replace(chosen, **fields))
    else:
        tx.update(replace(objects[0], gossip_keys=[str(number)]))


@pytest.mark.parametrize("seed", range(25))
async def test_applying_all_messages_gives_what_a_new_session_would_tell(seed: int) -> None:
    rng = random.Random(seed)
    store = memory_store()
    await store.update(lambda tx: [tx.create(Cluster(id="c")), tx.create(Node(id="me")), tx.create(Node(id="other"))])
    outbox, node = Outbox("me", 7946), Knowledge()
    store.subscribe(lambda changes: mark(outbox, changes))
    for number in range(120):
        await store.update(lambda tx, number=number: one_change(rng, tx, number))  # type: ignore[misc]
        if rng.random() < 0.5:
            node.take(outbox.next(store.view()))
            fresh = Knowledge()
            fresh.take(Outbox("me", 7946).next(store.view()))
            assert node.content() == fresh.content()
            assert outbox.next(store.view()) == []


async def members(store: Store, *nodes: Node) -> None:
    await store.update(lambda tx: [tx.create(node) for node in nodes])


async def test_seeds_are_the_managers_and_ready_nodes_when_these_are_few() -> None:
    store = memory_store()
    manager = Node(id="m", status=NodeStatus(addr="fd00::7"), manager_status=ManagerStatus(addr="[fd00::7]:2377"))
    workers = [Node(id=f"w{n}", status=NodeStatus(state="ready", addr=f"10.9.0.{n}")) for n in range(1, 7)]
    down = Node(id="a-down", status=NodeStatus(state="down", addr="10.9.0.99"))
    await members(store, manager, *workers, down)
    assert gossip_seeds(store.view(), "w1", 7946) == [
        "10.9.0.2:7946",
        "10.9.0.3:7946",
        "10.9.0.4:7946",
        "10.9.0.5:7946",
        "[fd00::7]:7946",
    ]


async def test_a_secret_that_is_named_before_it_exists_is_told_when_it_does() -> None:
    store = memory_store()
    outbox = Outbox("me", 7946)
    store.subscribe(lambda changes: mark(outbox, changes))
    container = ContainerSpec(secrets=[SecretReference(secret_id="s")])
    task = Task(
        id="t", node_id="me", status=TaskStatus(state=TaskState.ASSIGNED), spec=TaskSpec(container_spec=container)
    )
    await store.update(lambda tx: [tx.create(Node(id="me")), tx.create(task)])
    outbox.next(store.view())
    await store.update(lambda tx: tx.create(Secret(id="s", spec=SecretSpec(name="s"))))
    (told,) = outbox.next(store.view())
    assert isinstance(told, Assignments)
    assert [secret.id for secret in told.secrets] == ["s"]


async def test_networks_are_told_in_a_stable_order() -> None:
    store = memory_store()
    ingress = Network(id="z", spec=NetworkSpec(name="ingress", ingress=True))
    others = [Network(id=each, spec=NetworkSpec(name=each)) for each in "ba"]
    await store.update(
        lambda tx: [tx.create(each) for each in (ingress, *others, Node(id="me", attachments={"b": "1", "a": "2"}))]
    )
    welcome = Outbox("me", 7946).next(store.view())[0]
    assert isinstance(welcome, Welcome)
    assert [network.id for network in welcome.networks] == ["a", "b", "z"]
