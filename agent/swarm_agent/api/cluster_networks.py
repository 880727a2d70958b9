"""The cluster's part of /networks: overlays, in the words of the network API (swarm.md §1.7).

`local_networks` merges it with the engine's own networks; a follower forwards changes to the leader like any other.
"""

from __future__ import annotations

import re
from typing import Any

from swarm_agent.manager.control import networks as control
from swarm_agent.model import times
from swarm_agent.model.errors import BadRequest
from swarm_agent.model.objects import Network, Node, Service, Task
from swarm_agent.model.requests import NetworkCreateRequest
from swarm_agent.model.specs import IPAMConfig
from swarm_agent.model.states import TaskState
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import Reader

from .context import Context
from .filters import has_labels, parse_filters
from .message import NO_CONTENT, Response, json_response
from .versions import ApiVersion

PRUNE_FILTERS = ("label", "label!", "until")
_UNITS = {"h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(\d{1,9})([hms])")
_NUMBER = re.compile(r"\d{1,12}(\.\d{1,9})?")


def resource(network: Network, version: ApiVersion) -> dict[str, Any]:
    """The network as GET /networks of this API version shows it."""
    spec, state = network.spec, network.driver_state
    ipam = network.ipam_options or spec.ipam_options
    driver = ipam.driver if ipam is not None else None
    declared = spec.driver_configuration.options if spec.driver_configuration is not None else {}
    return {
        "Name": spec.name,
        "Id": network.id,
        "Created": network.created_at,
        "Scope": "swarm",
        "Driver": state.name or control.OVERLAY,
        **({"EnableIPv4": True} if version >= (1, 48) else {}),
        "EnableIPv6": spec.ipv6_enabled,
        "IPAM": {
            "Driver": driver.name if driver is not None and driver.name else "default",
            "Options": (driver.options if driver is not None else None) or None,
            "Config": [
                {key: value for key, value in _pool(item).items() if value}
                for item in (ipam.configs if ipam is not None else ())
            ],
        },
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": None,
        "Options": {**declared, **state.options} or None,
        "Labels": spec.labels or None,
    }


def peers(network: Network, view: Reader) -> list[dict[str, str]]:
    """The hosts that have the network, which is those with an address of their own on it."""
    return [{"Name": node.id[:12], "IP": node.status.addr} for node in view.all(Node) if network.id in node.attachments]


def services(network: Network, view: Reader) -> dict[str, Any]:
    """What `docker network inspect --verbose` shows: the network's services with their running tasks."""
    found = {service.id: service for service in view.find(Service, network_id=network.id)}
    if network.spec.ingress:
        found = {service.id: service for service in view.all(Service) if _vip(network, service)}
    return {service.spec.name: _service(network, service, view) for service in found.values()}


def _vip(network: Network, service: Service) -> str:
    return next((_bare(vip.addr) for vip in service.endpoint.virtual_ips if vip.network_id == network.id), "")


def _service(network: Network, service: Service, view: Reader) -> dict[str, Any]:
    ports = [port for port in service.endpoint.ports if network.spec.ingress and port.publish_mode == "ingress"]
    return {
        "VIP": _vip(network, service) or "<nil>",
        "Ports": [f"Target: {port.target_port}, Publish: {port.published_port}" for port in ports],
        "LocalLBIndex": 0,
        "Tasks": [
            task
            for item in view.find(Task, service_id=service.id)
            if item.status.state is TaskState.RUNNING
            for task in _endpoints(network, item, view)
        ],
    }


def _endpoints(network: Network, task: Task, view: Reader) -> list[dict[str, Any]]:
    node = view.get(Node, task.node_id)
    addresses = [item.addresses[0] for item in task.networks_attachments if item.network.id == network.id]
    return [
        {
            "Name": task.name,
            "EndpointID": task.id,
            "EndpointIP": _bare(address),
            "Info": {"Host IP": node.status.addr if node is not None else ""},
        }
        for address in addresses
    ]


def _bare(address: str) -> str:
    return address.partition("/")[0]


def _pool(config: IPAMConfig) -> dict[str, Any]:
    return {
        "Subnet": config.subnet,
        "IPRange": config.range,
        "Gateway": config.gateway,
        "AuxiliaryAddresses": config.auxiliary_addresses,
    }


async def create_network(context: Context) -> Response:
    request = context.body(NetworkCreateRequest)
    network = await context.update(lambda tx: control.create_network(tx, request, context.rng))
    return json_response({"Id": network.id, "Warning": ""}, status=201)


async def remove_network(context: Context) -> Response:
    await context.update(lambda tx: control.remove_network(tx, context.term))
    return NO_CONTENT


async def prune_networks(context: Context) -> Response:
    """Removes the networks that nothing uses and that match the label filters; answers their names."""
    filters = parse_filters(context.request, PRUNE_FILTERS)
    until = filters.get("until", [])

    def prune(tx: Tx) -> list[str]:
        wanted = [
            network
            for network in control.unused_networks(tx)
            if has_labels(network.spec.labels, filters.get("label"))
            and not any(has_labels(network.spec.labels, [label]) for label in filters.get("label!", ()))
            and all(_created_before(network, moment, tx.now) for moment in until)
        ]
        for network in wanted:
            tx.delete(Network, network.id)
        return [network.spec.name for network in wanted]

    return json_response({"NetworksDeleted": await context.update(prune)})


def _created_before(network: Network, moment: str, now: str) -> bool:
    """`until` takes a duration back from now ("1h30m"), seconds since the epoch, or RFC 3339. Raises BadRequest."""
    created = times.parse_rfc3339(network.created_at)
    parts = _DURATION.findall(moment)
    if parts and "".join(number + unit for number, unit in parts) == moment:
        ago = sum(int(number) * _UNITS[unit] for number, unit in parts)
        return created < times.parse_rfc3339(now) - ago * times.SECOND
    try:
        limit = int(float(moment) * times.SECOND) if _NUMBER.fullmatch(moment) else times.parse_rfc3339(moment)
    except ValueError:
        raise BadRequest(f"invalid filter 'until=[{moment}]'") from None
    return created < limit
