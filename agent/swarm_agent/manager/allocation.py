"""The allocator's decisions, without store or clock: objects go in as changes, the same objects with addresses come
out.

    networks   a subnet, a gateway and a VNI
    services   published ports where none was given; a VIP on each of their networks
    tasks      an address on each network, then NEW becomes PENDING: the scheduler may have it
    nodes      an own address on ingress, and on each network that a task on the node is attached to

In this order, for each builds on the one before. A service with ports in ingress mode is attached to the ingress
network besides its own. What cannot be allocated waits, its tasks say why in their error, and all that waits is tried
again when something was freed.

Who holds what is in holdings.py; as in the scheduler's core, a decision counts as made until `settle` takes it back.

A node keeps its address on a network for a while after the last task has left (LINGER): a task that is restarted
finds the network in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec.structs import replace

from swarm_agent.model.dualstack import DualStack, dual_stack, ipv6_config, own_subnet6
from swarm_agent.model.extensions import publish_addresses
from swarm_agent.model.objects import (
    Cluster,
    Endpoint,
    EndpointVirtualIP,
    Network,
    NetworkAttachment,
    NetworkDriverState,
    Node,
    Service,
    Task,
    TaskStatus,
)
from swarm_agent.model.specs import EndpointSpec, IPAMConfig, IPAMOptions, NetworkAttachmentConfig, ServiceSpec
from swarm_agent.model.states import TaskState
from swarm_agent.model.times import SECOND, rfc3339
from swarm_agent.store.view import Change

from .addresses import (
    DEFAULT_POOL,
    DEFAULT_SUBNET_SIZE,
    FIRST_VNI,
    LAST_VNI,
    AddressPool,
    NumberPool,
    SubnetPool,
    to_int,
    to_text,
)
from .holdings import VXLAN_OPTION, Holdings, is_allocated, is_overlay, vni
from .nodeset import is_active
from .ports import assign, complete, conflict_with, is_ingress, published
from .use import Use

PENDING = "pending task scheduling"

LINGER = 30 * SECOND
"""How long a node keeps its address on a network without tasks (nanoseconds)."""


class Shortage(Exception):
    """Something cannot be allocated now. The text is the error of the tasks that need it."""


class AllocatorCore:
    """What the allocator knows. Times are nanoseconds since the epoch."""

    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._holdings = Holdings(SubnetPool(), NumberPool(FIRST_VNI, LAST_VNI))
        self._networks: dict[str, Network] = {}
        self._services: dict[str, Service] = {}
        self._nodes: dict[str, Node] = {}
        self._new: dict[str, Task] = {}
        """Tasks to be allocated."""
        self._use = Use()
        self._dirty: dict[type[Any], dict[str, None]] = {kind: {} for kind in (Network, Service, Task, Node)}
        self._waiting: dict[type[Any], dict[str, None]] = {kind: {} for kind in (Network, Service, Task, Node)}
        self._shortages: dict[str, str] = {}
        """Why a service has no endpoint yet, by service id."""
        self._freed = False
        self._unused: dict[str, dict[str, int]] = {}
        """Since when nodes' networks are without tasks: node id → network id → time."""
        self._scarce: set[str] = set()
        """Networks that have run out of addresses; unused ones are given back at once there."""

    # --- input -------------------------------------------------------------------------------------------------------

    def load(self, objects: Iterable[Any], now: int) -> None:
        """Objects of the store at the start of leadership."""
        for obj in objects:
            self._put(obj)

    def apply(self, changes: Iterable[Change], now: int) -> None:
        """Changes of the store, in order."""
        for change in changes:
            if change.new is not None:
                self._put(change.new)
            else:
                self._drop(change.kind, change.id)

    def settle(self, refused: Iterable[Any], get: Callable[[type[Any], str], Any]) -> None:
        """These decisions were not stored: go on from what `get` says is stored."""
        for decision in refused:
            stored = get(type(decision), decision.id)
            if stored is None:
                self._drop(type(decision), decision.id)
            else:
                self._put(stored)
                self._dirty[type(decision)][decision.id] = None

    def _put(self, obj: Any) -> None:
        """The object is stored like this."""
        if isinstance(obj, Cluster):
            self._set_cluster(obj)
        else:
            self._freed |= self._holdings.put(obj)
            self._know(obj)

    def _know(self, obj: Any) -> None:
        """The object is like this, or is to be."""
        if isinstance(obj, Network):
            known = self._networks.get(obj.id)
            self._networks[obj.id] = obj
            if not is_allocated(obj):
                self._dirty[Network][obj.id] = None
            elif known is None or not is_allocated(known):
                self._freed = True  # what waits for this network may go on
                if obj.spec.ingress:
                    self._dirty[Node].update(dict.fromkeys(self._nodes))
        elif isinstance(obj, Service):
            old = self._services.get(obj.id)
            self._services[obj.id] = obj
            if old is None or (old.spec, old.endpoint) != (obj.spec, obj.endpoint):
                self._dirty[Service][obj.id] = None
        elif isinstance(obj, Node):
            before = self._nodes.get(obj.id)
            self._nodes[obj.id] = obj
            if before is None or before.attachments != obj.attachments:
                self._dirty[Node][obj.id] = None
        elif isinstance(obj, Task):
            self._put_task(obj)

    def _put_task(self, task: Task) -> None:
        if task.status.state is TaskState.NEW and is_active(task):
            if task.id not in self._new:
                self._dirty[Task][task.id] = None
            self._new[task.id] = task
        else:
            self._forget_new(task.id)
        for node_id in self._use.put(task):
            self._dirty[Node][node_id] = None

    def _drop(self, kind: type[Any], id_: str) -> None:
        if kind is Cluster:
            return
        self._freed |= self._holdings.drop(kind, id_)
        self._dirty[kind].pop(id_, None)
        self._waiting[kind].pop(id_, None)
        if kind is Network:
            self._networks.pop(id_, None)
            self._dirty[Node].update(dict.fromkeys(node.id for node in self._nodes.values() if id_ in node.attachments))
        elif kind is Service:
            self._services.pop(id_, None)
            self._shortages.pop(id_, None)
        elif kind is Node:
            self._nodes.pop(id_, None)
            self._unused.pop(id_, None)
        elif kind is Task:
            self._forget_new(id_)
            for node_id in self._use.drop(id_):
                self._dirty[Node][node_id] = None

    def _forget_new(self, task_id: str) -> None:
        self._new.pop(task_id, None)
        self._dirty[Task].pop(task_id, None)
        self._waiting[Task].pop(task_id, None)

    def _set_cluster(self, cluster: Cluster) -> None:
        old, self._cluster = self._cluster, cluster
        pools = cluster.default_addr_pool or list(DEFAULT_POOL)
        size = cluster.subnet_size or DEFAULT_SUBNET_SIZE
        if old is None or (old.default_addr_pool, old.subnet_size) != (cluster.default_addr_pool, cluster.subnet_size):
            self._holdings.subnets.cut_from(pools, size)
            self._freed = True

    # --- output ------------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """`plan` has something to look at."""
        return self._freed or any(self._dirty.values())

    @property
    def wake_at(self) -> int | None:
        """When the next unused address of a node is to be given back."""
        since = [min(times.values()) for times in self._unused.values()]
        return min(since) + LINGER if since else None

    def plan(self, limit: int, now: int) -> list[Any]:
        """New versions of about `limit` objects. Networks come alone: tasks hold copies of them, which are to be
        those stored."""
        if self._freed:
            self._freed = False
            self._scarce.clear()
            for kind, waiting in self._waiting.items():
                self._dirty[kind].update(waiting)
                waiting.clear()
        self._call_in_unused(now)
        decisions: list[Any] = []
        for network_id in self._drain(Network, limit):
            network = self._networks.get(network_id)
            if network is not None and not is_allocated(network):
                self._decide(self._plan_network(network), decisions)
        if decisions:
            return decisions
        for service_id in self._drain(Service, limit):
            if service_id in self._services:
                self._decide(self._plan_service(self._services[service_id]), decisions)
        if not self._dirty[Service]:
            for task_id in self._drain(Task, limit - len(decisions)):
                if task_id in self._new:
                    self._decide(self._plan_task(self._new[task_id], now), decisions)
        for node_id in self._drain(Node, limit - len(decisions)):
            if node_id in self._nodes:
                self._decide(self._plan_node(self._nodes[node_id], now), decisions)
        self._call_in_unused(now)
        return decisions

    def _call_in_unused(self, now: int) -> None:
        """Look at nodes again that have kept an unused address long enough, or where it is needed."""
        for node_id, times in self._unused.items():
            if now - min(times.values()) >= LINGER or not self._scarce.isdisjoint(times):
                self._dirty[Node][node_id] = None

    def _drain(self, kind: type[Any], limit: int) -> Iterator[str]:
        dirty = self._dirty[kind]
        for id_ in list(dirty)[: max(limit, 0)]:
            dirty.pop(id_, None)
            yield id_

    def _decide(self, obj: Any, decisions: list[Any]) -> None:
        if obj is not None:
            self._holdings.expect(obj)
            self._know(obj)
            self._dirty[type(obj)].pop(obj.id, None)
            decisions.append(obj)

    # --- networks ----------------------------------------------------------------------------------------------------

    def _plan_network(self, network: Network) -> Network | None:
        driver = network.spec.driver_configuration
        if not is_overlay(network):
            assert driver is not None
            return replace(network, driver_state=NetworkDriverState(name=driver.name, options=driver.options))
        try:
            options = self._ipam(network)
            number = vni(network) or self._vni(network)
        except Shortage:
            self._waiting[Network][network.id] = None
            return None
        given = driver.options if driver is not None else {}
        state = NetworkDriverState(name="overlay", options={**given, VXLAN_OPTION: str(number)})
        return replace(network, ipam_options=options, driver_state=state)

    def _ipam(self, network: Network) -> IPAMOptions:
        """The user's subnets, completed, or the next free one."""
        wanted = network.ipam_options or network.spec.ipam_options or IPAMOptions()
        configs = list(wanted.configs)
        place = next((at for at, config in enumerate(configs) if ":" not in config.subnet), None)
        config = configs[place] if place is not None else IPAMConfig()
        if network.spec.ipv6_enabled and ipv6_config(configs) is None:
            configs.append(IPAMConfig(own_subnet6(network.id)))
        if not config.subnet:
            subnet = self._holdings.subnets.take()
            if subnet is None:
                raise Shortage("could not find an available, non-overlapping IPv4 address pool")
            config = replace(config, subnet=subnet)
        if not config.gateway:
            pool = AddressPool(config.subnet, config.range, reserved=config.auxiliary_addresses.values())
            first = pool.peek()
            config = replace(config, gateway=to_text(pool.first if first is None else first))
        if place is None:
            configs.insert(0, config)
        else:
            configs[place] = config
        if network.spec.ipv6_enabled:
            configs = [_with_gateway6(each, config) if ":" in each.subnet else each for each in configs]
        return replace(wanted, configs=configs)

    def _vni(self, network: Network) -> int:
        """The VNI that the user asked for, else the next free one."""
        driver = network.spec.driver_configuration
        wanted = driver.options.get(VXLAN_OPTION, "").partition(",")[0] if driver is not None else ""
        if (
            wanted.isdigit()
            and FIRST_VNI - 1 <= int(wanted) <= LAST_VNI
            and not self._holdings.vnis.is_held(int(wanted))
        ):
            return int(wanted)
        number = self._holdings.vnis.peek()
        if number is None:
            raise Shortage("no VXLAN identifier is free")
        return number

    def _find(self, target: str) -> Network:
        """The network that a spec names, by id or name. Raises Shortage when it cannot be used yet."""
        network = self._networks.get(target)
        if network is None:
            network = next((each for each in self._networks.values() if each.spec.name == target), None)
        if network is None:
            raise Shortage(f"network {target} not found")
        if not is_allocated(network):
            raise Shortage(f"network {network.spec.name} has no subnet: the cluster's address pools are used up")
        return network

    def _ingress(self) -> Network:
        network = next((each for each in self._networks.values() if each.spec.ingress), None)
        if network is None:
            raise Shortage("service needs ingress network, but no ingress network is present")
        return self._find(network.id)

    def _address(self, network: Network, what: str) -> tuple[AddressPool, int]:
        pool = self._holdings.pool(network.id)
        number = pool.peek() if pool is not None else None
        if pool is None or number is None:
            self._scarce.add(network.id)
            raise Shortage(f"failed to allocate {what} on network {network.spec.name}: could not find an available IP")
        return pool, number

    def _task_address(self, network: Network, task: Task) -> tuple[AddressPool, int]:
        """The next address, or the one that the task wants."""
        if not task.wanted_address:
            return self._address(network, f"an address for task {task.id}")
        pool, number = self._holdings.pool(network.id), to_int(task.wanted_address)
        if pool is None or not pool.can_give(number):
            held = pool is not None and pool.is_held(number)
            why = "it is in use" if held else "the network has no such address to give"
            raise Shortage(f"cannot have address {task.wanted_address} on network {network.spec.name}: {why}")
        return pool, number

    # --- services ----------------------------------------------------------------------------------------------------

    def _plan_service(self, service: Service) -> Service | None:
        try:
            endpoint = self._endpoint(service)
        except Shortage as shortage:
            self._waiting[Service][service.id] = None
            self._shortages[service.id] = str(shortage)
            endpoint = service.endpoint
        else:
            self._shortages.pop(service.id, None)
        self._dirty[Task].update(self._waiting_tasks(service.id))
        return replace(service, endpoint=endpoint) if endpoint != service.endpoint else None

    def _waiting_tasks(self, service_id: str) -> dict[str, None]:
        waiting = self._waiting[Task]
        found = dict.fromkeys(task_id for task_id in waiting if self._new[task_id].service_id == service_id)
        for task_id in found:
            del waiting[task_id]
        return found

    def _endpoint(self, service: Service) -> Endpoint:
        spec = service.spec.endpoint_spec or EndpointSpec()
        bound = publish_addresses(service.spec.labels)
        for port in spec.ports:
            for other in self._holdings.ports.others(service.id, port, bound):
                # `control` refuses such services, so this is the second line.
                if _yields(service, self._services[other], (port.protocol or "tcp", port.published_port)):
                    raise Shortage(conflict_with([port], bound, self._services[other]) or "")
        ports = assign(service, self._holdings.ports)
        if ports is None:
            raise Shortage("no port between 30000 and 32767 is free")
        vips = self._vips(service) if spec.mode != "dnsrr" else []
        if not ports and not vips and service.endpoint == Endpoint():
            return service.endpoint
        shown = EndpointSpec(mode=spec.mode or "vip", ports=[complete(port) for port in spec.ports])
        return Endpoint(spec=shown, ports=ports, virtual_ips=vips)

    def _vips(self, service: Service) -> list[EndpointVirtualIP]:
        has = {vip.network_id: vip for vip in service.endpoint.virtual_ips if ":" not in vip.addr}
        vips = []
        for network in self._service_networks(service):
            if not is_overlay(network):
                continue
            vip = has.get(network.id)
            if vip is None:
                pool, number = self._address(network, f"a virtual IP for service {service.spec.name}")
                vip = EndpointVirtualIP(network_id=network.id, addr=pool.text(number))
            vips.append(vip)
            vips += [EndpointVirtualIP(network_id=network.id, addr=text) for text in _beside(network, vip.addr)]
        return vips

    def _service_networks(self, service: Service) -> list[Network]:
        """Ingress first if the service needs it, then its own."""
        spec = service.spec.endpoint_spec or EndpointSpec()
        needs_ingress = any(is_ingress(port) for port in spec.ports)
        own = _targets(service.spec.task_template.networks or service.spec.networks)
        found = ([self._ingress()] if needs_ingress else []) + [self._find(target) for target in own]
        return list({network.id: network for network in found}.values())

    # --- tasks -------------------------------------------------------------------------------------------------------

    def _plan_task(self, task: Task, now: int) -> Task | None:
        stamp = rfc3339(now)
        try:
            service = self._ready_service(task)
            attachments = self._attachments(task, service)
        except Shortage as shortage:
            self._waiting[Task][task.id] = None
            if str(shortage) in ("", task.status.err):
                return None
            return replace(task, status=replace(task.status, timestamp=stamp, err=str(shortage)))
        endpoint = endpoint_of(service) if service is not None else None
        status = TaskStatus(timestamp=stamp, state=TaskState.PENDING, message=PENDING)
        return replace(task, networks_attachments=attachments, endpoint=endpoint, status=status)

    def _ready_service(self, task: Task) -> Service | None:
        """The task's service with its endpoint in place; None for a task without service (an attachment)."""
        if not task.service_id:
            return None
        service = self._services.get(task.service_id)
        if service is None:
            raise Shortage("")  # it was removed just now, and its tasks will be
        if service.id in self._shortages:
            raise Shortage(self._shortages[service.id])
        return service

    def _attachments(self, task: Task, service: Service | None) -> list[NetworkAttachment]:
        spec = service.spec.endpoint_spec if service is not None else None
        found = [self._ingress()] if spec is not None and any(is_ingress(port) for port in spec.ports) else []
        own = task.spec.networks or (service.spec.networks if service is not None else [])
        found += [self._find(target) for target in _targets(own)]
        attachments = []
        for network in {network.id: network for network in found}.values():
            addresses = []
            if is_overlay(network):
                pool, number = self._task_address(network, task)
                addresses = [pool.text(number), *_beside(network, pool.text(number))]
            attachments.append(NetworkAttachment(network=network, addresses=addresses))
        return attachments

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _plan_node(self, node: Node, now: int) -> Node | None:
        used = {each.id for each in self._networks.values() if each.spec.ingress} | self._use.of(node.id)
        wanted = {network_id for network_id in used if self._holdings.pool(network_id) is not None}
        unused = self._unused.pop(node.id, {})
        attachments = {}
        for network_id, address in node.attachments.items():
            if network_id not in wanted:
                since = unused.get(network_id, now)
                if network_id not in self._networks or network_id in self._scarce or now - since >= LINGER:
                    continue
                self._unused.setdefault(node.id, {})[network_id] = since
            attachments[network_id] = address
        for network_id in sorted(wanted - node.attachments.keys()):
            try:
                pool, number = self._address(self._networks[network_id], f"an address for node {node.id}")
            except Shortage:
                self._waiting[Node][node.id] = None
                continue
            attachments[network_id] = pool.text(number)
        return replace(node, attachments=attachments) if attachments != node.attachments else None


