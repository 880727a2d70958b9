"""The driver of planners: marks, times, failures and rest."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from swarm_agent.manager.loop import WIDTH, PlanLoop
from swarm_agent.model.errors import NoLeader
from swarm_agent.model.times import SECOND
from tests.sim.virtual_time import clock, run


def driven(work: Callable[[str], Awaitable[None]], main: Callable[[PlanLoop], Awaitable[None]]) -> None:
    async def body() -> None:
        loop = PlanLoop("test", work, clock=clock)
        await loop.start()
        await main(loop)
        await loop.stop()

    run(body())


def test_marks_gather_while_a_plan_is_written() -> None:
    planned: list[str] = []

    async def work(key: str) -> None:
        planned.append(key)
        await asyncio.sleep(1)

    async def main(loop: PlanLoop) -> None:
        loop.mark("a")
        await asyncio.sleep(0.5)
        for _ in range(10):
            loop.mark("a")
        loop.mark("b")
        await asyncio.sleep(5)
        assert planned == ["a", "a", "b"]

    driven(work, main)


def test_a_key_is_never_planned_twice_at_once() -> None:
    running: set[str] = set()
    most: list[int] = []

    async def work(key: str) -> None:
        assert key not in running
        running.add(key)
        most.append(len(running))
        await asyncio.sleep(0.01)
        running.remove(key)

    async def main(loop: PlanLoop) -> None:
        for _ in range(50):
            loop.mark_all(str(number) for number in range(2 * WIDTH))
            await asyncio.sleep(0.003)
        await asyncio.sleep(1)
        assert max(most) == WIDTH and not running

    driven(work, main)


def test_a_key_is_planned_at_its_time_and_the_last_time_set_counts() -> None:
    planned: list[float] = []

    async def work(_: str) -> None:
        planned.append(asyncio.get_running_loop().time())

    async def main(loop: PlanLoop) -> None:
        loop.wake_at("a", clock() + 5 * SECOND)
        loop.wake_at("a", clock() + 3 * SECOND)
        loop.wake_at("b", clock() + 4 * SECOND)
        loop.cancel("b")
        await asyncio.sleep(20)
        assert len(planned) == 1 and 3 <= planned[0] < 3.1

    driven(work, main)


def test_a_failed_plan_is_tried_again_ever_later_until_it_succeeds() -> None:
    tried: list[float] = []

    async def work(_: str) -> None:
        tried.append(asyncio.get_running_loop().time())
        if len(tried) < 8:
            raise NoLeader if len(tried) % 2 else ValueError("a bug")

    async def main(loop: PlanLoop) -> None:
        loop.mark("a")
        await asyncio.sleep(60)
        assert len(tried) == 8
        pauses = [round(later - earlier, 1) for earlier, later in itertools.pairwise(tried)]
        assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]

    driven(work, main)


def test_a_resting_key_waits_but_is_not_forgotten() -> None:
    planned: list[float] = []

    async def work(_: str) -> None:
        planned.append(asyncio.get_running_loop().time())

    async def main(loop: PlanLoop) -> None:
        loop.rest("a", clock() + 2 * SECOND)
        loop.mark("a")
        await asyncio.sleep(1)
        loop.mark("a")
        await asyncio.sleep(5)
        assert len(planned) == 1 and 2 <= planned[0] < 2.1

    driven(work, main)
