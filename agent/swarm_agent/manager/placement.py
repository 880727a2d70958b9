"""Spreading: which of the nodes that fit gets the next task of a group (reference/swarm.md §3.6).

Always the best one, one task at a time: nodes on which this version of the service failed often lately come last,
then fewest tasks of this service, then fewest tasks at all. Without preferences nothing is sorted: nodes are drawn
from the node set's buckets in just that order, as many as the group needs, and those that have got a task wait in a
heap for their next turn. A service of 3 replicas on 5,000 nodes looks at 3 nodes.

Placement preferences split the nodes by label values, a missing label being a value of its own. Each task goes to the
part with the fewest tasks of the service, level by level; a part without room is dropped. In the end this gives Swarm's
equal branches. Parts are looked into when it is their turn, not before.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from swarm_agent.model.specs import PlacementPreference

from .filters import Demand, Filter
from .nodeset import FailureKey, NodeInfo, NodeSet
from .partition import Branch, Buckets, Partition, descriptors

Entry = tuple[int, int, int, int, NodeInfo]
"""Penalty for failures, tasks of the service, tasks, a tie-breaker, the node: smaller is better."""


class Chooser(Protocol):
    """Gives the best node for one more task, None when no node takes one. The caller charges the node before it asks
    again."""

    def next(self) -> NodeInfo | None: ...


class Group:
    """The search of nodes for one group of tasks. Nothing else may change the node set while it goes on."""

    __slots__ = ("_chooser", "_counted", "_nodes", "_partition", "_ranking")

    def __init__(
        self,
        nodes: NodeSet,
        demand: Demand,
        key: FailureKey,
        preferences: Iterable[PlacementPreference],
        now: int,
    ) -> None:
        self._nodes = nodes
        self._counted = False
        self._partition = nodes.partition(descriptors(preferences), demand.fixed)
        self._ranking = _Ranking(demand, key, now, self._partition)
        running = [info for info in nodes.running.get(demand.service_id, {}).values() if info.available]
        self._chooser = _choose_in(self._ranking, self._partition.root, 0, running)

    @property
    def refusals(self) -> Mapping[Filter, int]:
        """How many nodes each filter refused. Complete once `next` gave None."""
        return self._ranking.refusals

    def next(self) -> NodeInfo | None:
        """The best node for one more task."""
        info = self._chooser.next()
        if info is None:
            self._ranking.refusals[Filter.READY] = self._nodes.unavailable
            self._count_the_unfit()
        return info

    def _count_the_unfit(self) -> None:
        """Nodes that are not in the partition were never asked; now their reasons count."""
        if self._counted:
            return
        self._counted = True
        paths, running = self._partition.paths, self._nodes.running.get(self._ranking.service, {})
        for info in self._nodes.nodes.values():
            if info.available and info.id not in paths and info.id not in running:
                self._ranking.admits(info)


class _Ranking:
    """Which nodes a group's tasks may go to, and in which order. Knows nothing of the choosers, which know it: a
    search is no cycle, and the garbage collector has nothing to do after it."""

    __slots__ = ("_key", "_now", "_partition", "_ties", "demand", "refusals", "service")

    def __init__(self, demand: Demand, key: FailureKey, now: int, partition: Partition) -> None:
        self.demand = demand
        self.service = demand.service_id
        self.refusals: dict[Filter, int] = {}
        self._key = key
        self._now = now
        self._ties = 0
        self._partition = partition

    def entry(self, info: NodeInfo) -> Entry:
        """The node with its rank."""
        self._ties += 1
        return (
            info.penalty(self._key, self._now) if info.failures else 0,
            info.by_service.get(self.service, 0),
            info.active,
            self._ties,
            info,
        )

    def admits(self, info: NodeInfo) -> bool:
        """The node may take a task; a refusal is counted."""
        refusal = self.demand.refuses(info)
        if refusal is None:
            return True
        self.refusals[refusal] = self.refusals.get(refusal, 0) + 1
        return False

    def part_of(self, info: NodeInfo, level: int) -> str:
        """The node's value of the label of a level."""
        path = self._partition.paths.get(info.id) or self._partition.path_of(info)
        return path[level]

    def in_order(self, buckets: Buckets, running: list[NodeInfo]) -> Iterator[Entry]:
        """All nodes that fit, best first, found while they are asked for. Nodes that get a task meanwhile run the
        service and are not met again."""
        service = self.service
        last: list[Entry] = []
        for active in sorted(buckets):
            for info in buckets[active].values():
                if service not in info.by_service and self.admits(info):
                    entry = self.entry(info)
                    if entry[0]:
                        last.append(entry)
                    else:
                        yield entry
        rest = [self.entry(info) for info in running if self.admits(info)]
        yield from sorted(itertools.chain(rest, last))


def _choose_in(ranking: _Ranking, branch: Branch, level: int, running: list[NodeInfo]) -> Chooser:
    """The chooser of a branch; `running`: its nodes that run the service already."""
    if branch.branches:
        return _Even(ranking, branch, level, running)
    return _Leaf(ranking, ranking.in_order(branch.buckets, running))


class _Leaf:
    """Nodes of one branch: those not yet used come from a sorted source, the used ones from a heap."""

    __slots__ = ("_head", "_heap", "_last", "_ranking", "_source")

    def __init__(self, ranking: _Ranking, source: Iterator[Entry]) -> None:
        self._ranking = ranking
        self._source = source
        self._head: Entry | None = next(source, None)
        self._heap: list[Entry] = []
        self._last: NodeInfo | None = None

    def next(self) -> NodeInfo | None:
        last = self._last
        if last is not None:
            if not self._ranking.demand.varies or self._ranking.admits(last):
                heapq.heappush(self._heap, self._ranking.entry(last))
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


class _Even:
    """Parts side by side: the one with the fewest tasks is next. Those without any come first, in turn from one group
    to the next; a part's chooser is made when it is needed."""

    __slots__ = ("_branches", "_choosers", "_heap", "_level", "_parts", "_ranking", "_unseen")

    def __init__(self, ranking: _Ranking, branch: Branch, level: int, running: list[NodeInfo]) -> None:
        self._ranking = ranking
        self._branches = branch.branches
        self._level = level
        self._unseen = len(branch.branches)
        self._choosers: dict[str, Chooser] = {}
        self._parts: dict[str, list[NodeInfo]] = {}
        """The nodes that run the service, by the part that they are in."""
        for info in running:
            self._parts.setdefault(ranking.part_of(info, level), []).append(info)
        self._heap = [
            (sum([info.by_service[ranking.service] for info in infos]), value)
            for value, infos in self._parts.items()
            if value in branch.branches
        ]
        heapq.heapify(self._heap)

    def next(self) -> NodeInfo | None:
        branches = self._branches
        while self._unseen:
            self._unseen -= 1
            value = next(iter(branches))
            branches.move_to_end(value)
            if value not in self._parts:
                chooser = self._choosers[value] = _choose_in(self._ranking, branches[value], self._level + 1, [])
                info = chooser.next()
                if info is not None:
                    heapq.heappush(self._heap, (1, value))
                    return info
        while self._heap:
            tasks, value = self._heap[0]
            used = self._choosers.get(value)
            if used is None:
                used = self._choosers[value] = _choose_in(
                    self._ranking, branches[value], self._level + 1, self._parts[value]
                )
            info = used.next()
            if info is not None:
                heapq.heapreplace(self._heap, (tasks + 1, value))
                return info
            heapq.heappop(self._heap)
        return None
