"""The scheduler as a loop of the leader: its core (scheduling.py) on the store, and what must hold when an assignment
is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from swarm_agent.model.objects import Node, Task
from swarm_agent.model.states import TaskState
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx

from .nodeset import is_available
from .planned import PlannedLoop
from .scheduling import SchedulerCore


class Scheduler(PlannedLoop):
    """Assigns pending tasks to nodes while this manager leads. `clock`: nanoseconds since the epoch."""

    def __init__(self, store: Store, *, clock: Callable[[], int] = time.time_ns, **_: Any) -> None:
        super().__init__(store, SchedulerCore, (Node, Task), name="scheduler", guard=_still_fits, clock=clock)


def _still_fits(tx: Tx, task: Task) -> bool:
    """A task is only given to a node that is there and takes tasks at the very moment of writing."""
    return task.status.state is not TaskState.ASSIGNED or is_available(tx.get(Node, task.node_id))
