"""Which address a node advertises, listens on and sends data from: Swarm's rules and texts (moby listen_addr.go).

A host with exactly one usable address needs no choice; with several, guessing would bite later, so the user must say.
`resolve` is pure over a list of interfaces; `interfaces` reads them from the kernel.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyroute2 import IPRoute

from swarm_agent.model.errors import BadRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_LISTEN = "0.0.0.0"
_BAD_ADVERTISE = "advertise address must be a non-zero IP address or network interface (with optional port number)"
_BAD_LISTEN = "listen address must be an IP address or network interface (with optional port number)"
_BAD_DATA_PATH = "data path address must be a non-zero IP address or network interface (without a port number)"
_MUST_LISTEN = (
    "must specify a listening address because the address to advertise is not recognized as a system address, "
    "and a system's IP address to use could not be uniquely identified"
)


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface that is up, with its addresses in the kernel's order."""

    name: str
    addresses: tuple[Address, ...]
    loopback: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where this node listens, what it tells others, and where data goes. No names left, only addresses."""

    listen: str
    listen_port: int
    advertise: str
    advertise_port: int
    data_path: str

    @property
    def advertise_addr(self) -> str:
        """host:port as others dial it."""
        return join_host_port(self.advertise, self.advertise_port)


def resolve(
    listen: str,
    advertise: str,
    data_path: str,
    interfaces: Sequence[Interface],
    engine_subnets: Iterable[Subnet] = (),
    default_port: int = 2377,
) -> Resolved:
    """Apply Swarm's rules. Raises BadRequest with Swarm's texts.

    `engine_subnets` are those of the engine's own networks: their addresses are never candidates.
    """
    listen_host, listen_port = _split(listen or DEFAULT_LISTEN, default_port, _BAD_LISTEN)
    listen_ip = _lookup(listen_host, interfaces, _BAD_LISTEN)
    if advertise:
        host, port = _split(advertise, listen_port, _BAD_ADVERTISE)
        ip = _lookup(host, interfaces, _BAD_ADVERTISE)
        if ip.is_unspecified:
            raise BadRequest(_BAD_ADVERTISE)
        if listen_ip.is_unspecified and not any(ip in interface.addresses for interface in interfaces):
            _check_one_address(interfaces, tuple(engine_subnets))
    elif not listen_ip.is_unspecified:
        ip, port = listen_ip, listen_port
    else:
        ip, port = system_address(interfaces, tuple(engine_subnets)), listen_port
    data_ip = ip
    if data_path:
        data_ip = _lookup(data_path, interfaces, _BAD_DATA_PATH)
        if data_ip.is_unspecified:
            raise BadRequest(_BAD_DATA_PATH)
    return Resolved(str(listen_ip), listen_port, str(ip), port, str(data_ip))


def _check_one_address(interfaces: Sequence[Interface], engine_subnets: Sequence[Subnet]) -> None:
    """An address that only others see (behind NAT) leaves open which of its own a host is to use: it must have one, or
    be told."""
    try:
        system_address(interfaces, engine_subnets)
    except BadRequest:
        raise BadRequest(_MUST_LISTEN) from None


def system_address(interfaces: Sequence[Interface], engine_subnets: Sequence[Subnet]) -> Address:
    """The one address of this host, IPv4 before IPv6. Raises BadRequest when there is none, or more than one."""
    found: dict[int, tuple[str, Address]] = {}
    for interface in interfaces:
        if interface.loopback:
            continue
        for address in interface.addresses:
            if not _is_usable(address) or any(address in subnet for subnet in engine_subnets):
                continue
            if address.version in found:
                name, first = found[address.version]
                where = (
                    f"on interface {name} ({first} and {address})"
                    if name == interface.name
                    else f"on different interfaces ({first} on {name} and {address} on {interface.name})"
                )
                raise BadRequest(
                    "could not choose an IP address to advertise since this system has multiple addresses " + where
                )
            found[address.version] = (interface.name, address)
    for version in (4, 6):
        if version in found:
            return found[version][1]
    raise BadRequest("could not find the system's IP address")


def _is_usable(address: Address) -> bool:
    return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)


def _lookup(host: str, interfaces: Sequence[Interface], bad: str) -> Address:
    """An address as it is, or the one address of the interface of that name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    for interface in interfaces:
        if interface.name == host:
            return _interface_address(interface)
    raise BadRequest(bad)


def _interface_address(interface: Interface) -> Address:
    for version in (4, 6):
        usable = [address for address in interface.addresses if address.version == version and _is_usable(address)]
        if len(usable) > 1:
            raise BadRequest(
                f"interface {interface.name} has more than one IPv{version} address ({usable[0]} and {usable[1]})"
            )
        if usable:
            return usable[0]
    raise BadRequest(f"interface {interface.name} has no usable IPv4 or IPv6 addresses")


def _split(text: str, default_port: int, bad: str) -> tuple[str, int]:
    """host or host:port. A bare IPv6 address has no port."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        pass
    else:
        return text, default_port
    if text.count(":") == 0:
        return text, default_port
    try:
        return split_host_port(text)
    except ValueError:
        raise BadRequest(bad) from None


def split_host_port(text: str) -> tuple[str, int]:
    """ "10.0.0.1:2377" or "[fd00::1]:2377". Raises ValueError on anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536 or not host:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_host_port(host: str, port: int) -> str:
    """The opposite of `split_host_port`; IPv6 addresses get brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def interfaces() -> list[Interface]:
    """The host's interfaces that are up, from the kernel. Blocking (a few ms): call it in a thread."""
    with IPRoute() as netlink:
        names: dict[int, tuple[str, bool]] = {}
        for link in netlink.get_links():
            if link["flags"] & 1:  # IFF_UP
                names[link["index"]] = (link.get_attr("IFLA_IFNAME"), bool(link["flags"] & 8))  # IFF_LOOPBACK
        found: dict[int, list[Address]] = {index: [] for index in names}
        for address in netlink.get_addr():
            text = address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")
            if text and address["index"] in found:
                found[address["index"]].append(ipaddress.ip_address(text))
    return [Interface(name, tuple(found[index]), loopback) for index, (name, loopback) in sorted(names.items())]
