"""The leader as a whole: a declared service becomes running tasks through all loops and a node's session, and back."""

from __future__ import annotations

import asyncio
import random

from msgspec.structs import replace

from swarm_agent.manager.leader import Leader
from swarm_agent.manager.orchestrator import Orchestrator
from swarm_agent.manager.tasks import Cause, is_live, new_task
from swarm_agent.model.objects import (
    Cluster,
    Network,
    Node,
    NodeDescription,
    NodeStatus,
    Service,
    Task,
    TaskStatus,
    Version,
)
from swarm_agent.model.session import (
    Assignments,
    Heartbeat,
    Hello,
    Statuses,
    TaskStatusUpdate,
    decode_to_node,
    encode_message,
)
from swarm_agent.model.specs import (
    ContainerSpec,
    EndpointSpec,
    NetworkSpec,
    NodeSpec,
    Placement,
    Platform,
    PortConfig,
    Replicated,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from swarm_agent.model.states import TaskState as S
from swarm_agent.model.times import rfc3339
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store
from tests.sim.virtual_time import clock, run


class Agent:
    """A node that runs all it is given at once. It is the dispatcher's channel, too."""

    def __init__(self, node_id: str, address: str) -> None:
        self.node_id = node_id
        self.tasks: dict[str, Task] = {}
        self.said: asyncio.Queue[bytes | None] = asyncio.Queue()
        platform = Platform(architecture="x86_64", os="linux")
        self._say(Hello(description=NodeDescription(hostname=node_id, platform=platform), advertise=address))

    def _say(self, message: Hello | Heartbeat | Statuses) -> None:
        self.said.put_nowait(encode_message(message))

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._say(Heartbeat())

    async def receive(self) -> bytes | None:
        return await self.said.get()

    async def send(self, data: bytes) -> None:
        message = decode_to_node(data)
        if not isinstance(message, Assignments):
            return
        for task_id in message.gone_tasks:
            self.tasks.pop(task_id, None)
        for task in message.tasks:
            self.tasks[task.id] = task
            state = S.SHUTDOWN if not is_live(task) else S.READY if task.desired_state is S.READY else S.RUNNING
            status = TaskStatus(timestamp=rfc3339(clock()), state=state)
            self._say(Statuses(updates=[TaskStatusUpdate(task.id, status)]))


async def wait(store: Store, condition: object, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():  # type: ignore[operator]
        assert loop.time() < end, [(task.desired_state, task.status) for task in store.view().all(Task)]
        await asyncio.sleep(0.001)


def test_a_service_is_created_updated_and_removed_through_all_loops() -> None:
    async def main() -> None:
        store = memory_store(clock=lambda: rfc3339(clock()))
        ids = ["node1", "node2"]

        def found(tx) -> None:  # type: ignore[no-untyped-def]
            tx.create(Cluster(id="cluster", default_addr_pool=["10.0.0.0/8"], subnet_size=24))
            tx.create(Network(id="ingress", spec=NetworkSpec(name="ingress", ingress=True)))
            for id_ in ids:
                tx.create(Node(id=id_, spec=NodeSpec(role="worker", availability="active")))

        await store.update(found)
        leader = Leader(store, rng=random.Random(1), clock=clock)
        await leader.start()
        agents = [Agent(id_, f"192.0.2.{number}") for number, id_ in enumerate(ids, 1)]
        work = [asyncio.create_task(leader.dispatcher.session(agent.node_id, agent)) for agent in agents]
        work += [asyncio.create_task(agent.beat()) for agent in agents]
        await wait(store, lambda: all(node.status.state == "ready" for node in store.view().all(Node)), 1)

        spec = ServiceSpec(
            name="web",
            task_template=TaskSpec(container_spec=ContainerSpec(image="web:1")),
            mode=ServiceMode(replicated=Replicated(replicas=4)),
            endpoint_spec=EndpointSpec(mode="vip", ports=[PortConfig(target_port=80, protocol="tcp")]),
        )
        await store.update(lambda tx: tx.create(Service(id="web", spec=spec, spec_version=Version(index=1))))

        def running(image: str) -> list[Task]:
            return [
                task
                for task in store.view().all(Task)
                if task.status.state is S.RUNNING
                and task.desired_state is S.RUNNING
                and task.spec.container_spec == ContainerSpec(image=image)
            ]

        # The loops' own latency, every debounce included.
        await wait(store, lambda: len(running("web:1")) == 4, 0.2)
        assert {task.node_id for task in running("web:1")} == set(ids)
        service = store.view().get(Service, "web")
        assert service is not None and service.endpoint.ports[0].published_port == 30000
        assert all(task.networks_attachments for task in running("web:1"))

        template = replace(spec.task_template, container_spec=ContainerSpec(image="web:2"))
        updated = replace(service, spec=replace(spec, task_template=template), spec_version=Version(index=2))
        await store.update(lambda tx: tx.update(updated))
        await wait(store, lambda: len(running("web:2")) == 4, 2)

        # A scale does not touch what runs, though the allocator has completed the tasks' ports.
        before = {task.id for task in running("web:2")}

        def scale(tx) -> None:  # type: ignore[no-untyped-def]
            it = tx.get(Service, "web")
            mode = ServiceMode(replicated=Replicated(replicas=5))
            tx.update(replace(it, spec=replace(it.spec, mode=mode), spec_version=Version(index=3), update_status=None))

        await store.update(scale)
        await wait(store, lambda: len(running("web:2")) == 5, 0.5)
        await asyncio.sleep(10)
        assert before < {task.id for task in running("web:2")}
        assert store.view().get(Service, "web").update_status is None  # type: ignore[union-attr]

        await store.update(lambda tx: tx.delete(Service, "web"))
        await wait(store, lambda: not store.view().all(Task), 0.5)
        assert not agents[0].tasks and not agents[1].tasks
        await leader.stop()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await store.close()

    run(main())


def test_a_replacement_placed_and_running_by_one_entry_of_the_log_ends_the_old_task() -> None:
    async def main() -> None:
        store = memory_store(clock=lambda: rfc3339(clock()))
        orchestrator = Orchestrator(store, clock=clock, rng=random.Random(1))
        template = TaskSpec(container_spec=ContainerSpec(image="web"))
        spec = ServiceSpec(name="web", task_template=template, mode=ServiceMode(replicated=Replicated(replicas=1)))
        running, pending = TaskStatus(state=S.RUNNING), TaskStatus(state=S.PENDING)
        old = Task(id="first", service_id="web", slot=1, node_id="node", spec=template, status=running)
        new = replace(old, id="second", node_id="", cause=Cause.REBALANCE, status=pending)

        def begin(tx) -> None:  # type: ignore[no-untyped-def]
            tx.create(Node(id="node", spec=NodeSpec(role="worker", availability="active")))
            tx.create(Service(id="web", spec=spec))
            tx.create(replace(old, desired_state=S.RUNNING))
            tx.create(replace(new, desired_state=S.RUNNING))

        def goes_on(tx) -> None:  # type: ignore[no-untyped-def]
            tx.update(replace(tx.get(Task, "second"), node_id="node", status=running))

        await store.update(begin)
        await orchestrator.start()
        await asyncio.sleep(1)
        assert all(is_live(task) for task in store.view().all(Task))
        await store.update(goes_on)
        await wait(store, lambda: not is_live(store.view().get(Task, "first")), 1)
        await orchestrator.stop()

    run(main())


def test_tasks_too_large_for_a_plan_s_log_entry_are_made_in_smaller_plans() -> None:
    async def main() -> None:
        store = memory_store(clock=lambda: rfc3339(clock()))
        orchestrator = Orchestrator(store, clock=clock, rng=random.Random(1))
        sizes: list[int] = []
        store.subscribe(lambda changes: sizes.append(sum(it.kind is Task for it in changes)))
        spec = ServiceSpec(
            name="web",
            labels={"much": "x" * 20_000},  # tasks carry their service's labels: 4 MB in all
            task_template=TaskSpec(container_spec=ContainerSpec(image="web")),
            mode=ServiceMode(replicated=Replicated(replicas=200)),
        )
        await store.update(lambda tx: tx.create(Service(id="web", spec=spec)))
        await orchestrator.start()
        await wait(store, lambda: len(store.view().all(Task)) == 200, 1)
        assert sizes == [0, 50, 50, 50, 50]  # 200 and 100 do not fit
        await orchestrator.stop()

    run(main())


def test_large_tasks_that_must_leave_their_node_do_so_in_several_entries() -> None:
    async def main() -> None:
        store = memory_store(clock=lambda: rfc3339(clock()))
        orchestrator = Orchestrator(store, clock=clock, rng=random.Random(1))
        much = ContainerSpec(image="web", env=["X=" + "x" * 20_000])
        template = TaskSpec(container_spec=much, placement=Placement(constraints=["node.labels.zone == a"]))
        spec = ServiceSpec(name="web", task_template=template, mode=ServiceMode(replicated=Replicated(replicas=150)))
        service = Service(id="web", spec=spec)
        node = Node(id="n", spec=NodeSpec(role="worker", availability="active"), status=NodeStatus(state="ready"))
        await store.update(lambda tx: [tx.create(obj) for obj in (node, service)])
        for slot in range(1, 151):
            task = new_task(service, slot=slot, node_id="n", task_id=f"t{slot}", now=rfc3339(clock()))
            task = replace(task, status=replace(task.status, state=S.RUNNING))
            await store.update(lambda tx, task=task: tx.create(task))
        await orchestrator.start()
        await wait(
            store,
            lambda: all(store.view().get(Task, f"t{slot}").status.state is S.REJECTED for slot in range(1, 151)),
            30,
        )
        await orchestrator.stop()

    run(main())
