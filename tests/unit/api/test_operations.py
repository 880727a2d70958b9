"""Explanations and rebalancing through the API, on a store that was brought into each situation."""

from __future__ import annotations

import random
import threading
from typing import Any

import msgspec
import pytest

from swarm_agent.api import operations
from swarm_agent.api.cluster import ClusterApi
from swarm_agent.api.message import Request, Response
from swarm_agent.manager.explain import explain
from swarm_agent.manager.scheduling import SchedulerCore
from swarm_agent.model.objects import (
    Cluster,
    Endpoint,
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
    DiscreteGenericResource,
    GenericResource,
    NodeSpec,
    Placement,
    Platform,
    PortConfig,
    Replicated,
    ReplicatedJob,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from swarm_agent.model.states import TaskState as S
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store
from swarm_agent.store.view import Change

replace = msgspec.structs.replace
GIB = 1 << 30


def a_node(name: str, state: str = "ready", availability: str = "active", **labels: str) -> Node:
    return Node(
        id=f"id-{name}",
        spec=NodeSpec(role="worker", availability=availability, labels=labels),
        description=NodeDescription(
            hostname=name,
            platform=Platform(architecture="x86_64", os="linux"),
            resources=Resources(nano_cpus=4 * 10**9, memory_bytes=8 * GIB),
        ),
        status=NodeStatus(state=state, addr="192.0.2.1", message="silent" if state == "down" else ""),
    )


def a_service(name: str = "web", replicas: int = 1, **template: Any) -> Service:
    spec = TaskSpec(container_spec=ContainerSpec(image="x"), **template)
    mode = ServiceMode(replicated=Replicated(replicas=replicas))
    return Service(
        id=f"id-{name}", spec=ServiceSpec(name=name, mode=mode, task_template=spec), spec_version=Version(index=1)
    )


def a_task(service: Service, id_: str, *, slot: int = 1, node: str = "", made: int = 0, **fields: Any) -> Task:
    state = fields.pop("state", S.RUNNING if node else S.PENDING)
    status = TaskStatus(state=state, err=fields.pop("err", ""), timestamp=f"2026-01-01T00:00:{made:02}.5Z")
    return Task(
        id=id_,
        service_id=service.id,
        service_name=service.spec.name,
        slot=slot,
        node_id=f"id-{node}" if node else "",
        spec=service.spec.task_template,
        spec_version=service.spec_version,
        desired_state=fields.pop("desired", S.RUNNING),
        status=status,
        created_at=f"2026-01-01T00:00:{made:02}.000000000Z",
        **fields,
    )


class Swarm:
    """A store with these objects, and its API."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.api = ClusterApi(store, random.Random(1))

    async def call(self, method: str, path: str, body: Any = None, **query: str) -> Response:
        text = msgspec.json.encode(body) if body is not None else b""
        headers = {"content-type": "application/json"} if text else {}
        return await self.api.handle(Request(method=method, path=path, query=query, body=text, headers=headers))

    async def explain(self, term: str, **query: str) -> dict[str, Any]:
        response = await self.call("GET", f"/swarm-agent/v1/explain/{term}", **query)
        assert response.status == 200, response.body
        return msgspec.json.decode(response.body)  # type: ignore[no-any-return]

    async def rebalance(self, **wanted: Any) -> dict[str, Any]:
        response = await self.call("POST", "/swarm-agent/v1/rebalance", wanted)
        assert response.status == 200, response.body
        return msgspec.json.decode(response.body)  # type: ignore[no-any-return]


async def swarm(*objects: Any) -> Swarm:
    store = memory_store()
    # As written by managers; `created_at` of a create would be now.
    for obj in (Cluster(id="c"), *objects):
        await store.update(lambda tx, obj=obj: tx.create(obj))  # type: ignore[misc]
    for obj in objects:
        if isinstance(obj, Task):
            await store.update(lambda tx, obj=obj: tx.update(replace(tx.get(Task, obj.id), created_at=obj.created_at)))  # type: ignore[misc, type-var]
    return Swarm(store)


def objections(answer: dict[str, Any]) -> dict[str, list[str]]:
    return {node["Hostname"]: node["Objections"] for node in answer["Nodes"]}


async def test_a_pending_task_is_told_what_each_node_lacks() -> None:
    wanted = ResourceRequirements(
        reservations=Resources(
            nano_cpus=3 * 10**9,
            memory_bytes=6 * GIB,
            generic_resources=[GenericResource(discrete_resource_spec=DiscreteGenericResource(kind="gpu", value=1))],
        )
    )
    port = PortConfig(protocol="tcp", target_port=80, published_port=8080, publish_mode="host")
    web = a_service(
        placement=Placement(
            constraints=["node.labels.disk == ssd", "node.role == worker", "node.floor == 1"],
            platforms=[Platform(architecture="arm64", os="linux")],
            max_replicas=1,
        ),
        resources=wanted,
    )
    other = a_task(web, "other", slot=2, node="a", endpoint=Endpoint(ports=[port]))
    s = await swarm(
        a_node("a", disk="hdd"), a_node("b", availability="drain"), a_node("c", state="down", disk="ssd"), web,
        other, a_task(web, "t1", endpoint=Endpoint(ports=[port]), err="no suitable node (…)"),
    )  # fmt: skip
    answer = await s.explain("t1")
    assert answer["Kind"] == "task"
    assert answer["Facts"][0] == "it waits for a node: no suitable node (…)"
    assert answer["Facts"][1] == "0 of 3 nodes could take it now"
    a = objections(answer)["a"]
    for text in (
        "3 CPUs are to be reserved, 1 are free",
        "6 GiB of memory are to be reserved, 2 GiB are free",
        "1 of gpu are to be reserved, 0 are free",
        "constraint node.labels.disk == ssd does not hold: it is 'hdd'",
        "constraint node.floor == 1 does not hold: it is a key that no node has",
        "port 8080/tcp of the host is taken by web.2.other",
        "it has 1 tasks of the service, at most 1 may be on a node",
    ):
        assert text in a
    assert "the node is drained" in objections(answer)["b"]
    assert "constraint node.labels.disk == ssd does not hold: it is not set" in objections(answer)["b"]
    assert "the node is down (silent)" in objections(answer)["c"]


@pytest.mark.parametrize("seed", range(30))
async def test_it_objects_to_a_node_exactly_when_the_scheduler_does(seed: int) -> None:
    rng = random.Random(seed)
    nodes = [
        a_node(f"n{number}", rng.choice(("ready", "ready", "ready", "down")), rng.choice(("active", "active", "pause")),
               disk=rng.choice(("ssd", "hdd")))
        for number in range(5)
    ]  # fmt: skip
    memory = Resources(memory_bytes=rng.choice((0, 3, 9)) * GIB)
    web = a_service(
        placement=Placement(
            constraints=rng.choice(([], ["node.labels.disk==ssd"])),
            platforms=rng.choice(([], [Platform(architecture="amd64", os="linux")], [Platform(os="windows")])),
            max_replicas=rng.choice((0, 1, 2)),
        ),
        resources=ResourceRequirements(reservations=memory),
    )
    placed = [a_task(web, f"p{n}", slot=n + 2, node=f"n{rng.randrange(5)}") for n in range(6)]
    waiting = a_task(web, "t")
    s = await swarm(*nodes, web, *placed, waiting)
    free = [name for name, found in objections(await s.explain("t")).items() if not found]
    core = SchedulerCore()
    core.load([*nodes, *placed], 0)
    core.apply([Change(Task, None, waiting)], 0)
    decided = core.plan(10, 0)[0]
    if decided.node_id:
        assert decided.node_id.removeprefix("id-") in free
    else:
        assert free == [], decided.status.err


@pytest.mark.parametrize(
    ("cause", "before", "why"),
    [
        ("restart", {"state": S.FAILED, "err": "task: non-zero exit (3)"},
         "the task before it ended on node a: failed: task: non-zero exit (3)"),
        ("restart", {"state": S.REJECTED, "err": "assigned node no longer meets constraints"},
         "the task before it ended on node a: rejected: assigned node no longer meets constraints"),
        ("drain", {"state": S.SHUTDOWN}, "node a is drained"),
        ("node-lost", {"state": S.RUNNING}, "node a was lost"),
        ("rebalance", {"state": S.SHUTDOWN}, "node a had more than its share (rebalancing)"),
        ("update", {"state": S.SHUTDOWN}, "an update replaced the task before it"),
    ],
)  # fmt: skip
async def test_each_way_of_being_replaced_is_told(cause: str, before: dict[str, Any], why: str) -> None:
    web = a_service()
    old = a_task(web, "old", node="a", desired=S.SHUTDOWN, made=1, **before)
    new = a_task(web, "new", node="b", made=9, cause=cause)
    s = await swarm(a_node("a"), a_node("b"), web, old, new)
    for term in ("new", "web", "web.1.new"):
        answer = await s.explain(term)
        assert [step["Why"] for step in answer["Story"] if step["TaskID"] == "new"] == [why]
    moved = await s.explain("b")
    assert moved["Kind"] == "node" and [step["TaskID"] for step in moved["Story"]] == ["new"]
    assert (await s.explain("a"))["Story"][0]["Why"] == why


async def test_a_service_tells_its_update_and_what_waits() -> None:
    web = replace(
        a_service(replicas=3, placement=Placement(constraints=["node.labels.x==1"])),
        update_status=UpdateStatus(state="paused", message="update paused because task t found no node"),
    )
    tasks = [a_task(web, f"t{n}", slot=n, err="no suitable node (scheduling constraints…)") for n in (1, 2)]
    s = await swarm(a_node("a"), web, *tasks, a_task(web, "t3", slot=3, node="a"))
    answer = await s.explain("web")
    assert answer["Facts"][:2] == [
        "1 of 3 replicas run",
        "update paused: update paused because task t found no node",
    ]
    assert "2 tasks: it waits for a node: no suitable node (scheduling constraints…)" in answer["Facts"]
    assert objections(answer) == {"a": ["constraint node.labels.x==1 does not hold: it is not set"]}


async def test_slots_that_nobody_fills_again_are_told() -> None:
    web = a_service(restart_policy=RestartPolicy(condition="none"))
    s = await swarm(a_node("a"), web, a_task(web, "t", node="a", state=S.FAILED, desired=S.SHUTDOWN, err="exit 1"))
    assert any("slots stay empty" in fact for fact in (await s.explain("web"))["Facts"])
    assert "it is not replaced: its restart policy is none" in (await s.explain("t"))["Facts"]


async def test_a_scheduled_job_tells_its_next_run() -> None:
    spec = ServiceSpec(
        name="night", labels={"swarm.job.cron": "0 3 1 1 *"}, mode=ServiceMode(replicated_job=ReplicatedJob())
    )
    s = await swarm(Service(id="job", spec=spec, job_status=JobStatus(last_execution="2026-01-01T03:00:00Z")))
    fact = (await s.explain("night"))["Facts"][1]
    assert "schedule '0 3 1 1 *' (UTC): next run 20" in fact and "-01-01T03:00:00.000000000Z" in fact
    assert fact.endswith("last run 2026-01-01T03:00:00Z")


async def test_who_is_meant() -> None:
    web = a_service("same")
    s = await swarm(a_node("same"), web)
    assert (await s.explain("same"))["Kind"] == "service"
    assert (await s.explain("same", kind="node"))["Kind"] == "node"
    missing = await s.call("GET", "/swarm-agent/v1/explain/nobody")
    assert (missing.status, msgspec.json.decode(missing.body)["message"]) == (404, "no service, task or node nobody")
    wrong = await s.call("GET", "/swarm-agent/v1/explain/same", kind="pod")
    assert wrong.status == 400


async def test_a_place_means_the_last_task_that_was_made_for_it() -> None:
    web = a_service("web", replicas=2)
    ended = replace(a_task(web, "t1", slot=1, node="a", state=S.FAILED), created_at="2026-01-01T00:00:00.000000000Z")
    waiting = replace(a_task(web, "t2", slot=1, state=S.PENDING), created_at="2026-01-01T00:00:01.000000000Z")
    s = await swarm(a_node("a"), web, ended, waiting, a_task(web, "t3", slot=2, node="a"))
    assert (await s.explain("web.1"))["ID"] == waiting.id
    assert (await s.explain("web.2", kind="task"))["Name"].startswith("web.2.")
    missing = await s.call("GET", "/swarm-agent/v1/explain/web.3")
    assert (missing.status, msgspec.json.decode(missing.body)["message"]) == (404, "no service, task or node web.3")


async def test_a_dry_run_tells_and_changes_nothing_and_the_real_one_marks() -> None:
    web, one = a_service(replicas=4), a_service("one", replicas=1)
    tasks = [a_task(web, f"t{n}", slot=n, node="a") for n in (1, 2, 3, 4)]
    s = await swarm(a_node("a"), a_node("b"), web, one, *tasks)
    index = s.store.view().index
    answer = await s.rebalance(DryRun=True)
    assert [(move["Source"], move["Target"]) for move in answer["Moves"]] == [("a", "b")] * 2
    assert answer["Moves"][0]["Reason"] == "node a has 4 tasks of the service, node b has 0"
    assert answer["LeftAlone"] == [{"Service": "one", "Reason": "not all of its tasks run"}]
    assert s.store.view().index == index
    assert (await s.rebalance(Service="web"))["Moves"] == answer["Moves"]
    found = s.store.view().get(Service, web.id)
    assert found is not None and found.rebalance
    assert b"Rebalance" not in (await s.call("GET", "/services/web")).body


async def test_explanations_are_made_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 100,000 tasks one takes longer than the loop may be held."""
    threads = []

    def noted(*given: Any) -> Any:
        threads.append(threading.current_thread())
        return explain(*given)

    monkeypatch.setattr(operations, "explain", noted)
    s = await swarm(a_node("a"), a_service("web"))
    assert (await s.explain("web"))["Kind"] == "service"
    assert threads and threading.main_thread() not in threads
