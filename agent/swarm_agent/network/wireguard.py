"""WireGuard links of this network namespace over generic netlink: this host's key, the other hosts' keys and addresses.

The private key is made by the first agent after boot. It is in the kernel, in the agent's memory and in a file below
/run, so that a restart of the agent does not change it, and never on a disk. Layout: linux/wireguard.h. Blocking; runs
in a worker thread.
"""

from __future__ import annotations

import base64
import errno
import functools
import ipaddress
import os
import secrets
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import rt_scope

from .names import SEAL_LINK
from .netlink import ALREADY_GONE, Failure
from .nlsocket import GenericSocket, attribute, attributes
from .state import AddWireGuard, KernelState, RemoveSealed, SetSealed, WireGuard, WireGuardOperation

_GET_DEVICE, _SET_DEVICE = 0, 1
_IFNAME, _PRIVATE_KEY, _PUBLIC_KEY, _LISTEN_PORT, _PEERS = 2, 3, 4, 6, 8
_PEER_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_ALLOWED = 1, 3, 4, 9
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_LENGTH = 1, 2, 3
_REMOVE, _REPLACE_ALLOWED = 1, 2
_NESTED = 0x8000
_TRIAL_LINK = "swseal-try"
KEY_SIZE = 32


class WireGuardSocket(GenericSocket):
    """A generic netlink socket that has found the kernel's WireGuard. Raises FileNotFoundError where there is none."""

    family = "wireguard"

    def set(self, link: str, body: bytes) -> None:
        """Raises OSError."""
        self.ask(self.message(_SET_DEVICE, _name(link) + body))

    def get(self, link: str) -> tuple[str, int, dict[str, str]]:
        """A link's public key and port, and its peers: public key → the address that the peer may use, or "" when that
        is not exactly one. Raises OSError.
        """
        key, port = b"", 0
        peers: dict[str, str] = {}
        for answer in self.dump(self.number, self.head(_GET_DEVICE) + _name(link)):  # many peers come in many parts
            found = dict(attributes(answer, 4))
            key = found.get(_PUBLIC_KEY, key)
            (port,) = struct.unpack("=H", found[_LISTEN_PORT]) if _LISTEN_PORT in found else (port,)
            for _, peer in attributes(found.get(_PEERS, b""), 0):
                parts = dict(attributes(peer, 0))
                allowed = [dict(attributes(item, 0)) for _, item in attributes(parts.get(_PEER_ALLOWED, b""), 0)]
                only = allowed[0] if len(allowed) == 1 and allowed[0][_ALLOWED_LENGTH] == b"\x20" else None
                peers[_text(parts[_PEER_KEY])] = socket.inet_ntoa(only[_ALLOWED_ADDRESS][:4]) if only else ""
        return _text(key), port, peers


def _name(link: str) -> bytes:
    return attribute(_IFNAME, link.encode() + b"\0")


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()


# --- this host's key --------------------------------------------------------------------------------------------------


def own_key(path: Path | None) -> bytes:
    """This host's private key: from the file, else a new one, which is kept there."""
    if path is not None:
        with suppress(FileNotFoundError):
            kept = path.read_bytes()
            if len(kept) == KEY_SIZE:
                return kept
    fresh = secrets.token_bytes(KEY_SIZE)
    if path is not None:
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(fresh)
        temporary.replace(path)
    return fresh


def public_key(private: bytes) -> str:
    """The public half, base64."""
    public = X25519PrivateKey.from_private_bytes(private).public_key()
    return _text(public.public_bytes(Encoding.Raw, PublicFormat.Raw))


@functools.cache
def available() -> str:
    """Why this kernel cannot do WireGuard, or "" when it can: shown once by making a link and removing it again."""
    with IPRoute() as ip:
        if ip.link_lookup(ifname=SEAL_LINK):
            return ""
        try:
            ip.link("add", ifname=_TRIAL_LINK, kind="wireguard")
        except NetlinkError as error:
            if error.code == errno.EOPNOTSUPP:
                return "this host's kernel has no WireGuard"
            if error.code != errno.EEXIST:
                return f"WireGuard: {os.strerror(error.code)}"
        for index in ip.link_lookup(ifname=_TRIAL_LINK):
            ip.link("del", index=index)
    return ""


