"""What clients send to change this node's membership: POST /swarm/init, /swarm/join, /swarm/unlock (swarm.md §1.2)."""

from __future__ import annotations

import msgspec

from .base import Object, always
from .specs import SwarmSpec


class InitRequest(Object, frozen=True):
    """POST /swarm/init. Addresses are HOST, HOST:PORT, INTERFACE or INTERFACE:PORT; empty ones are to be found out.

    `spec` holds what the client gave: zero values mean Swarm's defaults (manager/control/cluster.py: `initial_spec`).
    """

    listen_addr: str = always(str)
    advertise_addr: str = always(str)
    data_path_addr: str = always(str)
    data_path_port: int = always(int)
    force_new_cluster: bool = always(bool)
    spec: SwarmSpec = always(SwarmSpec)
    auto_lock_managers: bool = always(bool)
    availability: str = always(str)
    default_addr_pool: list[str] = always(list)
    subnet_size: int = always(int)


class JoinRequest(Object, frozen=True):
    """POST /swarm/join. Only the first remote address is used, as in Swarm."""

    listen_addr: str = always(str)
    advertise_addr: str = always(str)
    data_path_addr: str = always(str)
    remote_addrs: list[str] = always(list)
    join_token: str = always(str)
    availability: str = always(str)


class UnlockRequest(Object, frozen=True):
    """POST /swarm/unlock."""

    unlock_key: str = always(str)


class SnapshotRequest(Object, frozen=True):
    """POST /swarm-agent/v1/snapshot. `secret`: base64 of the passphrase or of a key file's content."""

    secret: str = always(str)


class RestoreRequest(Object, frozen=True):
    """POST /swarm-agent/v1/restore. `path`: the snapshot on this host. Addresses as in InitRequest."""

    path: str = always(str)
    secret: str = always(str)
    listen_addr: str = always(str)
    advertise_addr: str = always(str)
    data_path_addr: str = always(str)


class NetworkConfigReference(Object, frozen=True):
    network: str = always(str)


class IPAMRequestConfig(Object, frozen=True):
    subnet: str = ""
    ip_range: str = msgspec.field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = {}


class IPAMRequest(Object, frozen=True):
    driver: str = ""
    options: dict[str, str] = {}
    config: list[IPAMRequestConfig] = []


class NetworkCreateRequest(Object, frozen=True):
    """POST /networks/create, in the words of the network API (they differ from those of swarm.NetworkSpec)."""

    name: str = always(str)
    driver: str = always(str)
    scope: str = always(str)
    check_duplicate: bool = always(bool)
    enable_ipv4: bool | None = msgspec.field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = msgspec.field(default=None, name="EnableIPv6")
    ipam: IPAMRequest | None = msgspec.field(default=None, name="IPAM")
    internal: bool = always(bool)
    attachable: bool = always(bool)
    ingress: bool = always(bool)
    config_only: bool = always(bool)
    config_from: NetworkConfigReference | None = None
    options: dict[str, str] = always(dict)
    labels: dict[str, str] = always(dict)
