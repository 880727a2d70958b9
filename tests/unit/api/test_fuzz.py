"""Whatever a client sends, a refusal is one of Swarm's, and leaves no trace."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm_agent.api.cluster import ClusterApi
from swarm_agent.api.message import Request
from swarm_agent.manager.control.cluster import complete_spec
from swarm_agent.model.objects import Cluster, Network, Node, Secret, Service
from swarm_agent.model.requests import NetworkCreateRequest
from swarm_agent.model.specs import ConfigSpec, NodeSpec, SecretSpec, ServiceSpec, SwarmSpec
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store
from tests.unit.api.kit import first_objects

SWARMS_OWN_500 = (
    "rpc error: code = Unknown desc = ",
    "Invalid ",
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 1e300, 0.5]),
    st.text(max_size=8),
    st.sampled_from(
        [
            "web",
            "alpine",
            "host",
            "vip",
            "ingress",
            "tcp",
            "node.role==worker",
            "10.0.0.0/24",
            "YQ==",
            "default",
            "overlay",
        ]
    ),
)


def field_names(kind: type[Any], seen: set[type[Any]] | None = None) -> set[str]:
    """All JSON names that occur in a struct and those within it."""
    seen = set() if seen is None else seen
    if kind in seen:
        return set()
    seen.add(kind)
    found = set()
    for item in msgspec.structs.fields(kind):
        found.add(item.encode_name)
        for inner in structs_in(item.type):
            found |= field_names(inner, seen)
    return found


def structs_in(annotation: Any) -> list[type[Any]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [annotation]
    return [inner for part in getattr(annotation, "__args__", ()) for inner in structs_in(part)]


BODIES = (ServiceSpec, NodeSpec, SecretSpec, ConfigSpec, SwarmSpec, NetworkCreateRequest)
NAMES = sorted(set().union(*(field_names(kind) for kind in BODIES)))


def shaped(kind: Any, depth: int = 6) -> st.SearchStrategy[Any]:
    """Documents that nearly fit: the right field names, mostly values of the right kind."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and depth:
        fields = {item.encode_name: shaped(item.type, depth - 1) for item in msgspec.structs.fields(kind)}
        return st.fixed_dictionaries({}, optional=fields)
    origin, arguments = getattr(kind, "__origin__", None), getattr(kind, "__args__", ())
    if origin is list and depth:
        return st.lists(shaped(arguments[0], depth - 1), max_size=2)
    if origin is dict:
        return st.dictionaries(st.text(max_size=4), SCALARS, max_size=2)
    if arguments:
        return st.one_of([shaped(part, depth) for part in arguments])
    if kind is str:
        return st.one_of(st.sampled_from(["", "web", "alpine", "a.b", "dnsrr", "vip", "any", "host"]), SCALARS)
    if kind is bool:
        return st.booleans()
    if kind in (int, float):
        return st.one_of(st.integers(0, 100_000), SCALARS)
    return SCALARS


JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=4)), inner, max_size=5),
    ),
    max_leaves=20,
)
DOCUMENTS = st.one_of(*(shaped(kind) for kind in BODIES), JSON)

PATHS = [
    "/services/create",
    "/services/web/update",
    "/nodes/first/update",
    "/secrets/create",
    "/secrets/key/update",
    "/configs/create",
    "/swarm/update",
    "/networks/create",
    "/networks/prune",
]
QUERIES = st.dictionaries(
    st.sampled_from(["version", "rollback", "registryAuthFrom", "rotateWorkerToken", "filters", "force"]),
    st.one_of(
        st.sampled_from(["2", "1", "true", "previous", "spec", '{"label":["a"]}', '{"until":["1h"]}']),
        st.text(max_size=6),
    ),
    max_size=4,
)


async def new_store() -> Store:
    store = memory_store()
    objects = [
        *first_objects(complete_spec(SwarmSpec())),
        Secret(id="key", spec=SecretSpec(name="key", data="YQ==")),
        Service(id="svc", spec=msgspec.convert({"Name": "web", "TaskTemplate": {"ContainerSpec": {}}}, ServiceSpec)),
    ]
    await store.update(lambda tx: [tx.create(obj) for obj in objects])
    return store


def state(store: Store) -> list[Any]:
    view = store.view()
    return [view.all(kind) for kind in (Cluster, Node, Service, Network, Secret)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PATHS), QUERIES, DOCUMENTS)
def test_no_document_breaks_the_api(path: str, query: dict[str, str], document: Any) -> None:
    async def run() -> None:
        store = await new_store()
        before, index = state(store), store.view().index
        body = json.dumps(document).encode()
        headers = {"content-type": "application/json"}
        request = Request(method="POST", path=path, query=query, headers=headers, body=body)
        answer = await ClusterApi(store, random.Random(0)).handle(request)
        message = json.loads(answer.body).get("message", "") if answer.body else ""
        if answer.status == 500:
            assert message.startswith(SWARMS_OWN_500), message
        if answer.status >= 400:
            assert message
            assert state(store) == before
            assert store.view().index == index
        for kind in (Service, Node, Network, Cluster):
            for obj in store.view().all(kind):
                json.loads(store.encoded(obj))

    asyncio.run(run())


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["services", "tasks", "nodes", "secrets", "configs"]),
    st.one_of(st.text(max_size=30), JSON.map(json.dumps)),
)
def test_no_filter_breaks_a_list(kind: str, filters: str) -> None:
    async def run() -> None:
        store = await new_store()
        request = Request(method="GET", path=f"/{kind}", query={"filters": filters})
        answer = await ClusterApi(store, random.Random(0)).handle(request)
        assert answer.status in (200, 400, 404) or json.loads(answer.body)["message"].startswith("Invalid ")

    asyncio.run(run())


def test_the_names_are_those_of_the_api() -> None:
    assert {"TaskTemplate", "ContainerSpec", "NanoCPUs", "IPAM", "HeartbeatPeriod"} <= set(NAMES)
