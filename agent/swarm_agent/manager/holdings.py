"""What each object of the store holds: addresses on networks, subnets, network numbers, ports.

The rules of who holds what are here, and nothing else, so they can be read at one place:

* a network holds its subnet and its VNI; * a service holds its VIPs and its ports; * a node holds its own address on
each network in use on it; * a task holds its addresses, its service's VIPs, and subnet and VNI of its networks, until
it is seen to have ended. So what a
  container still uses is not given away when its service or network is removed (the cause of Swarm's leaks and
  duplicates: reference/swarm.md §5).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from swarm_agent.model.dualstack import dual_stack, ipv4_config, ipv6_config
from swarm_agent.model.objects import Endpoint, Network, Node, Service, Task
from swarm_agent.model.specs import IPAMConfig

from .addresses import AddressPool, NumberPool, SubnetPool, to_int
from .ports import PortTable

VXLAN_OPTION = "com.docker.network.driver.overlay.vxlanid_list"

Holder = Network | Service | Node | Task


def is_overlay(network: Network) -> bool:
    """The cluster's own kind of network. Others (host, macvlan) exist on each node by themselves and have no
    addresses here."""
    driver = network.spec.driver_configuration
    return driver is None or driver.name in ("", "overlay")


def ipv4(network: Network) -> IPAMConfig | None:
    """The network's IPv4 subnet with range and gateway, once it is allocated (or given by the user)."""
    return ipv4_config(network.ipam_options.configs) if network.ipam_options is not None else None


def vni(network: Network) -> int | None:
    """The network's VXLAN identifier, once it is allocated."""
    text = network.driver_state.options.get(VXLAN_OPTION, "").partition(",")[0]
    return int(text) if text.isdigit() else None


def is_allocated(network: Network) -> bool:
    """The network can be used."""
    if not is_overlay(network):
        return bool(network.driver_state.name)
    return ipv4(network) is not None and vni(network) is not None


def addresses(obj: Holder) -> list[tuple[str, int]]:
    """(network id, address) of everything that the object holds; the same twice counts twice. An IPv6 address is held
    with the IPv4 address that it stands beside (model.dualstack)."""
    if isinstance(obj, Task):
        if obj.status.state.is_terminal:
            return []
        own = [(each.network.id, to_int(text)) for each in obj.networks_attachments for text in _v4(each.addresses)]
        return own + (_shared(obj.endpoint) if obj.endpoint is not None else [])
    if isinstance(obj, Service):
        return _shared(obj.endpoint)
    if isinstance(obj, Node):
        return [(network_id, to_int(text)) for network_id, text in obj.attachments.items()]
    return []


def networks(obj: Holder) -> list[Network]:
    """Networks whose subnet and VNI the object holds."""
    if isinstance(obj, Network):
        return [obj]
    if isinstance(obj, Task) and not obj.status.state.is_terminal:
        return [attachment.network for attachment in obj.networks_attachments]
    return []


def _holds_the_same(old: Task, new: Task) -> bool:
    """Most changes of a task are of its status."""
    return (
        old.status.state.is_terminal == new.status.state.is_terminal
        and old.networks_attachments == new.networks_attachments
        and old.endpoint == new.endpoint
    )


def _shared(endpoint: Endpoint) -> list[tuple[str, int]]:
    return [(vip.network_id, to_int(vip.addr)) for vip in endpoint.virtual_ips if ":" not in vip.addr]


def _v4(texts: Iterable[str]) -> Iterable[str]:
    return (text for text in texts if ":" not in text)


