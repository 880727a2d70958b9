"""Spreading: which of the nodes that fit gets the next task of a group (reference/swarm.md §3.6).

Always the best one, one task at a time: nodes on which this version of the service failed often lately come last,
then fewest tasks of this service, then fewest tasks at all. Without preferences nothing is sorted: nodes are drawn
from the node set's buckets in just that order, as many as the group needs, and those that have got a task wait in a
heap for their next turn. A service of 3 replicas on 5,000 nodes looks at 3 nodes.

Placement preferences make a tree by label values, a missing label being a value of its own. Each task goes down the
branch with the fewest tasks of the service; a branch without room is dropped. Level by level this gives Swarm's equal
branches.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol

from swarm_agent.model.objects import Node
from swarm_agent.model.specs import PlacementPreference

from .filters import Demand, Filter
from .nodeset import FailureKey, NodeInfo, NodeSet

Entry = tuple[int, int, int, int, NodeInfo]
"""Penalty for failures, tasks of the service, tasks, a tie-breaker, the node: smaller is better."""

_NODE_LABEL, _ENGINE_LABEL = "node.labels.", "engine.labels."


class Chooser(Protocol):
    """Gives the best node for one more task, None when no node takes one. The caller charges the node before it asks
    again."""

    def next(self) -> NodeInfo | None: ...


class Group:
    """The search of nodes for one group of tasks. Nothing else may change the node set while it goes on."""

    def __init__(
        self,
        nodes: NodeSet,
        demand: Demand,
        key: FailureKey,
        preferences: Iterable[PlacementPreference],
        now: int,
    ) -> None:
        self.demand = demand
        self.refusals: Counter[Filter] = Counter()
        """How many nodes each filter refused. Complete once `next` gave None."""
        self._nodes = nodes
        self._key = key
        self._now = now
        self._ties = itertools.count()
        descriptors = [text for preference in preferences if (text := _descriptor(preference))]
        self._chooser: Chooser = self._tree(descriptors) if descriptors else _Leaf(self, self._in_order())

    def next(self) -> NodeInfo | None:
        """The best node for one more task."""
        info = self._chooser.next()
        if info is None:
            self.refusals[Filter.READY] = self._nodes.unavailable
        return info

    def entry(self, info: NodeInfo) -> Entry:
        """The node with its rank."""
        return (
            info.penalty(self._key, self._now) if info.failures else 0,
            info.by_service.get(self.demand.service_id, 0),
            info.active,
            next(self._ties),
            info,
        )

    def admits(self, info: NodeInfo) -> bool:
        """The node may take a task; a refusal is counted."""
        refusal = self.demand.refuses(info)
        if refusal is None:
            return True
        self.refusals[refusal] += 1
        return False

    def _in_order(self) -> Iterator[Entry]:
        """All nodes that fit, best first, found while they are asked for. Nodes that get a task meanwhile run the
        service and are not met again."""
        service = self.demand.service_id
        running = [info for info in self._nodes.running.get(service, {}).values() if info.available]
        last: list[Entry] = []
        for active in sorted(self._nodes.buckets):
            for info in list(self._nodes.buckets.get(active, {}).values()):
                if service not in info.by_service and self.admits(info):
                    entry = self.entry(info)
                    if entry[0]:
                        last.append(entry)
                    else:
                        yield entry
        rest = [self.entry(info) for info in running if self.admits(info)]
        yield from sorted(itertools.chain(rest, last))

    def _tree(self, descriptors: list[str]) -> Chooser:
        root = _Branch()
        for info in list(self._nodes.nodes.values()):
            if not info.available:
                continue
            assert info.node is not None
            # A branch counts the service's tasks on all its nodes, also on those that take no more.
            root.add([_label(info.node, text) for text in descriptors], self, info, self.admits(info))
        return root.chooser(self)


class _Leaf:
    """Nodes of one branch: those not yet used come from a sorted source, the used ones from a heap."""

    __slots__ = ("_group", "_head", "_heap", "_last", "_source")

    def __init__(self, group: Group, source: Iterator[Entry]) -> None:
        self._group = group
        self._source = source
        self._head: Entry | None = next(source, None)
        self._heap: list[Entry] = []
        self._last: NodeInfo | None = None

    def next(self) -> NodeInfo | None:
        last = self._last
        if last is not None:
            if not self._group.demand.varies or self._group.admits(last):
                heapq.heappush(self._heap, self._group.entry(last))
            self._last = None
        if self._head is not None and (not self._heap or self._head < self._heap[0]):
            chosen = self._head
            # The source must not be asked for more before the chosen node is charged; it is at the next call.
            self._head = None
            self._last = chosen[4]
            return self._last
        if self._head is None:
            self._head = next(self._source, None)
            if self._head is not None:
                return self.next()
        if not self._heap:
            return None
        self._last = heapq.heappop(self._heap)[4]
        return self._last


class _Branch:
    """One value of a label: sub-branches by the next preference's label, or nodes at the last."""

    __slots__ = ("branches", "nodes", "tasks")

    def __init__(self) -> None:
        self.tasks = 0
        self.branches: dict[str, _Branch] = {}
        self.nodes: list[Entry] = []

    def add(self, path: list[str], group: Group, info: NodeInfo, admitted: bool) -> None:
        branch = self
        count = info.by_service.get(group.demand.service_id, 0)
        branch.tasks += count
        for value in path:
            branch = branch.branches.setdefault(value, _Branch())
            branch.tasks += count
        if admitted:
            branch.nodes.append(group.entry(info))

    def chooser(self, group: Group) -> Chooser:
        if not self.branches:
            return _Leaf(group, iter(sorted(self.nodes)))
        return _Even((branch.tasks, branch.chooser(group)) for branch in self.branches.values())


class _Even:
    """Branches side by side: the one with the fewest tasks is next."""

    __slots__ = ("_heap",)

    def __init__(self, branches: Iterable[tuple[int, Chooser]]) -> None:
        self._heap = [(tasks, number, chooser) for number, (tasks, chooser) in enumerate(branches)]
        heapq.heapify(self._heap)

    def next(self) -> NodeInfo | None:
        while self._heap:
            tasks, number, chooser = self._heap[0]
            info = chooser.next()
            if info is not None:
                heapq.heapreplace(self._heap, (tasks + 1, number, chooser))
                return info
            heapq.heappop(self._heap)
        return None


def _descriptor(preference: PlacementPreference) -> str:
    """The label a preference spreads over; empty for what Swarm ignores."""
    text = preference.spread.spread_descriptor if preference.spread is not None else ""
    for prefix in (_NODE_LABEL, _ENGINE_LABEL):
        if text.lower().startswith(prefix) and len(text) > len(prefix):
            return prefix + text[len(prefix) :]
    return ""


def _label(node: Node, descriptor: str) -> str:
    if descriptor.startswith(_NODE_LABEL):
        return node.spec.labels.get(descriptor[len(_NODE_LABEL) :], "")
    return node.description.engine.labels.get(descriptor[len(_ENGINE_LABEL) :], "")
