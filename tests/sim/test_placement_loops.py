"""Allocator, scheduler and dispatcher together on one store, while others write to the same objects all the time.

The loops decide on a picture that may be outdated when they write. Whatever happens in between (nodes drained, tasks
stopped, services removed, quorum lost, the loops stopped and started elsewhere), nothing that is stored may break a
rule at any moment, and when it is quiet everything that can be placed is.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from swarm_agent.manager.allocator import Allocator
from swarm_agent.manager.dispatcher import Dispatcher
from swarm_agent.manager.holdings import addresses, ipv4, vni
from swarm_agent.manager.nodeset import is_available
from swarm_agent.manager.scheduler import Scheduler
from swarm_agent.model.errors import ClusterError, NoLeader
from swarm_agent.model.objects import (
    Cluster,
    Endpoint,
    Network,
    Node,
    NodeDescription,
    NodeStatus,
    Service,
    Task,
    TaskStatus,
    Version,
)
from swarm_agent.model.specs import (
    EndpointSpec,
    NetworkAttachmentConfig,
    NetworkSpec,
    NodeSpec,
    Placement,
    PortConfig,
    ResourceRequirements,
    Resources,
    ServiceSpec,
    TaskSpec,
)
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import rfc3339
from swarm_agent.store.memory import MemoryProposer
from swarm_agent.store.store import Store
from swarm_agent.store.view import Change
from tests.sim import virtual_time

replace = msgspec.structs.replace
CPU = 1_000_000_000
OCCUPYING = [state for state in TaskState if TaskState.ASSIGNED.rank <= state.rank <= TaskState.RUNNING.rank]


class SlowLog(MemoryProposer):
    """A log whose entries take a moment, as on disks: meanwhile everybody goes on with what they know."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng

    async def propose(self, data: bytes) -> int:
        await asyncio.sleep(self.rng.choice([0, 0.002, 0.02]))
        return await super().propose(data)