class Holdings:
    """All pools, filled from objects. An object is held once; holding it again replaces what it held before."""

    def __init__(self, subnets: SubnetPool, vnis: NumberPool) -> None:
        self.subnets = subnets
        self.vnis = vnis
        self.ports = PortTable()
        self._pools: dict[str, AddressPool] = {}
        self._held: dict[tuple[type[Holder], str], Holder] = {}
        self._expected: dict[tuple[type[Holder], str], Holder] = {}
        # Addresses on networks that have no pool (yet, or any more), so that holders and pools may come in any order.
        self._homeless: dict[str, list[int]] = {}

    def pool(self, network_id: str) -> AddressPool | None:
        """The addresses of a network, None when it is not there or not allocated."""
        return self._pools.get(network_id)

    def put(self, obj: Holder) -> bool:
        """The object is stored and holds what it says; True if this freed something."""
        key = type(obj), obj.id
        old = self._held.get(key)
        if isinstance(obj, Task) and isinstance(old, Task) and key not in self._expected and _holds_the_same(old, obj):
            self._held[key] = obj
            return False
        # The new is held before the old is released: what stays must not be free in between.
        self._held[key] = obj
        self._hold(obj)
        freed = isinstance(obj, Service) and self.ports.put(obj)
        freed |= old is not None and self._release(old)
        return self._forget_expected(key) or freed

    def expect(self, obj: Holder) -> None:
        """The object is to be stored like this: what it will hold is held already, beside what it holds now. What it
        is to give up is not free before `put` or `drop` tell what became of it; the write may be refused."""
        key = type(obj), obj.id
        self._hold(obj)
        if isinstance(obj, Service):
            self.ports.put(obj, expected=True)
        self._forget_expected(key, but_ports=True)
        self._expected[key] = obj

    def drop(self, kind: type[Holder], id_: str) -> bool:
        """The object is gone; True if this freed something."""
        old = self._held.pop((kind, id_), None)
        freed = self._forget_expected((kind, id_))
        if old is not None:
            freed |= self._release(old)
        if kind is Network:
            self._pools.pop(id_, None)
        if kind is Service:
            freed |= self.ports.drop(id_)
        return freed

    def _forget_expected(self, key: tuple[type[Holder], str], but_ports: bool = False) -> bool:
        expected = self._expected.pop(key, None)
        if expected is None:
            return False
        freed = self._release(expected)
        if isinstance(expected, Service) and not but_ports:
            freed |= self.ports.drop(expected.id, expected=True)
        if isinstance(expected, Network):
            stored = self._held.get(key)
            if not isinstance(stored, Network) or ipv4(stored) != ipv4(expected):
                self._pools.pop(expected.id, None)  # it came to nothing, and may get another subnet
        return freed

    def _hold(self, obj: Holder) -> None:
        for network in networks(obj):
            config, number = ipv4(network), vni(network)
            if config is not None:
                self.subnets.hold(config.subnet)
            if number is not None:
                self.vnis.hold(number)
        if isinstance(obj, Network):
            self._open(obj)
        for host in _hosts(obj):
            self.subnets.hold(host)
        for network_id, address in addresses(obj):
            pool = self._pools.get(network_id)
            if pool is not None:
                pool.hold(address)
            else:
                self._homeless.setdefault(network_id, []).append(address)

    def _release(self, obj: Holder) -> bool:
        freed = False
        for network in networks(obj):
            config, number = ipv4(network), vni(network)
            if config is not None:
                freed |= self.subnets.release(config.subnet)
            if number is not None:
                freed |= self.vnis.release(number)
        for host in _hosts(obj):
            self.subnets.release(host)
        for network_id, address in addresses(obj):
            pool = self._pools.get(network_id)
            if pool is not None:
                freed |= pool.release(address)
            elif address in self._homeless.get(network_id, ()):
                self._homeless[network_id].remove(address)
        return freed

    def _open(self, network: Network) -> None:
        config = ipv4(network)
        if config is None or not is_overlay(network) or network.id in self._pools:
            return
        reserved = [*config.auxiliary_addresses.values(), *_beside_reserved(network)]
        pool = self._pools[network.id] = AddressPool(config.subnet, config.range, config.gateway, reserved)
        for address in self._homeless.pop(network.id, ()):
            pool.hold(address)


def _beside_reserved(network: Network) -> list[str]:
    """IPv4 addresses beside the IPv6 addresses that the user keeps for other things."""
    dual = dual_stack(network)
    if dual is None or network.ipam_options is None:
        return []
    config = ipv6_config(network.ipam_options.configs) or IPAMConfig()
    kept = [config.gateway, *config.auxiliary_addresses.values()]
    return [beside for text in kept if text and (beside := dual.back(text))]


def _hosts(obj: Holder) -> list[str]:
    """A host's address as a subnet of its own: no overlay may cover it."""
    if not isinstance(obj, Node) or not obj.status.addr:
        return []
    try:
        return [str(ipaddress.IPv4Network(obj.status.addr))]
    except ValueError:
        return []
