"""A cluster in which the leader's decisions are real: store, control loops, and leaders that come and go.

Nodes are simulated: they take tasks through their states as agents do, in virtual time. What a task does is said by its
image:

    good            runs until it is stopped
    dies:SECONDS    runs, and fails after this time
    exits:SECONDS   runs, and ends well after this time
    crash           fails as it starts
    missing         is rejected while it is prepared
    slow:SECONDS    needs this long to come up, then runs

Allocation and placement are the simplest that could work (least tasks, constraints, active nodes), or with `placing`
the real ones. A node that is cut
off is found down after `DETECT` seconds; its containers run on, and it reports everything when it is back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from swarm_agent.manager.allocator import Allocator
from swarm_agent.manager.control.services import next_run
from swarm_agent.manager.orchestrator import Orchestrator
from swarm_agent.manager.rebalancer import Rebalancer
from swarm_agent.manager.scheduler import Scheduler
from swarm_agent.manager.tasks import has_ended, is_live, may_run_on, was_assigned
from swarm_agent.model.ids import new_id
from swarm_agent.model.objects import (
    Cluster,
    JobStatus,
    Node,
    NodeDescription,
    NodeStatus,
    Service,
    Task,
    TaskStatus,
    UpdateStatus,
    Version,
)
from swarm_agent.model.specs import (
    ContainerSpec,
    NodeSpec,
    Platform,
    Replicated,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import rfc3339
from swarm_agent.store.memory import memory_store
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import Change

from .virtual_time import clock

S = TaskState
replace = msgspec.structs.replace
DETECT = 4.0


class World:
    """The store, the nodes, and at most one leader."""

    def __init__(self, nodes: int = 3, seed: int = 0, *, placing: bool = False) -> None:
        self.rng = random.Random(seed)
        self.store = memory_store(clock=lambda: rfc3339(clock()))
        self.leader: list[Any] = []
        self.hosts: dict[str, Host] = {}
        self.checks: list[Callable[[list[Change]], None]] = []
        self.errors: list[str] = []
        self._nodes = nodes
        self.placing = placing
        self._tasks: set[asyncio.Task[None]] = set()
        self._placing = asyncio.Event()

    # --- life --------------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        self.store.subscribe(self._changed)
        await self.store.update(lambda tx: tx.create(Cluster(id=new_id(self.rng))))
        for _ in range(self._nodes):
            await self.add_node()
        if not self.placing:
            self.spawn(self._place_forever())
        await self.lead()

    async def end(self) -> None:
        await self.depose()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.store.close()

    def spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.errors.append(repr(task.exception()))

    async def lead(self) -> None:
        """A manager becomes leader."""
        assert not self.leader
        self.leader.append(Orchestrator(self.store, clock=clock, rng=self.rng))
        self.leader.append(Rebalancer(self.store, clock=clock, rng=self.rng))
        if self.placing:
            self.leader += [Allocator(self.store, clock=clock), Scheduler(self.store, clock=clock)]
        for part in self.leader:
            await part.start()

    async def depose(self) -> None:
        """The leader is lost, with all it had in memory."""
        while self.leader:
            await self.leader.pop().stop()

    async def until(self, condition: Callable[[], Any], seconds: float = 120.0) -> None:
        """Wait until the condition holds; fail after some (virtual) time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not condition():
            assert loop.time() < end, f"not so within {seconds} s: {self.describe()}"
            await asyncio.sleep(0.02)
        assert not self.errors, self.errors

    # --- what users do -----------------------------------------------------------------------------------------------

    async def create(self, image: str = "good", replicas: int = 1, **fields: Any) -> str:
        """Create a service; `fields` of ServiceSpec, `template` for those of TaskSpec."""
        service_id = new_id(self.rng)
        template = TaskSpec(container_spec=ContainerSpec(image=image), **fields.pop("template", {}))
        mode = fields.pop("mode", ServiceMode(replicated=Replicated(replicas=replicas)))
        spec = ServiceSpec(name=f"s{service_id[:6]}", task_template=template, mode=mode, **fields)

        def run(tx: Tx) -> None:
            job = spec.mode.replicated_job is not None or spec.mode.global_job is not None
            tx.create(
                Service(
                    id=service_id,
                    spec=spec,
                    spec_version=Version(index=tx.index + 1),
                    job_status=JobStatus() if job else None,
                    scheduled_to=tx.now,
                )
            )

        await self.store.update(run)
        return service_id

    async def change(self, service_id: str, change: Callable[[ServiceSpec], ServiceSpec], **fields: Any) -> None:
        """What POST /services/ID/update does; `fields` of the service beside its spec."""

        def run(tx: Tx) -> None:
            old = tx.get(Service, service_id)
            assert old is not None
            new = replace(
                old,
                spec=change(old.spec),
                previous_spec=old.spec,
                previous_spec_version=old.spec_version,
                spec_version=Version(index=tx.index + 1),
                update_status=None,
                **fields,
            )
            tx.update(next_run(old, new, tx.now))

        await self.store.update(run)

    async def set_image(self, service_id: str, image: str) -> None:
        def change(spec: ServiceSpec) -> ServiceSpec:
            template = replace(spec.task_template, container_spec=ContainerSpec(image=image))
            return replace(spec, task_template=template)

        await self.change(service_id, change)

    async def force(self, service_id: str) -> None:
        def change(spec: ServiceSpec) -> ServiceSpec:
            template = spec.task_template
            return replace(spec, task_template=replace(template, force_update=template.force_update + 1))

        await self.change(service_id, change)

    async def scale(self, service_id: str, replicas: int) -> None:
        await self.change(
            service_id, lambda spec: replace(spec, mode=ServiceMode(replicated=Replicated(replicas=replicas)))
        )

    async def roll_back(self, service_id: str) -> None:
        """What `docker service rollback` does."""

        def run(tx: Tx) -> None:
            old = tx.get(Service, service_id)
            assert old is not None and old.previous_spec is not None and old.previous_spec_version is not None
            tx.update(
                replace(
                    old,
                    spec=old.previous_spec,
                    spec_version=old.previous_spec_version,
                    previous_spec=old.spec,
                    previous_spec_version=old.spec_version,
                    update_status=UpdateStatus(
                        state="rollback_started", started_at=tx.now, message="manually requested rollback"
                    ),
                )
            )

        await self.store.update(run)

    async def rebalance(self, service_id: str) -> None:
        """What `swarmctl rebalance SERVICE` does."""

        def run(tx: Tx) -> None:
            old = tx.get(Service, service_id)
            if old is not None:
                tx.update(replace(old, rebalance=tx.now))

        await self.store.update(run)

    async def remove(self, service_id: str) -> None:
        await self.store.update(lambda tx: tx.delete(Service, service_id))

    async def set_node(self, node_id: str, **spec: Any) -> None:
        """Change a node's spec: availability, labels, role."""

        def run(tx: Tx) -> None:
            node = tx.get(Node, node_id)
            assert node is not None
            tx.update(replace(node, spec=replace(node.spec, **spec)))

        await self.store.update(run)

    async def set_cluster(self, **spec: Any) -> None:
        def run(tx: Tx) -> None:
            cluster = tx.all(Cluster)[0]
            tx.update(replace(cluster, spec=replace(cluster.spec, **spec)))

        await self.store.update(run)

    async def add_node(self) -> str:
        node = Node(
            id=new_id(self.rng),
            spec=NodeSpec(role="worker", availability="active"),
            description=NodeDescription(
                hostname=f"host{len(self.hosts) + 1}", platform=Platform(architecture="x86_64", os="linux")
            ),
            status=NodeStatus(state="ready", addr=f"192.0.2.{len(self.hosts) + 1}"),
        )
        await self.store.update(lambda tx: tx.create(node))
        self.hosts[node.id] = Host(self, node.id)
        return node.id

    # --- what is there -----------------------------------------------------------------------------------------------

    @property
    def node_ids(self) -> list[str]:
        return list(self.hosts)

    def service(self, service_id: str) -> Service:
        found = self.store.view().get(Service, service_id)
        assert found is not None
        return found

    def tasks(self, service_id: str) -> list[Task]:
        return sorted(self.store.view().find(Task, service_id=service_id), key=lambda task: task.created_at)

    def running(self, service_id: str, image: str | None = None) -> list[Task]:
        """Tasks that run and are meant to, on nodes that are up."""
        view = self.store.view()
        found = []
        for task in self.tasks(service_id):
            node = view.get(Node, task.node_id)
            wanted = task.desired_state is S.RUNNING and task.status.state is S.RUNNING
            if wanted and node is not None and node.status.state != "down":
                container = task.spec.container_spec
                if image is None or (container is not None and container.image == image):
                    found.append(task)
        return found

    def status(self, service_id: str) -> str:
        status = self.service(service_id).update_status
        return status.state if status is not None else ""

    def message(self, service_id: str) -> str:
        status = self.service(service_id).update_status
        return status.message if status is not None else ""

    def describe(self) -> str:
        lines = []
        view = self.store.view()
        for node in view.all(Node):
            lines.append(f"node {node.id[:4]} {node.status.state} {node.spec.availability}")
        for service in view.all(Service):
            lines.append(f"service {service.id[:4]} {service.spec.mode} {service.update_status}")
        for task in sorted(view.all(Task), key=lambda task: (task.service_id, task.slot, task.created_at)):
            container = task.spec.container_spec
            lines.append(
                f"  {task.service_id[:4]}.{task.slot or task.node_id[:4]}.{task.id[:4]} on {task.node_id[:4]} "
                f"{container.image if container else ''} wanted {task.desired_state} is {task.status.state} "
                f"v{task.spec_version.index if task.spec_version else 0} {task.cause} {task.update[11:21]} "
                f"made {task.created_at[11:23]} written {task.updated_at[11:23]} after {task.restart_after[11:23]}"
            )
        return "\n".join(["", *lines])

    # --- allocation and placement ------------------------------------------------------------------------------------

    def _changed(self, changes: list[Change]) -> None:
        for change in changes:
            if change.kind is Task:
                task = change.new or change.old
                if change.new is not None and not was_assigned(task):
                    self._placing.set()
                host = self.hosts.get(task.node_id)
                if host is not None:
                    host.wake()
            elif change.kind is Node:
                self._placing.set()
        for check in self.checks:
            try:
                check(changes)
            except AssertionError as error:
                if not self.errors:  # what follows the first is its consequence
                    self.errors.append(f"{error} {self.describe()}")

    async def _place_forever(self) -> None:
        while True:
            await self._placing.wait()
            await asyncio.sleep(0.002)
            self._placing.clear()
            await self.store.update(self._place)

    def _place(self, tx: Tx) -> None:
        now = rfc3339(clock())
        load: dict[str, int] = {node.id: 0 for node in tx.all(Node)}
        for task in tx.all(Task):
            if is_live(task) and task.node_id in load:
                load[task.node_id] += 1
        for task in tx.all(Task):
            if was_assigned(task) or has_ended(task):
                continue
            if not is_live(task):
                if task.desired_state is S.SHUTDOWN:
                    tx.update(replace(task, status=TaskStatus(timestamp=now, state=S.SHUTDOWN)))
                continue
            service = tx.get(Service, task.service_id)
            node_id = task.node_id
            if service is None:
                continue
            fit = [
                node
                for node in tx.all(Node)
                if node.status.state == "ready"
                and node.spec.availability == "active"
                and may_run_on(service, node)
                and (not node_id or node.id == node_id)
            ]
            if fit:
                best = min(fit, key=lambda node: load[node.id])
                load[best.id] += 1
                tx.update(
                    replace(
                        task, node_id=best.id, status=TaskStatus(timestamp=now, state=S.ASSIGNED, message="assigned")
                    )
                )


