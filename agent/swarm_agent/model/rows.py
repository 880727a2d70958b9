"""Rows that nodes gossip about themselves; with the cluster's networks they are all that the data plane is made from.

Table "endpoint" (key: task id): a running task that may receive traffic. Table "peer" (key: network id): this host's
own place on a cluster network. Only the owner writes its rows; a row without its owner alive is hidden.
"""

from __future__ import annotations

import msgspec

ENDPOINTS = "endpoint"
PEERS = "peer"


class PortRow(msgspec.Struct, frozen=True, array_like=True):
    protocol: str  # tcp, udp, sctp
    target: int
    published: int  # 0: not published
    mode: str  # ingress or host
    name: str = ""
    addresses: tuple[str, ...] = ()  # networks of hosts' addresses on which the port answers; none: on all
    nodes: tuple[str, ...] = ()  # constraints on hosts on which the port answers; none: on all


class AddressRow(msgspec.Struct, frozen=True, array_like=True):
    network_id: str
    ip: str  # without prefix length
    mac: str
    vip: str = ""  # the service's VIP on this network, without prefix length; empty for dnsrr
    aliases: tuple[str, ...] = ()


class EndpointRow(msgspec.Struct, frozen=True, array_like=True):
    task_id: str
    service_id: str
    service_name: str
    slot: int
    container_id: str
    addresses: tuple[AddressRow, ...] = ()
    ports: tuple[PortRow, ...] = ()
    # Whether VIPs and published ports may choose the task. A row that is not active keeps the task reachable on its
    # networks: while it starts, and while its last connections end.
    active: bool = True
    hostname: str = ""  # the container's, for its name
    # Of several addresses the one in the direction of the default route: what a UDP server answers from unless it takes
    # care. Published ports lead there. Empty: the address on the ingress network.
    answers_from: str = ""


class PeerRow(msgspec.Struct, frozen=True, array_like=True):
    network_id: str
    gateway: str  # this host's own address on the network
    mac: str  # of its bridge
    key: str = ""  # the host's public WireGuard key, base64; empty where its kernel has no WireGuard


_encoder = msgspec.msgpack.Encoder()
_endpoint = msgspec.msgpack.Decoder(EndpointRow)
_peer = msgspec.msgpack.Decoder(PeerRow)


def encode_row(row: EndpointRow | PeerRow) -> bytes:
    return _encoder.encode(row)


def decode_endpoint(data: bytes) -> EndpointRow:
    """Raises msgspec.ValidationError on anything else."""
    return _endpoint.decode(data)


def decode_peer(data: bytes) -> PeerRow:
    return _peer.decode(data)
