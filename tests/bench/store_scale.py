"""What a manager's store costs: memory for each 10,000 tasks, and the time to start from a snapshot of many objects.

    python -m tests.bench.store_scale [OBJECTS]          100,000 if not said

Tasks go the way that they go in production: a transaction, an entry in the encrypted log, decoded when it is applied.
Each figure is of a process of its own, whose only work it is. Disk and codec are real; there is one member.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from swarm_agent.model.objects import Endpoint, Network, NetworkAttachment, Service, Task, TaskStatus
from swarm_agent.model.specs import (
    ContainerSpec,
    EndpointSpec,
    NetworkAttachmentConfig,
    NetworkSpec,
    Replicated,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from swarm_agent.model.states import TaskState
from swarm_agent.raft.driver import RaftNode
from swarm_agent.store.store import Store

TASKS_PER_SERVICE = 10
ENTRY = 200


class Nowhere:
    """The transport of the only member."""

    def send(self, member: int, data: bytes) -> None: ...


async def start(path: Path) -> tuple[RaftNode, Store]:
    """The member as a manager starts it, leading."""
    store = Store()
    node = await RaftNode.start(path, 1, [b"k" * 32], store, Nowhere(), rng=random.Random(1), bootstrap="10.0.0.1:2377")
    store.proposer = node
    leads = asyncio.Event()
    node.on_leadership(lambda led: leads.set() if led else None)
    await leads.wait()
    return node, store


def service(number: int) -> Service:
    container = ContainerSpec(
        image="registry.example.com/team/web:1.2.3@sha256:" + "ab" * 32,
        env=[f"SETTING_{n}=value-{n}" for n in range(5)],
        labels={"com.docker.stack.namespace": "shop"},
        command=["/usr/bin/server", "--port", "80"],
    )
    template = TaskSpec(container_spec=container, networks=[NetworkAttachmentConfig(target="net1", aliases=["web"])])
    spec = ServiceSpec(
        name=f"shop_web-{number}",
        labels={"com.docker.stack.namespace": "shop"},
        task_template=template,
        mode=ServiceMode(replicated=Replicated(replicas=TASKS_PER_SERVICE)),
        endpoint_spec=EndpointSpec(mode="vip"),
    )
    return Service(id=f"service{number:018}", spec=spec)


def task(number: int, of: Service) -> Task:
    network = Network(id="net1", spec=NetworkSpec(name="shop_default"))
    return Task(
        id=f"task{number:021}",
        spec=of.spec.task_template,
        service_id=of.id,
        slot=number % TASKS_PER_SERVICE + 1,
        node_id=f"node{number % 50:021}",
        status=TaskStatus(state=TaskState.RUNNING, timestamp="2026-01-01T00:00:00.000000000Z", message="started"),
        desired_state=TaskState.RUNNING,
        networks_attachments=[NetworkAttachment(network=network, addresses=[f"10.0.{number % 250}.7/24"])],
        service_name=of.spec.name,
        service_labels=of.spec.labels,
        endpoint=Endpoint(),
    )


async def fill(store: Store, objects: int) -> None:
    """Services of ten tasks each until there are so many objects."""
    present: Service = service(0)
    waiting: list[Any] = []
    for number in range(objects):
        if number % (TASKS_PER_SERVICE + 1) == 0:
            present = service(number)
            waiting.append(present)
        else:
            waiting.append(task(number, present))
        if len(waiting) == ENTRY or number == objects - 1:
            some, waiting = waiting, []
            await store.update(lambda tx, some=some: [tx.create(obj) for obj in some] and None)


def resident() -> float:
    """MiB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


# --- the measured processes -------------------------------------------------------------------------------------------


async def memory(path: Path, objects: int) -> dict[str, float]:
    """Fill a store; leaves a snapshot behind for `restart`."""
    node, store = await start(path)
    before = resident()
    began = time.perf_counter()
    await fill(store, objects)
    filled = time.perf_counter() - began
    held = resident() - before
    began = time.perf_counter()
    for obj in store.view().all(Task):
        store.encoded(obj)
    listed = time.perf_counter() - began
    with_json = resident() - before
    node._snapshots.make(0, 0)
    await asyncio.gather(*(each for each in (node._snapshots._making,) if each is not None))
    await node.stop()
    return {"held": held, "with_json": with_json, "filled": filled, "listed": listed}


async def restart(path: Path, objects: int) -> dict[str, float]:
    """Start from what `memory` left."""
    before = resident()
    began, used = time.perf_counter(), time.process_time()
    node, store = await start(path)
    took, processor = time.perf_counter() - began, time.process_time() - used
    found = sum(store.view().count(kind) for kind in (Service, Task))
    assert found == objects, f"{found} of {objects} objects came back"
    held = resident() - before
    await node.stop()
    return {"took": took, "held": held, "processor": processor}


def main() -> None:
    if len(sys.argv) > 2:
        work = {"memory": memory, "restart": restart}[sys.argv[1]]
        print(json.dumps(asyncio.run(work(Path(sys.argv[2]), int(sys.argv[3])))))
        return
    objects = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "raft"

        def measured(name: str) -> dict[str, float]:
            command = [sys.executable, "-m", "tests.bench.store_scale", name, str(path), str(objects)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            return dict(json.loads(done.stdout))

        first = measured("memory")
        size = sum(file.stat().st_size for file in path.glob("*.snap")) / 2**20
        second = measured("restart")
    per = 10_000 / objects
    print(f"{objects:,} objects, ten tasks to a service")
    print(f"stored in                         {first['filled']:8.1f} s ({objects / first['filled']:,.0f} objects/s)")
    print(f"memory per 10,000 objects         {first['held'] * per:8.1f} MiB")
    print(f"the same once all were listed     {first['with_json'] * per:8.1f} MiB")
    print(f"listing all for the first time    {first['listed']:8.2f} s")
    print(f"snapshot on disk                  {size:8.1f} MiB")
    print(f"start from the snapshot           {second['took']:8.2f} s, {second['processor']:.2f} s of processor")
    print(f"memory per 10,000 after the start {second['held'] * per:8.1f} MiB")


if __name__ == "__main__":
    main()
