"""What a node has to be told: its tasks with the secrets and configs they name, and what it must know of the cluster.

An `Outbox` remembers what its node was told and compares with the store: `next(view)` gives the messages that are
missing. Marks say what to look at again, so a change of one task costs the same on a node with one task or two
hundred. Nothing depends on which changes led there.

A node is told of a task from the moment it is assigned until it is removed from the store, also after it has ended:
the node keeps the container (for its logs) as long as the task is remembered. Two exceptions: of an *orphaned* task
nobody wants to know any more, so the node is told that it is gone and removes what is left of it; and a task that
only changed its status is not sent again, it was the node that said so.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TypeVar

from msgspec.structs import replace

from swarm_agent.model.objects import Cluster, Config, Network, Node, NodeStatus, Secret, Task, TaskStatus, Version
from swarm_agent.model.session import Assignments, ManagerPeer, ToNode, Welcome
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import SECOND
from swarm_agent.store.view import Reader

from .holdings import is_overlay
from .liveness import BEATS_PER_PERIOD

DEFAULT_HEARTBEAT = 5.0
DEFAULT_DATA_PATH_PORT = 4789
SEEDS = 5
"""Members that a node is given to find the others through, when there are not more managers than that."""

File = TypeVar("File", Secret, Config)

_NO_VERSION = Version()
_NO_STATUS = TaskStatus()
_NO_NODE_STATUS = NodeStatus()


def heartbeat_period(cluster: Cluster | None) -> float:
    """The cluster's heartbeat period in seconds."""
    period = cluster.spec.dispatcher.heartbeat_period if cluster is not None else 0
    return period / SECOND if period > 0 else DEFAULT_HEARTBEAT


def managers(view: Reader) -> list[ManagerPeer]:
    """All managers with their management addresses, in a stable order."""
    found = [
        ManagerPeer(node.id, node.manager_status.addr)
        for node in view.find(Node, manages="yes")
        if node.manager_status is not None and node.manager_status.addr
    ]
    return sorted(found, key=lambda peer: peer.node_id)


def gossip_seeds(view: Reader, node_id: str, port: int) -> list[str]:
    """Where a node finds others to gossip with: the managers, and some nodes besides if these are few, ready ones
    first."""
    chosen = [node for node in view.find(Node, manages="yes") if _may_be_seed(node, node_id)]
    missing = max(0, SEEDS - len(chosen))
    if missing:
        workers = [node for node in view.all(Node) if node.manager_status is None]
        ready = (node for node in workers if node.status.state == "ready" and _may_be_seed(node, node_id))
        others = (node for node in workers if node.status.state != "ready" and _may_be_seed(node, node_id))
        chosen += itertools.islice(itertools.chain(ready, others), missing)
    return sorted(f"{_bracketed(node.status.addr)}:{port}" for node in chosen)


def _may_be_seed(node: Node, asking: str) -> bool:
    return node.id != asking and bool(node.status.addr)


def is_told(task: Task) -> bool:
    """Whether the task's node is to know of it."""
    state = task.status.state
    return state.rank >= TaskState.ASSIGNED.rank and state is not TaskState.ORPHANED


