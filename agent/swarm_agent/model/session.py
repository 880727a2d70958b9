"""Messages of a node's session with a manager (WebSocket /v1/session on the management plane, msgpack).

A node says `Hello`, gets `Welcome`, then one complete `Assignments` and afterwards changes. It beats every
`Welcome.heartbeat` seconds and reports what it observes of its tasks. Everything is level-triggered: a message carries
the new state of a thing, never a delta of it, so sending one twice is harmless.
"""

from __future__ import annotations

import msgspec

from .base import discreet
from .objects import Config, Network, Node, NodeDescription, Secret, Task, TaskStatus


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    def __repr__(self) -> str:
        return discreet(self)


# --- node to manager -------------------------------------------------------------------------------------------------


class Hello(_Message, frozen=True, tag="hello"):
    """First message: what this node is. `advertise` is its address for gossip and data (no port)."""

    description: NodeDescription
    advertise: str


class Heartbeat(_Message, frozen=True, tag="beat"):
    pass


class Describe(_Message, frozen=True, tag="describe"):
    """The node's description changed (resources, labels, plugins, certificate)."""

    description: NodeDescription


class TaskStatusUpdate(msgspec.Struct, frozen=True, array_like=True):
    task_id: str
    status: TaskStatus


class Statuses(_Message, frozen=True, tag="statuses"):
    """New observed states of tasks."""

    updates: list[TaskStatusUpdate]


# --- manager to node -------------------------------------------------------------------------------------------------


class ManagerPeer(msgspec.Struct, frozen=True, array_like=True):
    node_id: str
    addr: str  # host:port of the management plane


class Welcome(_Message, frozen=True, tag="welcome"):
    """What a node must know of the cluster; sent again in full when any of it changes."""

    node: Node
    cluster_id: str
    heartbeat: float  # seconds between beats
    managers: list[ManagerPeer]
    gossip_keys: list[str]  # base64, the first encrypts
    gossip_seeds: list[str]  # host:port of members to join gossip through
    root_ca: str  # PEM bundle to trust
    data_path_port: int  # VXLAN UDP port
    networks: list[Network]  # cluster networks that this node must have: ingress, and those of its tasks
    issuer: str = ""  # base64 of the DER public key that certificates are signed with now; others are to be renewed


class Assignments(_Message, frozen=True, tag="assignments"):
    """What the node must run. `complete` replaces all it knew; otherwise the lists are changes.

    A task is sent as long as the node may have something of it; it leaves (`gone_tasks`) when the store drops it.
    """

    complete: bool = False
    tasks: list[Task] = []
    gone_tasks: list[str] = []
    secrets: list[Secret] = []
    gone_secrets: list[str] = []
    configs: list[Config] = []
    gone_configs: list[str] = []


class OpenStream(_Message, frozen=True, tag="open-stream"):
    """Open a byte stream from this node's engine to the manager that asks: GET /v1/stream/ID there."""

    id: str


FromNode = Hello | Heartbeat | Describe | Statuses
ToNode = Welcome | Assignments | OpenStream

_encoder = msgspec.msgpack.Encoder()
_from_node = msgspec.msgpack.Decoder(FromNode)
_to_node = msgspec.msgpack.Decoder(ToNode)


def encode_message(message: FromNode | ToNode) -> bytes:
    return _encoder.encode(message)


def decode_from_node(data: bytes) -> FromNode:
    """Raises msgspec.ValidationError when the node sent something else."""
    message: FromNode = _from_node.decode(data)
    return message


def decode_to_node(data: bytes) -> ToNode:
    message: ToNode = _to_node.decode(data)
    return message
