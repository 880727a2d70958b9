"""Cluster networks: create, remove (swarm.md §1.7). Subnet and VNI are the allocator's to choose."""

from __future__ import annotations

import ipaddress
import random

from swarm_agent.manager.addresses import DEFAULT_SUBNET_SIZE
from swarm_agent.model.dualstack import dual_stack, fault, ipv4_config
from swarm_agent.model.encryption import OPTION, can_encrypt
from swarm_agent.model.errors import (
    AlreadyExists,
    FailedPrecondition,
    Forbidden,
    InvalidArgument,
    PermissionDenied,
    Unimplemented,
)
from swarm_agent.model.ids import new_id
from swarm_agent.model.objects import Cluster, Network, Node, Service, Task
from swarm_agent.model.requests import NetworkCreateRequest
from swarm_agent.model.specs import Driver, IPAMConfig, IPAMOptions, NetworkSpec
from swarm_agent.model.states import TaskState
from swarm_agent.store.tx import Tx

from .lookup import find
from .names import validate_name
from .ports import needs_ingress

PREDEFINED_LABEL = "com.docker.swarm.predefined"
PREDEFINED = ("bridge", "host", "none", "default")
OVERLAY = "overlay"
LOCAL_DRIVERS = ("bridge", "host", "ipvlan", "macvlan", "null")  # the engine's own, for networks of one host
NO_IPV4 = "networks without IPv4 are not supported: an IPv6 address follows from the IPv4 address beside it"
NO_ENCRYPTION = "encrypted networks need hosts with WireGuard in their kernel, and no node of this cluster has it"


def is_swarm_scoped(request: NetworkCreateRequest) -> bool:
    """True for networks of the cluster, false for those of one host."""
    return not request.config_only and (request.driver == OVERLAY or request.scope == "swarm" or request.ingress)


def create_network(tx: Tx, request: NetworkCreateRequest, rng: random.Random) -> Network:
    """Raises InvalidArgument, AlreadyExists, Forbidden, PermissionDenied, Unimplemented."""
    if request.name in PREDEFINED:
        raise Forbidden(f"operation is not permitted on predefined {request.name} network ")
    if request.attachable and request.ingress:
        raise InvalidArgument("ingress network cannot be attachable")
    validate_name(request.name)
    if PREDEFINED_LABEL in request.labels:
        raise PermissionDenied(
            f"label {PREDEFINED_LABEL} is for internally created predefined networks and cannot be applied by users"
        )
    if request.ingress and request.driver in LOCAL_DRIVERS:
        raise Forbidden("Ingress network can only be global scope network")
    if request.ingress and request.driver not in ("", OVERLAY):
        raise Unimplemented("only overlay driver is currently supported for ingress network")
    if request.driver not in ("", OVERLAY) or request.config_from is not None:
        raise Unimplemented(f'networks of driver "{request.driver}" cannot span hosts; use the overlay driver')
    if OPTION in request.options and not any(can_encrypt(node) for node in tx.all(Node)):
        raise Unimplemented(f"network {request.name}: {NO_ENCRYPTION}")
    if request.enable_ipv4 is False:
        raise Unimplemented(f"network {request.name}: {NO_IPV4}")
    if request.enable_ipv6 and request.ingress:
        raise Unimplemented(f"network {request.name}: published ports are reached by IPv4, so ingress has no IPv6")
    ipam = _ipam(request)
    if ipam is not None:
        _check_families(tx, request, ipam.configs)
    if request.ingress:
        for network in tx.all(Network):
            if network.spec.ingress:
                raise AlreadyExists(f"ingress network ({network.id}) is already present")
    spec = NetworkSpec(
        name=request.name,
        labels=request.labels,
        driver_configuration=Driver(name=OVERLAY, options=request.options),
        ipv6_enabled=bool(request.enable_ipv6),
        internal=request.internal,
        attachable=request.attachable,
        ingress=request.ingress,
        ipam_options=ipam,
        scope="swarm",
    )
    return tx.create(Network(id=new_id(rng), spec=spec))


def _ipam(request: NetworkCreateRequest) -> IPAMOptions | None:
    ipam = request.ipam
    if ipam is None:
        return None
    if ipam.driver not in ("", "default"):
        raise InvalidArgument(f"error during lookup of plugin {ipam.driver}")
    configs = [IPAMConfig(item.subnet, item.ip_range, item.gateway, item.auxiliary_addresses) for item in ipam.config]
    for config in configs:
        _check_ipam(config)
    return IPAMOptions(driver=Driver(name="default", options=ipam.options), configs=configs)