# --- reading and writing ----------------------------------------------------------------------------------------------


def observe() -> tuple[dict[str, WireGuard], dict[tuple[str, str], str]]:
    """Our WireGuard link as it is, and its peers (state.KernelState). A link that is not as one needs it has no key."""
    with IPRoute() as ip:
        index = next(iter(ip.link_lookup(ifname=SEAL_LINK)), None)
        if index is None:
            return {}, {}
        link = next(iter(ip.get_links(index)))
        entries = ip.get_addr(family=socket.AF_INET, index=index)
        address = next((f"{entry.get('address')}/{entry['prefixlen']}" for entry in entries), "")
    try:
        with WireGuardSocket() as wireguard:
            key, port, peers = wireguard.get(SEAL_LINK)
    except OSError:
        key, port, peers = "", 0, {}
    found = WireGuard(key if link["state"] == "up" else "", port, link.get("mtu"), address)
    return {SEAL_LINK: found}, {(SEAL_LINK, peer): underlay for peer, underlay in peers.items()}


def undisturbed(wanted: KernelState) -> bool:
    """Whether keys and peers are as planned. The kernel tells nobody of their changes, so it is asked; it does tell of
    the link itself (watch.py).
    """
    try:
        for link, planned in wanted.wireguards.items():
            with WireGuardSocket() as wireguard:
                key, port, peers = wireguard.get(link)
            there = {(link, peer): underlay for peer, underlay in peers.items()}
            if (key, port, there) != (planned.key, planned.port, wanted.sealed):
                return False
    except OSError:
        return False
    return True


def encoded(operation: SetSealed | RemoveSealed) -> bytes:
    """The attributes that carry the operation out on its link."""
    key = attribute(_PEER_KEY, base64.b64decode(operation.key))
    match operation:
        case RemoveSealed():
            peer = key + attribute(_PEER_FLAGS, struct.pack("=I", _REMOVE))
        case SetSealed(_, _, underlay, port):
            address = ipaddress.IPv4Address(underlay).packed
            allowed = (
                attribute(_ALLOWED_FAMILY, struct.pack("=H", socket.AF_INET))
                + attribute(_ALLOWED_ADDRESS, address)
                + attribute(_ALLOWED_LENGTH, b"\x20")
            )
            peer = (
                key
                + attribute(_PEER_FLAGS, struct.pack("=I", _REPLACE_ALLOWED))
                + attribute(
                    _PEER_ENDPOINT, struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + address + bytes(8)
                )
                + attribute(_PEER_ALLOWED | _NESTED, attribute(_NESTED, allowed))
            )
    return attribute(_PEERS | _NESTED, attribute(_NESTED, peer))


def execute(operations: Iterable[WireGuardOperation], private: bytes) -> list[Failure]:
    """Carry out operations in order; returns those that failed. `private`: this host's key."""
    failures: list[Failure] = []
    for operation in operations:
        try:
            match operation:
                case AddWireGuard(link, wireguard):
                    _add(link, wireguard, private)
                case SetSealed(link) | RemoveSealed(link):
                    with WireGuardSocket() as wireguards:
                        wireguards.set(link, encoded(operation))
        except NetlinkError as error:
            failures.append(Failure(operation, f"WireGuard: {os.strerror(error.code)}"))
        except OSError as error:
            if not (isinstance(operation, RemoveSealed) and error.errno in ALREADY_GONE):
                failures.append(Failure(operation, f"WireGuard: {error}"))
    return failures


def _add(name: str, wireguard: WireGuard, private: bytes) -> None:
    with IPRoute() as ip:
        ip.link("add", ifname=name, kind="wireguard", mtu=wireguard.mtu)
        index = ip.link_lookup(ifname=name)[0]
        with WireGuardSocket() as link:
            port = attribute(_LISTEN_PORT, struct.pack("=H", wireguard.port))
            link.set(name, attribute(_PRIVATE_KEY, private) + port)
        address, _, prefix = wireguard.address.partition("/")
        ip.addr("add", index=index, address=address, prefixlen=int(prefix), scope=rt_scope["link"])
        ip.link("set", index=index, state="up")
