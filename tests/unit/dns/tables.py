"""Small tables for the tests of names: two networks, the ingress network, and rows that read like a sentence."""

from __future__ import annotations

from swarm_agent.model.addresses import mac_of
from swarm_agent.model.objects import Network
from swarm_agent.model.rows import AddressRow, EndpointRow, PortRow
from swarm_agent.model.specs import IPAMConfig, IPAMOptions, NetworkSpec


def network(number: int, name: str = "", *, ingress: bool = False, six: bool = False) -> Network:
    """Network n<number> with the subnet 10.0.<number>.0/24, and with fd00:<number>::/64 if it has IPv6."""
    configs = [IPAMConfig(subnet=f"10.0.{number}.0/24", gateway=f"10.0.{number}.1")]
    return Network(
        id=f"n{number}",
        spec=NetworkSpec(name=name or f"net{number}", ingress=ingress, ipv6_enabled=six),
        ipam_options=IPAMOptions(configs=[*configs, *([IPAMConfig(subnet=f"fd00:{number}::/64")] if six else [])]),
    )


NETWORKS = [network(1), network(2), network(9, "ingress", ingress=True)]


def row(
    service: str,
    slot: int,
    *addresses: str,
    vip: str = "",
    vips: dict[str, str] | None = None,
    aliases: tuple[str, ...] = (),
    ports: tuple[PortRow, ...] = (),
    active: bool = True,
    hostname: str = "",
) -> EndpointRow:
    """A task of a service; its network on each address is told by the address's third number."""
    return EndpointRow(
        task_id=f"{service}task{slot}",
        service_id=f"{service}id",
        service_name=service,
        slot=slot,
        container_id=f"{slot:02x}".ljust(4, "c") + service.encode().hex().ljust(60, "0"),
        addresses=tuple(
            AddressRow("n" + ip.split(".")[2], ip, mac_of(ip), (vips or {}).get("n" + ip.split(".")[2], vip), aliases)
            for ip in addresses
        ),
        ports=ports,
        active=active,
        hostname=hostname,
    )