def _with_gateway6(config: IPAMConfig, config4: IPAMConfig) -> IPAMConfig:
    """An IPv6 subnet with the gateway beside that of the IPv4 subnet, unless the user chose one."""
    if config.gateway:
        return config
    return replace(config, gateway=DualStack(config4.subnet, config.subnet).beside(config4.gateway))


def endpoint_of(service: Service) -> Endpoint | None:
    """What a task keeps of its service's endpoint; a mode other than `vip` is kept also without ports."""
    if service.endpoint != Endpoint():
        return service.endpoint
    declared = service.spec.endpoint_spec
    return Endpoint(spec=declared) if declared is not None and declared.mode == "dnsrr" else None


def _yields(service: Service, other: Service, port: tuple[str, int]) -> bool:
    """Of two services that declare a port, whether the first has to wait: the port is the other's already, or the
    other is older."""
    mine, theirs = (port in published(replace(each, spec=ServiceSpec())) for each in (service, other))
    return theirs if mine != theirs else (other.created_at, other.id) < (service.created_at, service.id)


def _beside(network: Network, address: str) -> list[str]:
    """The IPv6 address beside an address of the network, if the network has IPv6."""
    dual = dual_stack(network)
    return [dual.with_prefix(address)] if dual is not None else []


def _targets(configs: Iterable[NetworkAttachmentConfig]) -> list[str]:
    return [config.target for config in configs]
