"""The available nodes, split by the labels that a placement preference names, and within each part by number of tasks.

The scheduler wants the emptiest node of the part with the fewest replicas, for each task anew. A `Partition` keeps
the nodes sorted in just that way: a tree with one level a label, its leaves being buckets of nodes with equally many
tasks. It is made once for a list of labels and a fixed demand (constraints, platforms, plugins: nodes that cannot
satisfy it are not in it), and then follows the nodes, so placing a service costs what its own tasks cost, not what the
cluster's size would, also when its constraints leave three nodes of 5,000.

It follows lazily: the node set notes in one log which nodes' number of tasks changed, and a partition sorts them in
when it is used next. So partitions that nobody uses cost nothing, and buckets stay as they are while a group is placed.

The partition by no label at all is a single leaf: this is how services without preferences see the nodes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from swarm_agent.model.objects import Node
from swarm_agent.model.specs import PlacementPreference

if TYPE_CHECKING:
    from .filters import Fixed
    from .nodeset import NodeInfo

Path = tuple[str, ...]
"""A node's values of the labels. A node without a label has the empty value, which is a part of its own."""

Buckets = dict[int, dict[str, "NodeInfo"]]
"""Nodes by number of active tasks, then by id."""

_NODE_LABEL, _ENGINE_LABEL = "node.labels.", "engine.labels."


def descriptors(preferences: Iterable[PlacementPreference]) -> Path:
    """The labels that preferences spread over, in order. Like Swarm, others than node and engine labels are ignored."""
    found = []
    for preference in preferences:
        text = preference.spread.spread_descriptor if preference.spread is not None else ""
        for prefix in (_NODE_LABEL, _ENGINE_LABEL):
            if text.lower().startswith(prefix) and len(text) > len(prefix):
                found.append(prefix + text[len(prefix) :])
    return tuple(found)


class Branch:
    """A part of the nodes: split further, or (at the last level) in buckets."""

    __slots__ = ("branches", "buckets")

    def __init__(self) -> None:
        self.branches: OrderedDict[str, Branch] = OrderedDict()
        self.buckets: Buckets = {}

    @property
    def is_empty(self) -> bool:
        return not self.branches and not self.buckets


class Partition:
    """The available nodes that satisfy a fixed demand, by the values of some labels."""

    __slots__ = ("_at", "_fixed", "_labels", "_leaves", "paths", "root", "seen")

    def __init__(self, labels: Path, fixed: Fixed | None = None) -> None:
        self._labels = labels
        self._fixed = fixed
        self._at: dict[str, int] = {}
        self._leaves: dict[str, Branch] = {}
        """In which bucket of which leaf each node is, by node id."""
        self.root = Branch()
        self.paths: dict[str, Path] = {}
        """Where each node is, by node id."""
        self.seen = 0
        """How much of the node set's log is sorted in."""

    def path_of(self, info: NodeInfo) -> Path:
        """The node's values of the labels, whether it is in the partition or not."""
        assert info.node is not None
        return tuple(_label(info.node, label) for label in self._labels)

    def add(self, info: NodeInfo) -> None:
        """The node is available now, or has changed."""
        assert info.node is not None
        # Not by the remembered verdicts: they may be of before the change.
        if self._fixed is None or self._fixed.refuses(info.node) is None:
            self.put(info)

    def put(self, info: NodeInfo) -> None:
        """Take in a node that satisfies the demand."""
        path = self.path_of(info)
        self.paths[info.id] = path
        self._at[info.id] = info.active
        leaf = self._leaves[info.id] = self._leaf(path)
        leaf.buckets.setdefault(info.active, {})[info.id] = info

    def remove(self, info: NodeInfo) -> None:
        """The node is available no more."""
        path = self.paths.pop(info.id, None)
        if path is None:
            return
        self._take(self._leaves.pop(info.id), info.id, self._at.pop(info.id))
        branches = [self.root]
        for value in path:
            branches.append(branches[-1].branches[value])
        for value, parent, branch in zip(reversed(path), reversed(branches[:-1]), reversed(branches[1:]), strict=True):
            if branch.is_empty:
                del parent.branches[value]

    def follow(self, changed: Iterable[NodeInfo]) -> None:
        """Sort in nodes whose number of tasks may have changed."""
        at, leaves = self._at, self._leaves
        for info in changed:
            id_, active = info.id, info.active
            before = at.get(id_)
            if before is None or before == active:
                continue
            leaf = leaves[id_]
            self._take(leaf, id_, before)
            bucket = leaf.buckets.get(active)
            if bucket is None:
                bucket = leaf.buckets[active] = {}
            bucket[id_] = info
            at[id_] = active

    def _leaf(self, path: Path) -> Branch:
        branch = self.root
        for value in path:
            found = branch.branches.get(value)
            if found is None:
                found = branch.branches[value] = Branch()
            branch = found
        return branch

    def _take(self, leaf: Branch, node_id: str, active: int) -> None:
        bucket = leaf.buckets[active]
        del bucket[node_id]
        if not bucket:
            del leaf.buckets[active]


def _label(node: Node, descriptor: str) -> str:
    if descriptor.startswith(_NODE_LABEL):
        return node.spec.labels.get(descriptor[len(_NODE_LABEL) :], "")
    return node.description.engine.labels.get(descriptor[len(_ENGINE_LABEL) :], "")