class Host:
    """A node's agent: takes the tasks it is given through their states."""

    def __init__(self, world: World, node_id: str) -> None:
        self.world = world
        self.node_id = node_id
        self.connected = True
        self.containers: set[str] = set()  # tasks whose process runs, whatever the managers know
        self._known: dict[str, TaskStatus] = {}
        self._unreported: dict[str, None] = {}
        self._reporting = False
        self._wanted: dict[str, Task] = {}
        self._event = asyncio.Event()
        self._busy: set[str] = set()
        world.spawn(self._run())

    def wake(self) -> None:
        self._event.set()

    async def cut(self) -> None:
        """The node is cut off; the leader finds out after a while."""
        self.connected = False
        await asyncio.sleep(DETECT)
        if not self.connected:
            await self._set_state("down")

    async def heal(self) -> None:
        """The node is back."""
        self.connected = True
        await self._set_state("ready")
        self.wake()

    async def power_off(self) -> None:
        """The node is cut off and everything on it has ended."""
        self.containers.clear()
        for task_id, status in list(self._known.items()):
            if not status.state.is_terminal:
                self._known[task_id] = TaskStatus(timestamp=rfc3339(clock()), state=S.FAILED, err="host restarted")
                self._unreported[task_id] = None
        await self.cut()

    async def _set_state(self, state: str) -> None:
        def run(tx: Tx) -> None:
            node = tx.get(Node, self.node_id)
            if node is not None:
                tx.update(replace(node, status=replace(node.status, state=state)))

        await self.world.store.update(run)

    async def _run(self) -> None:
        while True:
            await self._event.wait()
            self._event.clear()
            await asyncio.sleep(0.001)
            if not self.connected:
                continue
            view = self.world.store.view()
            given = {task.id: task for task in view.find(Task, node_id=self.node_id) if was_assigned(task)}
            self._wanted = given
            for task_id in [known for known in self._known if known not in given]:
                self.containers.discard(task_id)
                del self._known[task_id]
            for task_id in given:
                if task_id not in self._busy:
                    self._busy.add(task_id)
                    self.world.spawn(self._carry(task_id))
            await self._report()

    async def _carry(self, task_id: str) -> None:
        try:
            while (task := self._wanted.get(task_id)) is not None:
                if not await self._step(task):
                    return
        finally:
            self._busy.discard(task_id)

    async def _step(self, task: Task) -> bool:
        """One step of a task's life. False when there is nothing to do but wait for the managers."""
        rng = self.world.rng
        known = self._known.setdefault(task.id, TaskStatus(state=S.ASSIGNED))
        kind, _, number = (task.spec.container_spec or ContainerSpec()).image.partition(":")
        if known.state.is_terminal:
            return False
        if not is_live(task):
            await asyncio.sleep(rng.uniform(0.01, 0.3) if task.id in self.containers else 0.001)
            self.containers.discard(task.id)
            await self._become(task.id, S.SHUTDOWN, "shutdown")
            return False
        if known.state.rank < S.PREPARING.rank:
            await self._become(task.id, S.PREPARING, "preparing")
            return True
        if known.state is S.PREPARING:
            await asyncio.sleep(rng.uniform(0.01, 0.2))
            if kind == "missing":
                await self._become(task.id, S.REJECTED, "preparing", err="No such image: missing:latest")
                return False
            await self._become(task.id, S.READY, "prepared")
            return True
        if known.state is S.READY:
            if task.desired_state.rank < S.RUNNING.rank:
                return False
            self.containers.add(task.id)
            await self._become(task.id, S.STARTING, "starting")
            await asyncio.sleep(float(number) if kind == "slow" else rng.uniform(0.01, 0.2))
            if kind == "crash":
                await self._fail(task.id)
                return False
            if task.id in self.containers and is_live(self._wanted.get(task.id, task)):
                await self._become(task.id, S.RUNNING, "started")
            return True
        if known.state is S.RUNNING and kind in ("dies", "exits"):
            await asyncio.sleep(float(number))
            if task.id in self.containers and is_live(self._wanted.get(task.id, task)):
                if kind == "dies":
                    await self._fail(task.id)
                else:
                    self.containers.discard(task.id)
                    await self._become(task.id, S.COMPLETE, "finished")
            return True
        return False

    async def kill(self, task_id: str) -> None:
        """The task's process dies."""
        if task_id in self.containers:
            await self._fail(task_id)

    async def _fail(self, task_id: str) -> None:
        self.containers.discard(task_id)
        await self._become(task_id, S.FAILED, "started", err="task: non-zero exit (1)")

    async def _become(self, task_id: str, state: TaskState, message: str, err: str = "") -> None:
        known = self._known.get(task_id)
        if known is None or known.state.rank >= state.rank:
            return
        self._known[task_id] = TaskStatus(timestamp=rfc3339(clock()), state=state, message=message, err=err)
        self._unreported[task_id] = None
        if self.connected:
            await self._report()

    async def _report(self) -> None:
        """Tell the managers what is new; while one report is written, others gather."""
        if self._reporting:
            return
        self._reporting = True
        try:
            while self._unreported:
                batch = {task_id: self._known[task_id] for task_id in self._unreported if task_id in self._known}
                self._unreported.clear()
                await self.world.store.update(lambda tx, batch=batch: _write(tx, batch))
        finally:
            self._reporting = False


def _write(tx: Tx, batch: dict[str, TaskStatus]) -> None:
    for task_id, status in batch.items():
        task = tx.get(Task, task_id)
        if task is not None and status.state.rank > task.status.state.rank:
            tx.update(replace(task, status=status))


def update_config(**fields: Any) -> UpdateConfig:
    """An UpdateConfig as the CLI sends it: parallelism 1 unless said otherwise."""
    return UpdateConfig(**{"parallelism": 1, **fields})


@asynccontextmanager
async def world(nodes: int = 3, seed: int = 0, *, placing: bool = False) -> AsyncIterator[World]:
    """A world that has begun, and is ended afterwards."""
    it = World(nodes, seed, placing=placing)
    await it.begin()
    try:
        yield it
        assert not it.errors, it.errors
    finally:
        await it.end()