def _check_ipam(config: IPAMConfig) -> None:
    try:
        subnet = ipaddress.ip_network(config.subnet, strict=False)
        if "/" not in config.subnet:
            raise ValueError
    except ValueError:
        raise InvalidArgument(f"ipam configuration: invalid subnet {config.subnet}") from None
    for name, text in config.auxiliary_addresses.items():
        try:
            inside = ipaddress.ip_address(text) in subnet
        except ValueError:
            raise InvalidArgument(f"ipam configuration: invalid auxiliary address {name}={text}") from None
        if not inside:
            raise InvalidArgument(
                f"ipam configuration: subnet {config.subnet} does not contain auxiliary address {name}={text}"
            )
    if config.range:
        try:
            inner = ipaddress.ip_interface(config.range)
            if "/" not in config.range:
                raise ValueError
        except ValueError:
            raise InvalidArgument(f"ipam configuration: invalid range {config.range}") from None
        if inner.ip not in subnet:
            raise InvalidArgument(f"ipam configuration: subnet {config.subnet} does not contain range {config.range}")
    if config.gateway:
        try:
            gateway = ipaddress.ip_address(config.gateway)
        except ValueError:
            raise InvalidArgument(f"ipam configuration: invalid gateway {config.gateway}") from None
        if gateway not in subnet:
            raise InvalidArgument(
                f"ipam configuration: subnet {config.subnet} does not contain gateway {config.gateway}"
            )


def _check_families(tx: Tx, request: NetworkCreateRequest, configs: list[IPAMConfig]) -> None:
    """IPv6 subnets: one, only with --ipv6, with room for what stands beside the IPv4 addresses, and not in use."""
    six = [config for config in configs if ":" in config.subnet]
    if not six:
        return
    if not request.enable_ipv6:
        raise InvalidArgument(f"ipam configuration: subnet {six[0].subnet} is of use only with --ipv6 (EnableIPv6)")
    if len(six) > 1:
        raise Unimplemented(f"ipam configuration: subnet {six[1].subnet}: a network has one IPv6 subnet at most")
    [config] = six
    if config.range:
        raise Unimplemented(
            f"ipam configuration: range {config.range}: IPv6 addresses follow from the IPv4 addresses beside them; "
            "give a range of the IPv4 subnet"
        )
    four = ipv4_config(configs)
    size = next((cluster.subnet_size for cluster in tx.all(Cluster)), 0) or DEFAULT_SUBNET_SIZE
    reason = fault(four.subnet if four is not None else f"0.0.0.0/{size}", config.subnet)
    if reason:
        raise InvalidArgument(f"ipam configuration: subnet {config.subnet}: {reason}")
    wanted = ipaddress.IPv6Network(config.subnet, strict=False)
    for network in tx.all(Network):
        taken = dual_stack(network)
        if taken is not None and wanted.overlaps(ipaddress.IPv6Network(taken.subnet6, strict=False)):
            raise InvalidArgument(
                f"ipam configuration: subnet {config.subnet} overlaps {taken.subnet6} of network {network.spec.name}"
            )


def remove_network(tx: Tx, term: str) -> Network:
    """Remove a network that nothing uses; tasks that are on their way out do not count. Raises FailedPrecondition."""
    network = find(tx, Network, term)
    if network.spec.labels.get(PREDEFINED_LABEL) == "true":
        raise FailedPrecondition(
            f"network {network.id} ({network.spec.name}) is a swarm predefined network and cannot be removed"
        )
    if network.spec.ingress:
        for service in tx.all(Service):
            if needs_ingress(service.spec.endpoint_spec):
                raise FailedPrecondition(
                    f"ingress network cannot be removed because service {service.id} depends on it"
                )
    else:
        _check_unused(tx, network.id)
    tx.delete(Network, network.id)
    return network


def _check_unused(tx: Tx, network_id: str) -> None:
    for service in tx.find(Service, network_id=network_id):
        raise FailedPrecondition(f"network {network_id} is in use by service {service.id}")
    running = TaskState.RUNNING.rank
    for task in tx.all(Task):
        if task.desired_state.rank <= running and task.status.state.rank <= running and _uses(task, network_id):
            raise FailedPrecondition(f"network {network_id} is in use by task {task.id}")


def _uses(task: Task, network_id: str) -> bool:
    return any(config.target == network_id for config in task.spec.networks) or any(
        attachment.network.id == network_id for attachment in task.networks_attachments
    )


def unused_networks(tx: Tx) -> list[Network]:
    """Networks that `docker network prune` removes: those that `remove_network` would not refuse; never ingress."""
    unused = []
    for network in tx.all(Network):
        if network.spec.ingress or network.spec.labels.get(PREDEFINED_LABEL) == "true":
            continue
        try:
            _check_unused(tx, network.id)
        except FailedPrecondition:
            continue
        unused.append(network)
    return unused
