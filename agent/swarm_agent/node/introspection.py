"""What a host says of itself to people and to Prometheus: members, reasons, metrics. Only reads.

`explain` takes whatever the user has at hand: a node's id or name, a task's id, or the beginning of an id. A manager
also knows which task should be where; a worker only what was gossiped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from swarm_agent.gossip import GossipNode
from swarm_agent.gossip.inspect import GossipView
from swarm_agent.model.errors import NotFound, Unavailable
from swarm_agent.model.objects import Node, Task
from swarm_agent.model.rows import ENDPOINTS
from swarm_agent.store.view import View

from . import metrics
from .exposition import Family, gauge, gauges, render
from .loop_lag import LoopLag
from .membership import Membership

MAX_MATCHES = 8


class Introspection:
    """`membership`: this host's present one, if any; `state`: as /info's LocalNodeState."""

    def __init__(self, membership: Callable[[], Membership | None], state: Callable[[], str]) -> None:
        self._membership = membership
        self._state = state
        self.lag = LoopLag()

    def members(self) -> GossipView:
        """Raises Unavailable outside a cluster."""
        return self._gossip().view()

    def explain(self, term: str) -> list[str]:
        """Sentences about a node or a task. Raises NotFound, Unavailable."""
        gossip = self._gossip()
        view = self._view()
        nodes = self._nodes_like(gossip, view, term)
        if nodes:
            return [line for id in nodes for line in self._node(gossip, view, id)]
        known = gossip.keys_like(ENDPOINTS, term) if term else []
        stored = [task.id for task in view.all(Task) if task.id.startswith(term)] if view is not None and term else []
        tasks = sorted({*known, *stored})[:MAX_MATCHES]
        if not tasks:
            hint = "" if view is not None else "; this host is a worker, ask on a manager for tasks that run nowhere"
            raise NotFound(f"no node and no task {term!r} is known here{hint}")
        return [line for id in tasks for line in explain_task(gossip, view, id)]

    def metrics(self) -> str:
        """Prometheus' text format. Never fails: parts that are not there have no metrics."""
        return render(self._families())

    # --- inner -------------------------------------------------------------------------------------------------------

    def _gossip(self) -> GossipNode:
        membership = self._membership()
        gossip = membership.data_plane.gossip if membership is not None else None
        if gossip is None:
            raise Unavailable(f"this host has no members to show: its state is {self._state()}")
        return gossip

    def _view(self) -> View | None:
        membership = self._membership()
        manager = membership.manager if membership is not None else None
        return manager.store.view() if manager is not None and manager.ready else None

    @staticmethod
    def _nodes_like(gossip: GossipNode, view: View | None, term: str) -> list[str]:
        """Ids of nodes with that name, id, or beginning of an id."""
        ids = {member.id for member in gossip.members()}
        names = {}
        if view is not None:
            names = {node.id: node.description.hostname for node in view.all(Node)}
        if term in ids or term in names:
            return [term]
        named = sorted(id for id, name in names.items() if name == term)
        return named or (sorted(id for id in ids | names.keys() if id.startswith(term))[:MAX_MATCHES] if term else [])

    @staticmethod
    def _node(gossip: GossipNode, view: View | None, id: str) -> list[str]:
        lines = gossip.explain_member(id) or [f"{id} was never heard of by gossip on this host."]
        node = view.get(Node, id) if view is not None else None
        if node is not None:
            message = f" ({node.status.message})" if node.status.message else ""
            lines.append(f"The managers hold it for {node.status.state}{message}, availability "
                         f"{node.spec.availability}.")  # fmt: skip
        elif view is not None:
            lines.append("It is no node of the cluster (removed): it is out at the next change of gossip's key.")
        return lines

    def _families(self) -> Iterable[Family]:
        yield from metrics.process()
        yield from self.lag.families()
        yield gauges("swarm_node_state", "1 for this host's state in the cluster.", "state", {self._state(): 1})
        membership = self._membership()
        if membership is None:
            return
        yield gauge(
            "swarm_session_connected", "1 while the leader hears this node.", membership.session.connected.is_set()
        )
        yield from metrics.worker(membership.worker)
        if membership.data_plane.gossip is not None:
            yield from metrics.gossip(membership.data_plane.gossip.stats())
        if membership.data_plane.network is not None:
            yield from metrics.network(membership.data_plane.network)
        manager = membership.manager
        if manager is not None and manager.ready:
            yield from metrics.raft(manager.raft.status())
            yield from metrics.store(manager.store)


def explain_task(gossip: GossipNode, view: View | None, id: str) -> list[str]:
    """Why a task's row is, or is not, in this host's tables."""
    lines = []
    task = view.get(Task, id) if view is not None else None
    if task is not None:
        where = f"on node {task.node_id}" if task.node_id else "on no node yet"
        why = task.status.err or task.status.message
        lines.append(
            f"Task {id} is {task.status.state} {where}, wanted {task.desired_state}" + (f": {why}." if why else ".")
        )
    rows = gossip.explain_key(ENDPOINTS, id)
    if rows:
        return [*lines, *rows]
    if task is not None and task.node_id:
        return [*lines, gossip.explain(ENDPOINTS, id, task.node_id)]
    return [*lines, f"No host has published a row of task {id}: only tasks that run have one."]
