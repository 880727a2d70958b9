"""Seeded lives of a cluster: users, failures and leaders come in any order, and the declared state is always reached
again.

SEEDS=N runs more; a failing seed is named by the test's parameter.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
from typing import Any

import pytest

from swarm_agent.manager import defaults, reaper, rebalancer, replicated, restart, schedule, update
from swarm_agent.manager.tasks import iteration_of
from swarm_agent.model.specs import (
    ContainerSpec,
    Global,
    Placement,
    Replicated,
    ReplicatedJob,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
)
from swarm_agent.model.times import SECOND

from .orchestration_rules import Rules, check_converged
from .orchestration_world import World, replace, update_config, world
from .virtual_time import run

SEEDS = int(os.environ.get("SEEDS", "12"))
IMAGES = ("good", "good:2", "good:3", "slow:3", "slow:1", "dies:9", "dies:2", "crash", "missing", "exits:4")


def random_update(rng: random.Random, order: str) -> UpdateConfig:
    return update_config(
        parallelism=rng.choice((0, 1, 1, 2, 3)),
        delay=rng.choice((0, 0, 1, 4)) * SECOND,
        monitor=rng.choice((0, 1, 6)) * SECOND,
        failure_action=rng.choice(("pause", "continue", "rollback")),
        max_failure_ratio=rng.choice((0, 0, 0.3)),
        order=order,
    )


def random_service(rng: random.Random, moving: bool) -> dict[str, Any]:
    order = rng.choice(("stop-first", "start-first"))
    fields: dict[str, Any] = {
        "update_config": random_update(rng, order),
        "rollback_config": random_update(rng, order),
        "template": {"restart_policy": RestartPolicy(delay=rng.choice((0, 1, 5)) * SECOND)},
    }
    kind = rng.choice(("replicated", "replicated", "replicated", "global", "job"))
    if kind == "global":
        fields["mode"] = ServiceMode(global_=Global())
    elif kind == "job":
        total = rng.randint(1, 6)
        fields["mode"] = ServiceMode(
            replicated_job=ReplicatedJob(max_concurrent=rng.randint(1, 3), total_completions=total)
        )
        if moving and rng.random() < 0.4:
            fields["labels"] = {"swarm.job.cron": "* * * * *", "swarm.job.overlap": rng.choice(("skip", "replace"))}
    else:
        fields["replicas"] = rng.randint(0, 8)
        if rng.random() < 0.3:
            fields["template"]["placement"] = Placement(max_replicas=3)
    return fields


class Life:
    """What happens to a cluster: one random event after the other."""

    def __init__(self, w: World, seed: int, *, moving: bool = False) -> None:
        """`moving`: tasks are also moved for balance, and jobs may have schedules."""
        self.w = w
        self.moving = moving
        self.rng = random.Random(seed * 7919 + 1)
        self.services: list[str] = []

    async def live(self, events: int) -> None:
        for _ in range(events):
            await asyncio.sleep(self.rng.choice((0.01, 0.1, 1, 3, 8)))
            await self.rng.choices(*zip(*self.acts(), strict=True))[0]()  # type: ignore[arg-type]

    def acts(self) -> list[tuple[Any, int]]:
        return [
            (self.new_service, 2 if len(self.services) < 3 else 0),
            (self.remove_service, 1),
            (self.new_image, 6),
            (self.scale, 4),
            (self.force, 1),
            (self.roll_back, 2),
            (self.kill, 4),
            (self.lose_node, 2),
            (self.heal_node, 4),
            (self.availability, 3),
            (self.new_leader, 3),
            *([(self.rebalance, 3), (self.set_auto, 1)] if self.moving else []),
        ]

    def pick(self) -> str:
        return self.rng.choice(self.services)

    async def new_service(self) -> None:
        fields = random_service(self.rng, self.moving)
        job = "mode" in fields and fields["mode"].replicated_job is not None
        self.services.append(await self.w.create("exits:3" if job else self.rng.choice(IMAGES[:5]), **fields))

    async def remove_service(self) -> None:
        if len(self.services) > 1:
            await self.w.remove(self.services.pop(self.rng.randrange(len(self.services))))

    async def new_image(self) -> None:
        if self.services:
            service = self.pick()
            job = self.w.service(service).job_status is not None
            await self.w.set_image(service, self.rng.choice(("exits:1", "exits:3", "dies:1") if job else IMAGES))

    async def scale(self) -> None:
        if self.services:
            service = self.pick()
            if self.w.service(service).spec.mode.replicated is not None:
                await self.w.scale(service, self.rng.randint(0, 9))

    async def force(self) -> None:
        if self.services:
            await self.w.force(self.pick())

    async def roll_back(self) -> None:
        if self.services:
            service = self.w.service(self.pick())
            if service.previous_spec is not None and service.job_status is None:
                await self.w.roll_back(service.id)

    async def kill(self) -> None:
        running = [(host, task) for host in self.w.hosts.values() for task in sorted(host.containers)]
        if running:
            host, task = self.rng.choice(running)
            await host.kill(task)

    async def lose_node(self) -> None:
        up = [host for host in self.w.hosts.values() if host.connected]
        if len(up) > 2:
            host = self.rng.choice(up)
            self.w.spawn(host.power_off() if self.rng.random() < 0.5 else host.cut())

    async def heal_node(self) -> None:
        for host in self.w.hosts.values():
            if not host.connected:
                await host.heal()
                return

    async def availability(self) -> None:
        await self.w.set_node(
            self.rng.choice(self.w.node_ids), availability=self.rng.choice(("active", "active", "drain", "pause"))
        )

    async def rebalance(self) -> None:
        if self.services:
            await self.w.rebalance(self.pick())

    async def set_auto(self) -> None:
        await self.w.set_cluster(labels={"swarm.rebalance": self.rng.choice(("auto", "off"))})

    async def new_leader(self) -> None:
        await self.w.depose()
        await asyncio.sleep(self.rng.choice((0, 0.5, 4)))
        await self.w.lead()

    async def settle(self) -> None:
        """Everything heals, and the user wants something that works."""
        await asyncio.sleep(5)
        if self.moving and not self.w.placing:
            # The world's own placement puts tasks where they were: only the scheduler's makes moves come to an end.
            await self.w.set_cluster(labels={"swarm.rebalance": "off"})
        for host in self.w.hosts.values():
            if not host.connected:
                await host.heal()
            await self.w.set_node(host.node_id, availability="active")
        for service in self.services:
            it = self.w.service(service)
            if it.job_status is not None:
                scheduled = "swarm.job.cron" in it.spec.labels

                def finish(spec: ServiceSpec, scheduled: bool = scheduled) -> ServiceSpec:
                    template = replace(spec.task_template, container_spec=ContainerSpec(image="exits:1"))
                    return replace(
                        spec, task_template=template, labels={"swarm.job.cron": "0 0 1 1 *"} if scheduled else {}
                    )

                await self.w.change(service, finish)
                continue

            def work(spec: ServiceSpec) -> ServiceSpec:
                template = replace(spec.task_template, container_spec=ContainerSpec(image="good:4"))
                mode = spec.mode
                if mode.replicated is not None:
                    mode = ServiceMode(replicated=Replicated(replicas=min(mode.replicated.replicas or 0, 8)))
                return replace(spec, task_template=template, mode=mode)

            await self.w.change(service, work)


async def any_life(seed: int, *, moving: bool = False) -> None:
    """All that may happen, then peace: the declared state has to come about, also without one of the nodes, and then
    nothing more."""
    async with world(nodes=4, seed=seed, placing=seed % 2 == 1) as w:
        life = Life(w, seed, moving=moving)
        w.checks.append(Rules(w, counting=moving).check)
        await life.new_service()
        await life.live(60)
        await life.settle()
        await w.until(lambda: check_converged(w) == "", 400)
        await life.rng.choice(list(w.hosts.values())).power_off()
        await w.until(lambda: check_converged(w) == "", 5)
        await asyncio.sleep(5)
        index = w.store.view().index
        await asyncio.sleep(600)
        assert w.store.view().index == index, "the loops never come to rest"
        assert check_converged(w) == ""


async def life_with_moves(seed: int) -> None:
    await any_life(seed, moving=True)


async def only_updates(seed: int) -> None:
    """Only good updates, also cutting each other short, under changing leaders: nothing may be missing for longer than
    it must."""
    rng = random.Random(seed)
    async with world(nodes=4, seed=seed, placing=seed % 2 == 1) as w:
        order = rng.choice(("stop-first", "start-first"))
        replicas = rng.randint(1, 8)
        config = replace(random_update(rng, order), failure_action="pause")
        # The same parallelism both ways, or the bound would change in the middle.
        back = replace(random_update(rng, order), failure_action="pause", parallelism=config.parallelism)
        service = await w.create("good", replicas, update_config=config, rollback_config=back)
        await w.until(lambda: len(w.running(service)) == replicas)
        w.checks.append(Rules(w, calm=True).check)
        for step in range(12):
            await asyncio.sleep(rng.choice((0.1, 1, 5, 20)))
            match rng.randrange(5):
                case 0:
                    await w.depose()
                    await asyncio.sleep(rng.choice((0, 2)))
                    await w.lead()
                case 1:
                    if w.service(service).previous_spec is not None:
                        await w.roll_back(service)
                case _:
                    await w.set_image(service, rng.choice((f"good:{step}", "slow:2", "slow:1")))
        await w.until(lambda: check_converged(w) == "", 400)


async def only_schedules(seed: int) -> None:
    """A job that is due each minute, with runs shorter and longer than that, under changing leaders and on hosts that
    go and come: it runs, and no run begins beside another unless it may."""
    rng = random.Random(seed)
    async with world(nodes=3, seed=seed, placing=seed % 2 == 1) as w:
        w.checks.append(Rules(w).check)
        service = await w.create(
            rng.choice(("exits:20", "exits:90", "exits:150")),
            mode=ServiceMode(replicated_job=ReplicatedJob(max_concurrent=2, total_completions=2)),
            labels={"swarm.job.cron": "* * * * *", "swarm.job.overlap": rng.choice(("skip", "replace"))},
        )
        host = w.hosts[rng.choice(w.node_ids)]
        for _ in range(10):
            await asyncio.sleep(rng.choice((5, 30, 70)))
            match rng.randrange(4):
                case 0:
                    await w.depose()
                    await asyncio.sleep(rng.choice((0, 2)))
                    await w.lead()
                case 1:
                    await (host.power_off() if host.connected else host.heal())
        await w.until(lambda: iteration_of(w.service(service)) > 1, 400)


async def only_moves(seed: int) -> None:
    """Nodes come, are drained and taken back, tasks are moved for balance, leaders change; the service says
    start-first: nothing may be missing at any time, no node may have too many, and in the end the load is even."""
    rng = random.Random(seed)
    async with world(nodes=3, seed=seed, placing=True) as w:
        replicas = rng.randint(2, 9)
        most = rng.choice((0, replicas))
        service = await w.create(
            rng.choice(("good", "slow:2")),
            replicas,
            update_config=update_config(order="start-first"),
            template={"placement": Placement(max_replicas=most)},
        )
        await w.until(lambda: len(w.running(service)) == replicas)
        if rng.random() < 0.5:
            await w.set_cluster(labels={"swarm.rebalance": "auto"})
        w.checks.append(Rules(w, calm=True, counting=True).check)
        drained = ""
        for _ in range(14):
            await asyncio.sleep(rng.choice((0.1, 1, 6, 40)))
            match rng.randrange(5):
                case 0:
                    await w.depose()
                    await asyncio.sleep(rng.choice((0, 2)))
                    await w.lead()
                case 1 if not drained:
                    drained = rng.choice(w.node_ids)
                    await w.set_node(drained, availability="drain")
                case 2 if drained:
                    await w.set_node(drained, availability="active")
                    drained = ""
                case 3 if len(w.node_ids) < 6:
                    await w.add_node()
                case _:
                    await w.rebalance(service)
        if drained:
            await w.set_node(drained, availability="active")
        await w.until(lambda: check_converged(w) == "", 200)
        await w.rebalance(service)
        await w.until(lambda: w.service(service).rebalance == "", 400)
        await w.until(lambda: check_converged(w) == "", 60)
        counts = [sum(task.node_id == node for task in w.running(service)) for node in w.node_ids]
        assert max(counts) - min(counts) < 2, counts


@pytest.mark.parametrize("seed", range(SEEDS))
def test_moves_and_drains_that_start_first_never_leave_anything_missing(seed: int) -> None:
    run(only_moves(seed))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_life_ends_in_the_declared_state(seed: int) -> None:
    run(any_life(seed))


@pytest.mark.parametrize("seed", range(max(2, SEEDS // 6)))
def test_any_life_with_moves_and_schedules_ends_in_the_declared_state(seed: int) -> None:
    run(life_with_moves(seed))


@pytest.mark.parametrize("seed", range(max(2, SEEDS // 6)))
def test_a_schedule_starts_runs_and_none_beside_another(seed: int) -> None:
    run(only_schedules(seed))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_updates_alone_never_take_more_than_their_order_allows(seed: int) -> None:
    run(only_updates(seed))


# --- the rules can fail: planted bugs are found ---------------------------------------------------------------------


def too_parallel(service: Any, *, rollback: bool = False) -> Any:
    config = defaults.update_config(service, rollback=rollback)
    return dataclasses.replace(config, parallelism=config.parallelism and config.parallelism + 1)


@pytest.mark.parametrize(
    ("where", "name", "bug", "scene"),
    [
        (update, "update_config", too_parallel, only_updates),
        (update, "_idle_since", lambda draft, *_: draft.now, only_updates),
        (update, "_comes_up", lambda _: False, only_updates),
        (restart, "_still_stops", lambda *_: False, only_updates),
        (restart, "_shed", lambda *_: None, any_life),
        (rebalancer, "why_not", lambda *_, **__: "", only_moves),
        (schedule, "is_under_way", lambda _: False, only_schedules),
        (restart, "_others", lambda *_: [], any_life),
        (restart, "node_is_lost", lambda _: False, any_life),
        (replicated, "victims", lambda slots, count: list(slots)[: count - 1], any_life),
        (reaper, "was_assigned", lambda _: False, any_life),
        (reaper, "history_limit", lambda *_: 6, any_life),
    ],
)
def test_a_planted_bug_is_found(where: Any, name: str, bug: Any, scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, name, bug)
    for seed in range(60):
        try:
            run(scene(seed))
        except AssertionError:
            return
    pytest.fail(f"nobody noticed that {name} is wrong")
