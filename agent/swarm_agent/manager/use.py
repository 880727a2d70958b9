"""Which cluster networks each node needs, counted from the tasks on it."""

from __future__ import annotations

from swarm_agent.model.objects import Task


class Use:
    """Which networks the unfinished tasks of each node are attached to, counted."""

    def __init__(self) -> None:
        self._by_task: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._by_node: dict[str, dict[str, int]] = {}

    def of(self, node_id: str) -> set[str]:
        """The networks in use on a node."""
        return set(self._by_node.get(node_id, ()))

    def put(self, task: Task) -> list[str]:
        """The task is this now; nodes whose networks changed are returned."""
        if task.status.state.is_terminal or not task.node_id:
            return self.drop(task.id)
        now = task.node_id, tuple(attachment.network.id for attachment in task.networks_attachments)
        if self._by_task.get(task.id) == now:
            return []
        changed = self.drop(task.id)
        self._by_task[task.id] = now
        counts = self._by_node.setdefault(task.node_id, {})
        for network_id in now[1]:
            counts[network_id] = counts.get(network_id, 0) + 1
            if counts[network_id] == 1:
                changed.append(task.node_id)
        return changed

    def drop(self, task_id: str) -> list[str]:
        """The task is gone; its node is returned if its networks changed."""
        node_id, networks = self._by_task.pop(task_id, ("", ()))
        changed = []
        for network_id in networks:
            counts = self._by_node[node_id]
            counts[network_id] -= 1
            if not counts[network_id]:
                del counts[network_id]
                changed.append(node_id)
        if node_id in self._by_node and not self._by_node[node_id]:
            del self._by_node[node_id]
        return changed
