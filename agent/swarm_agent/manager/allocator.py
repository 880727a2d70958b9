"""The allocator as a loop of the leader: its core (allocation.py) on the store, and what must hold when a decision is
written."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from swarm_agent.model.objects import Cluster, Network, Node, Service, Task
from swarm_agent.model.states import TaskState
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx

from .allocation import AllocatorCore, endpoint_of
from .planned import PlannedLoop


class Allocator(PlannedLoop):
    """Gives networks, services, tasks and nodes their addresses and ports while this manager leads. `clock`: ns since
    the epoch."""

    def __init__(self, store: Store, *, clock: Callable[[], int] = time.time_ns, **_: Any) -> None:
        kinds = (Cluster, Network, Service, Task, Node)
        super().__init__(store, AllocatorCore, kinds, name="allocator", guard=_still_right, clock=clock)


def _still_right(tx: Tx, obj: Any) -> bool:
    """What a decision was derived from is still stored: the networks it names are there, and a task's copy of its
    service's endpoint is the present one."""
    if isinstance(obj, Service):
        return all(tx.get(Network, vip.network_id) is not None for vip in obj.endpoint.virtual_ips)
    if isinstance(obj, Node):
        return all(tx.get(Network, network_id) is not None for network_id in obj.attachments)
    if isinstance(obj, Task):
        if obj.status.state is TaskState.NEW:
            return True  # nothing was given to it, only the reason why not
        if any(tx.get(Network, attachment.network.id) is None for attachment in obj.networks_attachments):
            return False
        service = tx.get(Service, obj.service_id)
        return service is None or obj.endpoint == endpoint_of(service)
    return True
