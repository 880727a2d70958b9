"""What must outlive the agent: the assigned tasks with their last observed state, in one small file.

With it a restarted agent goes on without a manager: it watches, stops and starts what it was told to. Containers
themselves are found by their labels. Secrets, configs and registry passwords are never in it.
The file is replaced as a whole; one that cannot be read is as good as none, since the next session brings everything
again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from swarm_agent.model.objects import Task

log = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """`boot`: the host's boot that the containers ran in. After another one, an end says nothing about the work."""

    node_id: str
    boot: str
    tasks: list[Task]


def current_boot() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def snapshot(node_id: str, boot: str, tasks: Iterable[Task]) -> SavedState:
    """What to write. Tasks carry their observed status."""
    return SavedState(
        node_id=node_id,
        boot=boot,
        tasks=[msgspec.structs.replace(task, registry_auth="") for task in tasks],
    )


def save(path: Path, state: SavedState) -> None:
    """Replace the file (blocking)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(state))
    fresh.replace(path)


class StateFile:
    """The file of a running worker. A thread that writes it goes on when whoever waits for it is cancelled, so the next
    write waits for that thread: two of them would take each other's temporary file, or leave the older state.
    """

    def __init__(self, path: Path, write: Callable[[Path, SavedState], None] = save) -> None:
        self._path = path
        self._write = write
        self._writing: asyncio.Future[None] | None = None

    async def save(self, state: SavedState) -> None:
        """Replace the file, after a write that is under way. One caller at a time. Raises OSError."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._writing = asyncio.ensure_future(asyncio.to_thread(self._write, self._path, state))
        await asyncio.shield(self._writing)


def load(path: Path, node_id: str) -> SavedState | None:
    """What was saved by this node, if anything (blocking)."""
    try:
        state = msgspec.json.decode(path.read_bytes(), type=SavedState)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("%s cannot be read, waiting for a manager instead: %s", path, error)
        return None
    return state if state.node_id == node_id else None
