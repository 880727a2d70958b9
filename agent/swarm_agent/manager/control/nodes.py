"""Nodes: change of role, availability and labels; removal (swarm.md §1.5)."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from swarm_agent.model import times
from swarm_agent.model.errors import BadRequest, FailedPrecondition
from swarm_agent.model.objects import Cluster, Node, Task, TaskStatus, Version
from swarm_agent.model.specs import NodeSpec
from swarm_agent.model.states import TaskState
from swarm_agent.store.tx import Tx

from .lookup import find

CERTIFICATE_GRACE = 7 * 24 * 3600 * times.SECOND
"""Refused certificates are remembered this long after they have expired, as in Swarm."""

REMOVED_TEXT = "Task belonged to a node that has been deleted"

ROLES = ("worker", "manager")
AVAILABILITIES = ("active", "pause", "drain")


def normalize_node(spec: NodeSpec) -> NodeSpec:
    """The spec as it is stored. Raises BadRequest for words that Swarm does not know."""
    role, availability = spec.role.lower(), spec.availability.lower()
    if role not in ROLES:
        raise BadRequest(f'invalid Role: "{spec.role}"')
    if availability not in AVAILABILITIES:
        raise BadRequest(f'invalid Availability: "{spec.availability}"')
    return replace(spec, role=role, availability=availability)


def update_node(
    tx: Tx, term: str, version: int, spec: NodeSpec, *, can_remove: Callable[[str], bool] = lambda node_id: True
) -> Node:
    """Replace the node's spec. `can_remove(node id)` says whether the quorum survives without that manager.

    Raises OutOfSequence, FailedPrecondition for the last manager or a quorum in danger, NotFound, BadRequest.
    """
    spec = normalize_node(spec)
    node = find(tx, Node, term)
    if node.spec.role == "manager" and spec.role == "worker":
        managers = tx.find(Node, role="manager")
        if len(managers) == 1 and managers[0].id == node.id:
            raise FailedPrecondition("attempting to demote the last manager of the swarm")
        if not can_remove(node.id):
            raise FailedPrecondition("can't remove member from the raft: this would result in a loss of quorum")
    return tx.update(replace(node, spec=spec, version=Version(index=version)))


def remove_node(
    tx: Tx,
    term: str,
    *,
    force: bool = False,
    is_member: Callable[[str], bool] | None = None,
    with_tasks: bool = True,
) -> Node:
    """Remove a node that is down, or with `force` any worker; its certificate is refused from then on.

    `is_member(node id)` says whether the node is a raft member; without it the node's manager status decides. Tasks
    that the node still had become orphaned, so that their addresses are free and replacements need not wait; without
    `with_tasks`, for tasks that do not fit into one transaction, the dispatcher sees to that.
    Raises FailedPrecondition, NotFound, BadRequest (ambiguous).
    """
    node = find(tx, Node, term)
    member = is_member(node.id) if is_member is not None else node.manager_status is not None
    if node.spec.role == "manager" and member:
        raise FailedPrecondition(
            f"node {node.id} is a cluster manager and is a member of the raft cluster. "
            "It must be demoted to worker before removal"
        )
    if not force and node.status.state == "ready":
        raise FailedPrecondition(f"node {node.id} is not down and can't be removed")
    for cluster in tx.all(Cluster):
        tx.update(replace(cluster, blacklisted=_blacklist(cluster, node.id, tx.now)))
    for task in tx.find(Task, node_id=node.id) if with_tasks else ():
        if task.status.state.rank < TaskState.ORPHANED.rank and not task.status.state.is_terminal:
            status = TaskStatus(
                timestamp=tx.now,
                state=TaskState.ORPHANED,
                message=REMOVED_TEXT,
                container_status=task.status.container_status,
            )
            tx.update(replace(task, status=status))
    tx.delete(Node, node.id)
    return node


def _blacklist(cluster: Cluster, node_id: str, now: str) -> dict[str, str]:
    """The refused certificates with this one, without those that have long expired."""
    present = times.parse_rfc3339(now)
    kept = {
        id_: until
        for id_, until in cluster.blacklisted.items()
        if times.parse_rfc3339(until) + CERTIFICATE_GRACE > present
    }
    # Its certificate may be from when they lived longer.
    expiry = max(cluster.spec.ca_config.node_cert_expiry, 90 * 24 * 3600 * times.SECOND)
    return {**kept, node_id: times.rfc3339(present + expiry)}
