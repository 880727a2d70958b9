"""What creating and updating a job with a schedule means for its runs."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from swarm_agent.manager.control import services
from swarm_agent.model.errors import InvalidArgument
from swarm_agent.model.objects import Service
from swarm_agent.model.specs import ServiceSpec
from swarm_agent.store.memory import memory_store
from swarm_agent.store.store import Store

RNG = random.Random(1)
DAILY = {"swarm.job.cron": "0 3 * * *"}


def spec(labels: dict[str, str], force: int = 0, image: str = "alpine", **mode: Any) -> ServiceSpec:
    template = {"ContainerSpec": {"Image": image}, "ForceUpdate": force}
    fields = {"Name": "night", "Labels": labels, "TaskTemplate": template, "Mode": mode or {"ReplicatedJob": {}}}
    return msgspec.convert(fields, ServiceSpec)


async def create(store: Store, wanted: ServiceSpec) -> Service:
    return await store.update(lambda tx: services.create_service(tx, wanted, RNG))


async def update(store: Store, service: Service, wanted: ServiceSpec) -> Service:
    return await store.update(lambda tx: services.update_service(tx, service.id, service.version.index, wanted, RNG))


def iteration(service: Service) -> int:
    assert service.job_status is not None
    return service.job_status.job_iteration.index


async def test_a_scheduled_job_has_not_run_when_it_is_declared() -> None:
    store = memory_store()
    service = await create(store, spec(DAILY))
    assert service.job_status is not None and service.job_status.last_execution == ""
    assert service.scheduled_to and service.released == -1


async def test_an_update_waits_for_the_next_time_and_ends_no_run() -> None:
    store = memory_store()
    service = await create(store, spec(DAILY))
    changed = await update(store, service, spec(DAILY, image="alpine:3"))
    assert (iteration(changed), changed.released, changed.scheduled_to) == (0, -1, service.scheduled_to)


async def test_a_forced_update_runs_at_once() -> None:
    store = memory_store()
    service = await create(store, spec(DAILY))
    changed = await update(store, service, spec(DAILY, force=1))
    assert iteration(changed) == changed.released == 1


async def test_a_new_schedule_counts_from_now_on() -> None:
    store = memory_store()
    service = await create(store, spec(DAILY))
    changed = await update(store, service, spec({"swarm.job.cron": "0 4 * * *"}))
    assert changed.scheduled_to > service.scheduled_to and changed.released == -1


async def test_an_update_that_takes_the_schedule_away_runs_at_once() -> None:
    store = memory_store()
    service = await create(store, spec(DAILY))
    changed = await update(store, service, spec({}))
    assert iteration(changed) == 1


@pytest.mark.parametrize(
    ("labels", "mode", "words"),
    [
        ({"swarm.job.cron": "61 * * * *"}, {"ReplicatedJob": {}}, "label swarm.job.cron: '61' in the minute"),
        (DAILY, {"Replicated": {}}, "label swarm.job.cron: only jobs have a schedule"),
        ({"swarm.task.gpus": "some"}, {"Replicated": {}}, "label swarm.task.gpus: 'some' are no GPUs"),
    ],
)
async def test_bad_labels_are_refused_and_nothing_is_kept(
    labels: dict[str, str], mode: dict[str, Any], words: str
) -> None:
    store = memory_store()
    with pytest.raises(InvalidArgument, match=words):
        await create(store, spec(labels, **mode))
    assert store.view().count(Service) == 0
    good = await create(store, spec({}, **mode))
    with pytest.raises(InvalidArgument, match=words):
        await update(store, good, spec(labels, **mode))
    assert store.view().get(Service, good.id) == good
