"""Creating, updating, rolling back and removing services, on a store in memory."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from swarm_agent.manager.control import services
from swarm_agent.model.errors import (
    AlreadyExists,
    BadRequest,
    ClusterError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfSequence,
    Unimplemented,
)
from swarm_agent.model.objects import Network, Secret, Service
from swarm_agent.model.specs import NetworkSpec, SecretSpec, ServiceSpec
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store

RNG = random.Random(1)


def spec(name: str = "web", **parts: Any) -> ServiceSpec:
    """A spec from API JSON: `ContainerSpec` parts by keyword `container`, others by their names."""
    container = {"Image": "alpine:latest", **parts.pop("container", {})}
    template = {"ContainerSpec": container, **parts.pop("TaskTemplate", {})}
    return msgspec.convert({"Name": name, "TaskTemplate": template, **parts}, ServiceSpec)


def ports(*published: int, mode: str = "ingress", protocol: str = "tcp", resolution: str = "vip") -> dict[str, Any]:
    items = [{"TargetPort": 80, "PublishedPort": port, "PublishMode": mode, "Protocol": protocol} for port in published]
    return {"EndpointSpec": {"Mode": resolution, "Ports": items}}


@pytest.fixture
async def store() -> Store:
    store = memory_store()
    ingress = Network(id="ingress1", spec=NetworkSpec(name="ingress", ingress=True))
    await store.update(lambda tx: tx.create(ingress))
    return store


async def create(store: Store, wanted: ServiceSpec, **options: Any) -> Service:
    return await store.update(lambda tx: services.create_service(tx, wanted, RNG, **options))


async def update(store: Store, service: Service, wanted: ServiceSpec, **options: Any) -> Service:
    version = options.pop("version", service.version.index)
    return await store.update(lambda tx: services.update_service(tx, service.id, version, wanted, RNG, **options))


async def test_a_service_without_name_gets_one_and_a_mode_without_replicas_gets_one_replica(store: Store) -> None:
    service = await create(store, spec(""))
    adjective, _, surname = service.spec.name.partition("_")
    assert adjective and surname
    assert service.spec.mode.replicated is not None and service.spec.mode.replicated.replicas == 1


async def test_what_was_not_sent_is_not_filled_in(store: Store) -> None:
    service = await create(store, spec())
    assert service.spec.update_config is None
    assert service.spec.task_template.restart_policy is None
    assert service.spec.endpoint_spec is None
    assert service.spec.task_template.runtime == "container"
    assert service.spec.task_template.container_spec is not None
    assert service.spec.task_template.container_spec.isolation == "default"


async def test_words_left_out_of_what_was_sent_come_back_as_swarms(store: Store) -> None:
    parts = {"UpdateConfig": {"Parallelism": 2}, "EndpointSpec": {"Ports": [{"TargetPort": 80}]}}
    service = await create(store, spec(TaskTemplate={"RestartPolicy": {}}, **parts))
    config = service.spec.update_config
    assert config is not None and (config.failure_action, config.order) == ("pause", "stop-first")
    endpoint = service.spec.endpoint_spec
    assert endpoint is not None and endpoint.mode == "vip"
    assert (endpoint.ports[0].protocol, endpoint.ports[0].publish_mode) == ("tcp", "ingress")
    policy = service.spec.task_template.restart_policy
    assert policy is not None and (policy.condition, policy.max_attempts) == ("any", 0)


async def test_a_name_is_taken_without_regard_to_case(store: Store) -> None:
    await create(store, spec("web"))
    text = "name conflicts with an existing object: service WEB already exists"
    with pytest.raises(AlreadyExists, match=text):
        await create(store, spec("WEB"))


@pytest.mark.parametrize(
    ("first", "second", "how"),
    [
        (ports(80), ports(80), "as an ingress port"),
        (ports(80), ports(80, mode="host"), "as an ingress port"),
        (ports(80, mode="host"), ports(80), "as a host-published port"),
    ],
)
async def test_a_published_port_belongs_to_one_service(
    store: Store, first: dict[str, Any], second: dict[str, Any], how: str
) -> None:
    service = await create(store, spec("one", **first))
    with pytest.raises(InvalidArgument) as caught:
        await create(store, spec("two", **second))
    assert caught.value.description == f"port '80' is already in use by service 'one' ({service.id}) {how}"
    assert store.view().by_name(Service, "two") is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ports(80, mode="host"), ports(80, mode="host")),
        (ports(80), ports(80, protocol="udp")),
        (ports(80), ports(81)),
        (ports(0), ports(0)),
    ],
)
async def test_ports_that_do_not_meet_are_accepted(store: Store, first: Any, second: Any) -> None:
    await create(store, spec("one", **first))
    await create(store, spec("two", **second))


async def test_a_port_that_the_allocator_chose_is_taken_too(store: Store) -> None:
    service = await create(store, spec("one", **ports(0)))
    declared = service.spec.endpoint_spec.ports[0]
    endpoint = replace(service.endpoint, ports=[replace(declared, published_port=30000)])
    await store.update(lambda tx: tx.update(replace(service, endpoint=endpoint)))
    with pytest.raises(InvalidArgument, match="port '30000' is already in use"):
        await create(store, spec("two", **ports(30000)))


async def test_an_update_keeps_the_spec_it_replaces_and_moves_the_spec_version(store: Store) -> None:
    first = await create(store, spec())
    second = await update(store, first, spec(container={"Image": "alpine:3"}))
    assert second.previous_spec == first.spec
    assert second.previous_spec_version == first.spec_version
    assert second.spec_version != first.spec_version
    assert second.update_status is None
    third = await update(store, second, spec(container={"Image": "alpine:4"}))
    assert third.spec_version not in (first.spec_version, second.spec_version)


async def test_an_update_of_an_older_version_is_out_of_sequence(store: Store) -> None:
    first = await create(store, spec())
    await update(store, first, spec(container={"Image": "alpine:3"}))
    with pytest.raises(OutOfSequence) as caught:
        await update(store, first, spec(container={"Image": "alpine:4"}))
    assert str(caught.value) == "rpc error: code = Unknown desc = update out of sequence"


async def test_of_two_updates_of_one_version_in_one_batch_one_wins(store: Store) -> None:
    import asyncio

    service = await create(store, spec())
    results = await asyncio.gather(
        *(update(store, service, spec(container={"Image": f"alpine:{n}"})) for n in (1, 2)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["OutOfSequence", "Service"]


async def test_rollback_swaps_the_specs_and_says_that_it_was_asked_for(store: Store) -> None:
    first = await create(store, spec())
    second = await update(store, first, spec(container={"Image": "alpine:3"}))
    third = await update(store, second, second.spec, rollback="previous")
    assert (third.spec, third.previous_spec) == (first.spec, second.spec)
    assert (third.spec_version, third.previous_spec_version) == (first.spec_version, second.spec_version)
    status = third.update_status
    assert status is not None and status.started_at is not None
    assert (status.state, status.message) == ("rollback_started", "manually requested rollback")


async def test_there_is_nothing_to_roll_back_to_after_create(store: Store) -> None:
    service = await create(store, spec())
    with pytest.raises(FailedPrecondition) as caught:
        await update(store, service, service.spec, rollback="previous")
    assert caught.value.description == f"service {service.id} does not have a previous spec"


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"name": "other"}, Unimplemented, "renaming services is not supported"),
        ({"name": ""}, Unimplemented, "renaming services is not supported"),
        ({"Mode": {"Global": {}}}, Unimplemented, "service mode change is not allowed"),
        ({"Mode": {"Global": {}, "Replicated": {}}}, BadRequest, "must specify only one service mode"),
    ],
)
async def test_swarm_refuses_these_changes(
    store: Store, change: dict[str, Any], error: type[ClusterError], text: str
) -> None:
    service = await create(store, spec())
    with pytest.raises(error, match=text):
        await update(store, service, spec(**change))


async def test_networks_at_the_top_of_an_old_spec_stay_until_they_are_moved(store: Store) -> None:
    service = await create(store, spec(Networks=[{"Target": "host"}]))
    with pytest.raises(Unimplemented, match="networks must be migrated to TaskSpec before being changed"):
        await update(store, service, spec(Networks=[{"Target": "bridge"}]))
    assert await update(store, service, spec(Networks=[{"Target": "host"}], Labels={"a": "b"}))


async def test_updating_a_job_starts_a_new_iteration(store: Store) -> None:
    service = await create(store, spec(Mode={"ReplicatedJob": {"MaxConcurrent": 3}}))
    assert service.job_status is not None and service.job_status.job_iteration.index == 0
    job = service.spec.mode.replicated_job
    assert job is not None and job.total_completions == 3
    changed = await update(store, service, service.spec)
    assert changed.job_status is not None and changed.job_status.job_iteration.index == 1
    assert changed.job_status.last_execution > service.job_status.last_execution


async def test_credentials_stay_when_an_update_sends_none(store: Store) -> None:
    first = await create(store, spec(), registry_auth="secret")
    second = await update(store, first, first.spec)
    assert second.registry_auth == "secret"
    assert (await update(store, second, first.spec, registry_auth="new")).registry_auth == "new"


async def test_a_network_is_named_by_name_and_kept_by_id(store: Store) -> None:
    await store.update(lambda tx: tx.create(Network(id="net1", spec=NetworkSpec(name="back"))))
    service = await create(store, spec(TaskTemplate={"Networks": [{"Target": "back"}, {"Target": "host"}]}))
    assert [network.target for network in service.spec.task_template.networks] == ["net1", "host"]


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        ("nope", NotFound, "network nope not found"),
        ("ingress", InvalidArgument, 'Service cannot be explicitly attached to the ingress network "ingress"'),
    ],
)
async def test_networks_that_cannot_be_used(store: Store, target: str, error: type[ClusterError], text: str) -> None:
    with pytest.raises(error, match=text):
        await create(store, spec(TaskTemplate={"Networks": [{"Target": target}]}))


async def test_publishing_needs_the_ingress_network(store: Store) -> None:
    await store.update(lambda tx: tx.delete(Network, "ingress1"))
    with pytest.raises(FailedPrecondition, match="service needs ingress network, but no ingress network is present"):
        await create(store, spec(**ports(80)))
    await create(store, spec(**ports(80, mode="host")))


async def test_secrets_must_exist_under_both_id_and_name(store: Store) -> None:
    await store.update(lambda tx: tx.create(Secret(id="s1", spec=SecretSpec(name="one", data="aGk="))))

    def refs(*pairs: tuple[str, str]) -> ServiceSpec:
        items = [{"File": {"Name": f"f{id_}"}, "SecretID": id_, "SecretName": name} for id_, name in pairs]
        return spec(container={"Secrets": items})

    with pytest.raises(InvalidArgument, match="secret not found: two"):
        await create(store, refs(("s1", "two")))
    with pytest.raises(InvalidArgument, match="secrets not found: x, y"):
        await create(store, refs(("s8", "x"), ("s9", "y")))
    await create(store, refs(("s1", "one")))


async def test_removing_frees_name_and_port_at_once(store: Store) -> None:
    await create(store, spec(**ports(80)))
    await store.update(lambda tx: services.remove_service(tx, "web"))
    await create(store, spec(**ports(80)))


async def test_an_ambiguous_beginning_of_an_id_is_refused(store: Store) -> None:
    for id_ in ("abc1", "abc2"):
        await store.update(lambda tx, id_=id_: tx.create(Service(id=id_, spec=spec(f"n{id_}"))))
    with pytest.raises(BadRequest) as caught:
        await store.update(lambda tx: services.remove_service(tx, "abc"))
    assert str(caught.value) == "service abc is ambiguous (2 matches found)"
    with pytest.raises(NotFound) as missing:
        await store.update(lambda tx: services.remove_service(tx, "x"))
    assert str(missing.value) == "service x not found"