class World:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        log = SlowLog(random.Random(seed))
        self.store = Store(log, clock=lambda: rfc3339(virtual_time.clock()))
        log.attach(self.store.apply)
        self.count = 0
        self.loops: list[Any] = []
        self.broken: list[str] = []
        self.store.subscribe(self.check_entry)

    async def start(self) -> None:
        clock = virtual_time.clock
        self.loops = [
            Allocator(self.store, clock=clock),
            Scheduler(self.store, clock=clock),
            Dispatcher(self.store, clock=clock, liveness=lambda _: True),
        ]
        for loop in self.loops:
            await loop.start()

    async def stop(self) -> None:
        for loop in self.loops:
            await loop.stop()

    async def set_up(self) -> None:
        networks = [
            Network(id="ing", spec=NetworkSpec(name="ingress", ingress=True)),
            Network(id="a", spec=NetworkSpec(name="a")),
            Network(id="b", spec=NetworkSpec(name="b")),
        ]
        nodes = [self.node(number) for number in range(4)]
        # Small subnets, so that addresses run out now and then.
        cluster = Cluster(id="c", default_addr_pool=["10.8.0.0/24"], subnet_size=28)
        await self.write(lambda tx: [tx.create(each) for each in (cluster, *networks, *nodes)])

    def node(self, number: int) -> Node:
        return Node(
            id=f"n{number}",
            spec=NodeSpec(role="worker", availability="active"),
            description=NodeDescription(resources=Resources(nano_cpus=4 * CPU)),
            status=NodeStatus(state="ready"),
        )

    async def write(self, fn: Any) -> None:
        try:
            await self.store.update(fn)
        except ClusterError:
            pass

    def check_entry(self, changes: list[Change]) -> None:
        """The store guards itself against subscribers that raise, so failures are kept."""
        try:
            self.check_changes(changes)
        except AssertionError as error:
            self.broken.append(str(error) or repr(error))

    def check_changes(self, changes: list[Change]) -> None:
        """Rules that hold for every entry that is ever stored."""
        view = self.store.view()
        # One entry holds several transactions, so a node may have been drained after the assignment, in the same entry.
        before = {change.id: change.old for change in changes if change.old is not None}
        for change in changes:
            old, new = change.old, change.new
            if change.kind is Task and old is not None and new is not None:
                assert new.status.state.rank >= old.status.state.rank
                assert not old.node_id or new.node_id == old.node_id
                if new.status.state is TaskState.ASSIGNED and old.status.state is TaskState.PENDING:
                    nodes = (view.get(Node, new.node_id), before.get(new.node_id))
                    assert any(is_available(node) for node in nodes)
                if new.status.state is TaskState.PENDING and old.status.state is TaskState.NEW:
                    service = view.get(Service, new.service_id)
                    # If the service was removed by the same entry, nothing is left to compare with.
                    assert service is None or service.endpoint == (new.endpoint or Endpoint())
                    for attachment in new.networks_attachments:
                        id_ = attachment.network.id
                        assert attachment.network in (view.get(Network, id_), before.get(id_))
        self.check_addresses()
        self.check_subnets()
        self.check_nodes()

    def check_addresses(self) -> None:
        view = self.store.view()
        owners: Counter[tuple[str, int]] = Counter()
        for task in view.all(Task):
            owners.update(addresses(replace(task, endpoint=None)))
        for holder in (*view.all(Service), *view.all(Node)):
            owners.update(addresses(holder))
        assert not [key for key, count in owners.items() if count > 1]
        ports = Counter(
            (port.protocol, port.published_port) for service in view.all(Service) for port in service.endpoint.ports
        )
        assert max(ports.values(), default=1) == 1

    def check_subnets(self) -> None:
        """No two networks have the same subnet or VNI, not even when one of them lives on in its last tasks only."""
        view = self.store.view()
        networks = {network.id: network for network in view.all(Network)}
        for task in view.all(Task):
            if not task.status.state.is_terminal:
                networks.update({each.network.id: each.network for each in task.networks_attachments})
        subnets = Counter(config.subnet for network in networks.values() if (config := ipv4(network)) is not None)
        assert max(subnets.values(), default=1) == 1
        vnis = Counter(number for network in networks.values() if (number := vni(network)) is not None)
        assert max(vnis.values(), default=1) == 1

    def check_nodes(self) -> None:
        view = self.store.view()
        for node in view.all(Node):
            here = [task for task in view.find(Task, node_id=node.id) if task.status.state in OCCUPYING]
            used = sum(self.cpus(task) for task in here)
            assert used <= node.description.resources.nano_cpus
            active = Counter(task.service_id for task in here if task.desired_state is TaskState.RUNNING)
            for service_id, count in active.items():
                assert count <= 2 or not service_id.startswith("capped")

    def cpus(self, task: Task) -> int:
        wanted = task.spec.resources
        return wanted.reservations.nano_cpus if wanted is not None and wanted.reservations is not None else 0

    # --- what others do ----------------------------------------------------------------------------------------------

    def new_service(self) -> Service:
        self.count += 1
        kind = self.rng.choice(["plain", "capped"])
        template = TaskSpec(
            networks=[NetworkAttachmentConfig(target=each) for each in self.rng.sample("ab", self.rng.randrange(3))],
            resources=ResourceRequirements(reservations=Resources(nano_cpus=self.rng.choice([0, CPU // 2, CPU]))),
            placement=Placement(max_replicas=2 if kind == "capped" else 0),
        )
        ports = [PortConfig(target_port=80)] if self.rng.random() < 0.5 else []
        spec = ServiceSpec(name=f"s{self.count}", task_template=template, endpoint_spec=EndpointSpec(ports=ports))
        return Service(id=f"{kind}{self.count}", spec=spec, spec_version=Version(index=1))

    def new_task(self, service: Service) -> Task:
        self.count += 1
        return Task(
            id=f"t{self.count}",
            service_id=service.id,
            spec=service.spec.task_template,
            spec_version=service.spec_version,
            desired_state=TaskState.RUNNING,
        )

    async def act(self) -> None:
        rng, view = self.rng, self.store.view()
        services, tasks, nodes = view.all(Service), view.all(Task), view.all(Node)
        what = rng.randrange(14)
        if what == 0 and len(services) < 6:
            service = self.new_service()
            await self.write(lambda tx: tx.create(service))
        elif what == 1 and services and rng.random() < 0.4:
            chosen = rng.choice(services)
            await self.write(lambda tx: self.remove_service(tx, chosen.id))
        elif what in (2, 3, 4) and services and len(tasks) < 60:
            await self.write(
                lambda tx: [tx.create(self.new_task(rng.choice(services))) for _ in range(rng.randrange(4))]
            )
        elif what == 5 and tasks:
            ids = [task.id for task in rng.sample(tasks, min(3, len(tasks)))]
            await self.write(lambda tx: [self.change(tx, Task, id_, desired_state=TaskState.SHUTDOWN) for id_ in ids])
        elif what in (6, 7) and tasks:
            ids = [task.id for task in tasks if task.status.state in OCCUPYING and rng.random() < 0.5]
            state = rng.choice([TaskState.RUNNING, TaskState.FAILED, TaskState.SHUTDOWN])
            await self.write(lambda tx: [self.observe(tx, id_, state) for id_ in ids])
        elif what == 8 and nodes:
            availability = rng.choice(["active", "active", "pause", "drain"])
            spec = NodeSpec(role="worker", availability=availability)
            chosen_node = rng.choice(nodes).id
            await self.write(lambda tx: self.change(tx, Node, chosen_node, spec=spec))
        elif what == 9 and nodes and rng.random() < 0.3:
            gone = rng.choice(nodes).id
            await self.write(lambda tx: tx.delete(Node, gone) if tx.get(Node, gone) is not None else None)
        elif what == 10 and len(nodes) < 4:
            self.count += 1
            new = self.node(self.count)
            await self.write(lambda tx: tx.create(new))
        elif what == 11 and tasks:
            ended = [task.id for task in tasks if task.status.state.is_terminal]
            await self.write(lambda tx: [tx.delete(Task, id_) for id_ in ended if tx.get(Task, id_) is not None])

        elif what == 12 and services:
            await self.write(lambda tx: self.republish(tx, rng.choice(services).id))
        elif what == 13 and rng.random() < 0.5:
            await self.write(self.replace_network)

    def republish(self, tx: Any, service_id: str) -> None:
        """The service publishes another port, or none."""
        service = tx.get(Service, service_id)
        if service is not None:
            self.count += 1
            ports = [PortConfig(target_port=self.count)] if self.rng.random() < 0.7 else []
            tx.update(replace(service, spec=replace(service.spec, endpoint_spec=EndpointSpec(ports=ports))))

    def replace_network(self, tx: Any) -> None:
        """Somebody removes a network that only stopping tasks use, as Swarm allows, or brings one back."""
        stored = tx.by_name(Network, "b")
        if stored is None:
            self.count += 1
            tx.create(Network(id=f"b{self.count}", spec=NetworkSpec(name="b")))
        elif all(each.target != "b" for service in tx.all(Service) for each in service.spec.task_template.networks):
            tx.delete(Network, stored.id)

    def remove_service(self, tx: Any, service_id: str) -> None:
        if tx.get(Service, service_id) is None:
            return
        tx.delete(Service, service_id)
        for task in tx.find(Task, service_id=service_id):
            tx.update(replace(task, desired_state=TaskState.REMOVE))

    def change(self, tx: Any, kind: type[Any], id_: str, **fields: Any) -> None:
        stored = tx.get(kind, id_)
        if stored is not None:
            tx.update(replace(stored, **fields))

    def observe(self, tx: Any, id_: str, state: TaskState) -> None:
        task = tx.get(Task, id_)
        if task is not None and task.status.state.rank < state.rank:
            tx.update(replace(task, status=TaskStatus(state=state)))

    async def disturb(self) -> None:
        if self.rng.random() < 0.5:
            await self.stop()
            await self.start()
        else:
            proposer: Any = self.store.proposer
            proposer.refusal = NoLeader()
            await asyncio.sleep(self.rng.random())
            proposer.refusal = None

    # --- at rest -----------------------------------------------------------------------------------------------------

    def check_rest(self) -> None:
        """Every task that is to run has a node or says why not, and what says so is true."""
        view = self.store.view()
        for task in view.all(Task):
            if task.desired_state is not TaskState.RUNNING or view.get(Service, task.service_id) is None:
                continue
            state = task.status.state
            assert state not in (TaskState.NEW, TaskState.PENDING) or task.status.err
            if state is TaskState.PENDING:
                assert not [node.id for node in view.all(Node) if self.fits(node, task)]
        for task in view.all(Task):
            if task.status.state in OCCUPYING:
                assert view.get(Node, task.node_id) is not None, "the dispatcher orphans tasks of removed nodes"

    def fits(self, node: Node, task: Task) -> bool:
        if not is_available(node):
            return False
        here = [each for each in self.store.view().find(Task, node_id=node.id) if each.status.state in OCCUPYING]
        if sum(self.cpus(each) for each in here) + self.cpus(task) > node.description.resources.nano_cpus:
            return False
        placement = task.spec.placement
        same = [each for each in here if each.service_id == task.service_id]
        active = [each for each in same if each.desired_state is TaskState.RUNNING]
        return placement is None or not placement.max_replicas or len(active) < placement.max_replicas


@pytest.mark.parametrize("seed", range(16))
def test_loops_keep_all_rules_among_other_writers_and_finish_when_it_is_quiet(seed: int) -> None:
    async def main() -> None:
        world = World(seed)
        await world.set_up()
        await world.start()
        for _ in range(60):
            await asyncio.gather(*(world.act() for _ in range(world.rng.randrange(1, 9))))
            await asyncio.sleep(world.rng.choice([0, 0.001, 0.004, 0.1]))
            if world.rng.random() < 0.03:
                await world.disturb()
        await asyncio.sleep(3)
        assert world.broken == []
        world.check_rest()
        await world.stop()

    virtual_time.run(main())
