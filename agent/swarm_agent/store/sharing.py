"""Equal parts of different objects are kept once.

A task holds its service's template, labels and networks, as it must: they are what the service was when the task was
made. But the tasks of a service mostly hold the same, and each is decoded from its own bytes. Here a decoded object
gets the parts of one decoded before where they are equal, which more than halves the memory of many tasks. Objects are
immutable, so nobody can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from msgspec.structs import replace

from swarm_agent.model.objects import NetworkAttachment, Task

MAX_PARTS = 20_000
"""Parts remembered. When there are more all are forgotten: what is decoded then is remembered anew."""

Share = Callable[[Any, "Parts"], Any]
"""From an object to the same with the parts that are known already."""


class Parts:
    """The parts seen last, by what they belong to."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def one(self, key: Hashable, part: Any) -> Any:
        """The part as it is known under this key if it is equal, else this one, which is known from now on."""
        known = self._known.get(key)
        if known is not None and known == part:
            return known
        if len(self._known) >= MAX_PARTS:
            self._known.clear()
        self._known[key] = part
        return part


def share_task(task: Task, parts: Parts) -> Task:
    """A task with the parts that it has in common with others of its service."""
    service = task.service_id
    return replace(
        task,
        service_id=parts.one((service, "id"), service),
        node_id=parts.one((task.node_id, "id"), task.node_id),
        spec=parts.one((service, "spec"), task.spec),
        service_name=parts.one((service, "name"), task.service_name),
        service_labels=parts.one((service, "labels"), task.service_labels),
        endpoint=parts.one((service, "endpoint"), task.endpoint),
        networks_attachments=[_share_attachment(each, parts) for each in task.networks_attachments],
    )


def _share_attachment(attachment: NetworkAttachment, parts: Parts) -> NetworkAttachment:
    network = attachment.network
    return replace(attachment, network=parts.one((network.id, "network"), network))
