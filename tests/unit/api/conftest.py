"""Fixtures: a front door before an engine that answers the few calls which merged answers need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.api.kit import Door, HttpEngine, http_engine, open_door


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[HttpEngine]:
    async with http_engine(tmp_path / "engine.sock") as engine:
        yield engine


@pytest.fixture
async def door(engine: HttpEngine, tmp_path: Path) -> AsyncIterator[Door]:
    """Outside a cluster."""
    async with open_door(tmp_path, tmp_path / "engine.sock") as door:
        yield door


@pytest.fixture
async def swarm(door: Door) -> Door:
    """On the only manager of a cluster."""
    assert (await door.call("POST", "/swarm/init", {}))[0] == 200
    return door
