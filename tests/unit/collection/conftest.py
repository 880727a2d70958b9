"""Modules run as Ansible runs them, against the agent's own front door on a memory store."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from tests.unit.api.kit import Door, http_engine, open_door

Module = Callable[..., Awaitable[dict[str, Any]]]
MODULES = "ansible_collections.swarm.cluster.plugins.modules"


def run_module(name: str, arguments: dict[str, Any], check: bool) -> dict[str, Any]:
    """What the module printed."""
    module = importlib.import_module(f"{MODULES}.{name}")
    printed = io.StringIO()
    options = {**arguments, "_ansible_check_mode": check, "_ansible_diff": True}
    with patch_module_args(options), contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        module.main()
    return dict(json.loads(printed.getvalue().splitlines()[-1]))


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A front door outside of any cluster."""
    async with http_engine(tmp_path / "engine.sock"), open_door(tmp_path, tmp_path / "engine.sock") as door:
        yield door


@pytest.fixture
async def swarm(door: Door) -> Door:
    """On the only manager of a cluster."""
    assert (await door.call("POST", "/swarm/init", {}))[0] == 200
    return door


@pytest.fixture
def module(door: Door) -> Module:
    """`await module("swarm_node", name=…)` runs it against the front door, beside the loop that serves it."""

    async def run(module: str, /, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        return await asyncio.to_thread(run_module, module, {"socket": str(door.path), **arguments}, check)

    return run
