"""Changes of many objects, in as few log entries as take them.

An entry holds 1.5 MiB. That is far more than ENTRY objects usually need, and less than they need when their specs are
large; what does not fit is then written in halves. So each part has to make sense by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from swarm_agent.store.errors import TooLarge
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx

T = TypeVar("T")

ENTRY = 200
"""Objects in one transaction, as in SwarmKit."""


async def update_in_parts(store: Store, items: Sequence[T], write: Callable[[Tx, Sequence[T]], None]) -> None:
    """`write(tx, part)` for all of the items, in order. Raises ClusterError; some parts may have been written then."""
    parts = [items[start : start + ENTRY] for start in range(0, len(items), ENTRY)]
    while parts:
        part = parts.pop(0)
        try:
            await store.update(lambda tx, part=part: write(tx, part))  # type: ignore[misc]
        except TooLarge:
            if len(part) == 1:
                raise
            middle = len(part) // 2
            parts[:0] = [part[:middle], part[middle:]]
