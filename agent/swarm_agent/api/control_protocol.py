"""What the API needs of the node it runs on. `node.cluster_node.ClusterNode` is the real one; tests have their own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from socket import socket
from typing import Protocol

from swarm_agent.gossip.inspect import GossipView
from swarm_agent.manager.events import History
from swarm_agent.model.objects import Network
from swarm_agent.model.requests import InitRequest, JoinRequest, RestoreRequest
from swarm_agent.model.session import ManagerPeer
from swarm_agent.network.report import MeshReport
from swarm_agent.store.store import Store


class Quorum(Protocol):
    """What the raft group says about managers, by node id."""

    def can_remove(self, node_id: str) -> bool:
        """Whether enough managers that answer are left without this one."""

    def is_raft_member(self, node_id: str) -> bool:
        """Whether the node is a member of the raft group."""


class ExternalAuthorities(Protocol):
    """Certificate authorities outside the cluster."""

    async def reaches_external(self, root: str, urls: Sequence[str]) -> bool:
        """Whether one of these is there and under that root."""


class ManagerHandle(Quorum, ExternalAuthorities, Protocol):
    """This node's manager role."""

    @property
    def store(self) -> Store: ...

    @property
    def history(self) -> History:
        """The cluster's last events."""

    @property
    def is_leader(self) -> bool: ...

    @property
    def leader_addr(self) -> str:
        """host:port of the leader's management plane; empty when there is none."""


class NetworkPlace(Protocol):
    """A place on a cluster network for one container of this host."""

    @property
    def task_id(self) -> str: ...

    @property
    def engine_network(self) -> str:
        """The engine's name of the network."""

    @property
    def ip(self) -> str: ...

    @property
    def mac(self) -> str: ...

    @property
    def ip6(self) -> str:
        """ "" on networks without IPv6."""

    @property
    def resolvers(self) -> tuple[str, ...]:
        """The DNS servers that know the network's names."""


class NetworkAttachments(Protocol):
    """Places on cluster networks for this host's plain containers."""

    @property
    def networks(self) -> Sequence[Network]:
        """The cluster networks that this host has."""

    async def attach(self, network: str, address: str = "") -> NetworkPlace:
        """A new place, at an IPv4 address if one is given; `bind` or `release` it. Raises ClusterError."""

    async def bind(self, task_id: str, container_id: str) -> None:
        """The place is this container's. Raises ClusterError."""

    async def release(self, task_id: str) -> None:
        """Give the place back."""

    def wake(self) -> None:
        """A container may have left a network."""


class Introspection(Protocol):
    """What this host says of itself, on any host."""

    def members(self) -> GossipView:
        """Raises Unavailable outside a cluster."""

    def explain(self, term: str) -> list[str]:
        """Sentences about a node or a task. Raises NotFound, Unavailable."""

    def metrics(self) -> str:
        """Prometheus' text format."""


class NodeControl(Protocol):
    """This host and its membership."""

    @property
    def local_state(self) -> str:
        """inactive, pending, active, error or locked."""

    @property
    def node_id(self) -> str: ...

    @property
    def node_addr(self) -> str:
        """The address that this node advertises, without a port."""

    @property
    def error(self) -> str:
        """Why the state is `error`; else empty."""

    @property
    def is_manager(self) -> bool: ...

    def manager(self) -> ManagerHandle:
        """Raises Unavailable with the fitting text when this node cannot answer for the cluster."""

    @property
    def introspection(self) -> Introspection: ...

    def remote_managers(self) -> Sequence[ManagerPeer]:
        """The managers that this node knows of."""

    async def init(self, request: InitRequest) -> str:
        """Found a cluster; returns this node's id. Raises ClusterError."""

    async def join(self, request: JoinRequest) -> None:
        """Raises ClusterError."""

    async def mesh_report(self) -> MeshReport:
        """What this host balances. Raises ClusterError outside a cluster and before the data plane has started."""

    @property
    def attachments(self) -> NetworkAttachments | None:
        """None outside a cluster."""

    async def connect_engine(self, node_id: str) -> socket:
        """A connection to the engine of any node, from a manager. Raises ClusterError when there is none."""

    async def leave(self, force: bool) -> None:
        """Raises ClusterError."""

    async def unlock(self, text: str) -> None:
        """Take up the membership of a locked manager with its unlock key. Raises ClusterError."""

    async def save_snapshot(self, secret: bytes) -> AsyncGenerator[bytes, None]:
        """The pieces of a backup of the cluster. Raises ClusterError before the first."""

    async def restore(self, request: RestoreRequest, secret: bytes) -> str:
        """Found the cluster of a backup on this host; returns the node id. Raises ClusterError."""