class Outbox:
    """What one node was told, and what it is to be told next. `gossip_port` is the same on all nodes."""

    def __init__(self, node_id: str, gossip_port: int) -> None:
        self._node_id = node_id
        self._gossip_port = gossip_port
        self._tasks: dict[str, Task] = {}
        self._secrets: dict[str, int] = {}
        self._configs: dict[str, int] = {}
        # What its tasks name, there or not: (Secret or Config, id).
        self._named: set[tuple[type[Secret | Config], str]] = set()
        self._welcome: Welcome | None = None
        self._started = False
        self._marked: set[str] = set()
        self._files_marked = False
        self._welcome_marked = True

    def mark_task(self, task_id: str) -> None:
        """The task was changed, created or removed."""
        self._marked.add(task_id)

    def mark_welcome(self) -> None:
        """Something that every node knows may have changed: the node, the cluster, the managers, the networks."""
        self._welcome_marked = True

    def mark_file(self, kind: type[Secret | Config], id_: str) -> None:
        """The secret or config was created, changed or removed."""
        if (kind, id_) in self._named:
            self._files_marked = True

    def next(self, view: Reader) -> list[ToNode]:
        """The messages that bring the node up to date; none when the node is not in the store."""
        node = view.get(Node, self._node_id)
        if node is None:
            return []
        assignments = self._changes(view) if self._started else self._complete(view)
        messages: list[ToNode] = []
        if self._welcome_marked:
            self._welcome_marked = False
            welcome = self._make_welcome(view, node)
            if self._welcome is None or _essence_of_welcome(welcome) != _essence_of_welcome(self._welcome):
                self._welcome = welcome
                # A walk over all nodes, so only for a welcome that is sent.
                messages.append(replace(welcome, gossip_seeds=gossip_seeds(view, node.id, self._gossip_port)))
        if assignments is not None:
            messages.append(assignments)
        return messages

    def _complete(self, view: Reader) -> Assignments:
        self._started = True
        self._marked.clear()
        self._tasks = {task.id: task for task in view.find(Task, node_id=self._node_id) if is_told(task)}
        secrets, configs = self._files(view)
        self._secrets = {secret.id: secret.version.index for secret in secrets}
        self._configs = {config.id: config.version.index for config in configs}
        return Assignments(complete=True, tasks=list(self._tasks.values()), secrets=secrets, configs=configs)

    def _changes(self, view: Reader) -> Assignments | None:
        if not self._marked and not self._files_marked:
            return None
        marked, self._marked = self._marked, set()
        self._files_marked = False
        tasks, gone = [], []
        for task_id in sorted(marked):
            task = view.get(Task, task_id)
            known = self._tasks.get(task_id)
            if task is None or task.node_id != self._node_id or not is_told(task):
                if known is not None:
                    del self._tasks[task_id]
                    gone.append(task_id)
                    self._welcome_marked = True
                continue
            self._tasks[task_id] = task
            if known is None or known.status.state.is_terminal != task.status.state.is_terminal:
                self._welcome_marked = True  # the networks it needs
            if known is None or _essence(known) != _essence(task):
                tasks.append(task)
        secrets, configs = self._files(view)
        new_secrets, gone_secrets = _differences(self._secrets, secrets)
        new_configs, gone_configs = _differences(self._configs, configs)
        if not (tasks or gone or new_secrets or gone_secrets or new_configs or gone_configs):
            return None
        return Assignments(
            tasks=tasks,
            gone_tasks=gone,
            secrets=new_secrets,
            gone_secrets=gone_secrets,
            configs=new_configs,
            gone_configs=gone_configs,
        )

    def _files(self, view: Reader) -> tuple[list[Secret], list[Config]]:
        """The secrets and configs that unfinished tasks of the node name."""
        secrets: dict[str, Secret] = {}
        configs: dict[str, Config] = {}
        self._named.clear()
        for task in self._tasks.values():
            container = task.spec.container_spec
            if container is None or task.status.state.is_terminal:
                continue
            for secret_reference in container.secrets:
                self._named.add((Secret, secret_reference.secret_id))
                secret = view.get(Secret, secret_reference.secret_id)
                if secret is not None:
                    secrets[secret.id] = secret
            for config_reference in container.configs:
                self._named.add((Config, config_reference.config_id))
                config = view.get(Config, config_reference.config_id)
                if config is not None:
                    configs[config.id] = config
        return list(secrets.values()), list(configs.values())

    def _make_welcome(self, view: Reader, node: Node) -> Welcome:
        cluster = next(iter(view.all(Cluster)), None) or Cluster()
        return Welcome(
            node=node,
            cluster_id=cluster.id,
            heartbeat=heartbeat_period(cluster) / BEATS_PER_PERIOD,
            managers=managers(view),
            gossip_keys=cluster.gossip_keys,
            gossip_seeds=[],
            root_ca=cluster.trust_bundle,
            issuer=cluster.tls_info.cert_issuer_public_key,
            data_path_port=cluster.data_path_port or DEFAULT_DATA_PATH_PORT,
            networks=self._networks(view, node),
        )

    def _networks(self, view: Reader, node: Node) -> list[Network]:
        """Ingress, those of its tasks, and those on which it has an address of its own still."""
        found = {network.id: network for network in view.all(Network) if network.spec.ingress}
        for task in self._tasks.values():
            if not task.status.state.is_terminal:
                for attachment in task.networks_attachments:
                    # A network that was removed goes on to exist here until its last task has ended.
                    stored = view.get(Network, attachment.network.id)
                    found[attachment.network.id] = stored if stored is not None else attachment.network
        for network_id in node.attachments:
            network = view.get(Network, network_id)
            if network is not None:
                found[network_id] = network
        return [found[network_id] for network_id in sorted(found) if is_overlay(found[network_id])]


def _differences(known: dict[str, int], files: Iterable[File]) -> tuple[list[File], list[str]]:
    """What is new or changed and what is gone; `known` becomes what there is."""
    now = {file.id: file for file in files}
    new = [file for file in now.values() if known.get(file.id) != file.version.index]
    gone = sorted(known.keys() - now.keys())
    known.clear()
    known.update({file.id: file.version.index for file in now.values()})
    return new, gone


def _essence(task: Task) -> Task:
    """The task without what the node itself reported."""
    return replace(task, status=_NO_STATUS, version=_NO_VERSION, updated_at="")


def _essence_of_welcome(welcome: Welcome) -> Welcome:
    """A welcome is sent again only for what a node acts upon. Seeds are none of it: it needs them when it starts."""
    node = replace(welcome.node, version=_NO_VERSION, updated_at="", status=_NO_NODE_STATUS)
    return replace(welcome, node=node)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
