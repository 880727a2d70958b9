"""The loop of keepers: what makes it look, and that no failure ends it."""

import asyncio

from swarm_agent.manager.keeper import Keeper
from swarm_agent.model.errors import NoLeader
from swarm_agent.model.objects import Config, Secret
from swarm_agent.model.specs import ConfigSpec, SecretSpec
from swarm_agent.store.memory import memory_store


class Looks(Keeper):
    """Counts its looks and fails as told."""

    NAME = "looks"
    KINDS = (Config,)

    def __init__(self, store, **options):
        super().__init__(store, **options)
        self.looks = 0
        self.failures = []

    async def look(self):
        self.looks += 1
        if self.failures:
            raise self.failures.pop(0)


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def until(keeper, looks):
    async with asyncio.timeout(5):
        while keeper.looks < looks:  # noqa: ASYNC110 (the test's own count)
            await asyncio.sleep(0.001)


async def test_it_looks_at_the_start_at_changes_of_its_kinds_and_when_woken():
    store = memory_store()
    keeper = Looks(store)
    await keeper.start()
    await until(keeper, 1)
    await store.update(lambda tx: tx.create(Secret(id="s", spec=SecretSpec(name="s"))))
    await settle()
    assert keeper.looks == 1
    await store.update(lambda tx: tx.create(Config(id="c", spec=ConfigSpec(name="c"))))
    await until(keeper, 2)
    keeper.wake()
    await until(keeper, 3)
    await keeper.stop()
    keeper.wake()
    await settle()
    assert keeper.looks == 3


async def test_it_looks_again_after_its_time_and_after_failures_of_any_kind():
    keeper = Looks(memory_store(), every=0.001, retry=0.001)
    keeper.failures = [NoLeader(), OSError("disk full"), KeyError("a defect")]
    await keeper.start()
    await until(keeper, 6)
    await keeper.stop()
