"""Pulls: shared, bounded, and never the reason of a failure by themselves."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from swarm_agent.worker.engine import EngineApi, EngineError, EngineGone
from swarm_agent.worker.pull import FORGET_SECONDS, Puller, unreachable


class Registry:
    """The image part of an engine: what is there, and how a pull goes."""

    def __init__(self, error: EngineError | None = None, present: bool = False) -> None:
        self.error, self.present = error, present
        self.pulls: list[tuple[str, str]] = []
        self.asked = asyncio.Semaphore(0)
        self.go = asyncio.Event()
        self.go.set()

    async def image_exists(self, reference: str) -> bool:
        return self.present

    async def pull(self, reference: str, auth: str, stall: float) -> None:
        self.pulls.append((reference, auth))
        self.asked.release()
        await self.go.wait()
        if self.error is not None:
            raise self.error


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def puller(registry: Registry, clock: Clock | None = None) -> Puller:
    return Puller(cast(EngineApi, cast(Any, registry)), clock or Clock())


async def test_one_pull_serves_all_that_want_the_image() -> None:
    registry = Registry()
    registry.go.clear()
    pulls = puller(registry)
    waiting = [asyncio.create_task(pulls.fetch("a:1", "")) for _ in range(5)]
    other = asyncio.create_task(pulls.fetch("a:1", "other password"))
    await registry.asked.acquire()
    await registry.asked.acquire()
    registry.go.set()
    await asyncio.gather(*waiting, other)
    assert registry.pulls == [("a:1", ""), ("a:1", "other password")]


async def test_who_gives_up_does_not_end_the_pull_of_the_others() -> None:
    registry = Registry()
    registry.go.clear()
    pulls = puller(registry)
    one, two = asyncio.create_task(pulls.fetch("a:1", "")), asyncio.create_task(pulls.fetch("a:1", ""))
    await registry.asked.acquire()
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    registry.go.set()
    await two
    assert len(registry.pulls) == 1


async def test_a_digest_that_is_there_is_not_pulled() -> None:
    registry = Registry(present=True)
    await puller(registry).fetch("a@sha256:00", "")
    assert registry.pulls == []
    await puller(registry).fetch("a:1", "")
    assert registry.pulls == [("a:1", "")]


async def test_an_unreachable_registry_is_left_alone_for_a_while() -> None:
    registry = Registry(EngineError(500, "Get https://x/v2/: dial tcp: lookup x: no such host"))
    clock = Clock()
    pulls = puller(registry, clock)
    await pulls.fetch("x.io/a:1", "")
    await pulls.fetch("x.io/b:1", "")
    assert registry.pulls == [("x.io/a:1", "")]
    await pulls.fetch("y.io/b:1", "")
    clock.now = FORGET_SECONDS
    await pulls.fetch("x.io/b:1", "")
    assert [reference for reference, _ in registry.pulls] == ["x.io/a:1", "y.io/b:1", "x.io/b:1"]


async def test_a_refusal_is_asked_again() -> None:
    registry = Registry(EngineError(404, "manifest for a:1 not found"))
    pulls = puller(registry)
    await pulls.fetch("a:1", "")
    await pulls.fetch("a:1", "")
    assert len(registry.pulls) == 2


async def test_an_engine_that_goes_away_is_told() -> None:
    with pytest.raises(EngineGone):
        await puller(Registry(EngineGone("away"))).fetch("a:1", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dial tcp 1.2.3.4:443: i/o timeout", True),
        ("net/http: request canceled while waiting for connection", True),
        ("pull access denied for x, repository does not exist", False),
        ("unauthorized: authentication required", False),
    ],
)
def test_which_errors_mean_that_nobody_answered(text: str, expected: bool) -> None:
    assert unreachable(EngineError(500, text)) is expected
