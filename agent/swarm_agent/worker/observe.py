"""What the engine shows of a task's container, in the worker's terms, and what is told to others from it. Pure."""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass

from swarm_agent.model.addresses import ip_of, mac_of
from swarm_agent.model.extensions import publish_addresses, publish_nodes
from swarm_agent.model.objects import ContainerStatus, PortStatus, Task
from swarm_agent.model.rows import AddressRow, EndpointRow, PortRow
from swarm_agent.model.specs import PortConfig

from . import engine
from .container import host_ports, wishes


class Life(enum.Enum):
    """Where a container is in its life."""

    CREATED = enum.auto()
    RUNNING = enum.auto()
    ENDED = enum.auto()


class HealthState(enum.Enum):
    NONE = enum.auto()  # no healthcheck: running is healthy
    STARTING = enum.auto()
    HEALTHY = enum.auto()
    UNHEALTHY = enum.auto()


# What can end a container from outside.
STOPPED = "stopped by the engine or by hand"
ENGINE_WENT = "the engine went away while it ran"


@dataclass(frozen=True, slots=True)
class View:
    """A container as last seen. `cut_off` says what ended it from outside, if something did: its exit code then tells
    how it took the stop signal, not how the work went."""

    id: str
    life: Life
    health: HealthState = HealthState.NONE
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    ports: tuple[PortConfig, ...] = ()
    cut_off: str = ""
    hostname: str = ""
    exposed: frozenset[int] = frozenset()  # TCP ports that the image or the service says it serves


_NEVER = "0001-01-01T00:00:00Z"
_HEALTH = {
    "starting": HealthState.STARTING,
    "healthy": HealthState.HEALTHY,
    "unhealthy": HealthState.UNHEALTHY,
}


def view_of(container: engine.Container) -> View:
    state = container.state
    # "restarting" cannot be: tasks have no restart policy. A paused container runs.
    if state.running or state.paused:
        life = Life.RUNNING
    elif state.started_at in ("", _NEVER) and state.status not in ("exited", "dead"):
        life = Life.CREATED
    else:
        life = Life.ENDED
    health = _HEALTH.get(state.health.status, HealthState.NONE) if state.health else HealthState.NONE
    return View(
        id=container.id,
        life=life,
        health=health,
        pid=state.pid,
        exit_code=state.exit_code,
        error=state.error,
        ports=_bound_ports(container),
        hostname=container.config.hostname,
        exposed=frozenset(
            int(port)
            for port, _, protocol in (key.partition("/") for key in container.config.exposed_ports or {})
            if protocol == "tcp" and port.isdigit()
        ),
    )


def _bound_ports(container: engine.Container) -> tuple[PortConfig, ...]:
    """The host's ports in use, once each although the engine lists IPv4 and IPv6."""
    found: dict[tuple[str, int, int], PortConfig] = {}
    for key, bindings in sorted((container.network_settings.ports or {}).items()):
        target, _, protocol = key.partition("/")
        for binding in bindings or []:
            if binding.host_port:
                port = PortConfig(
                    protocol=protocol,
                    target_port=int(target),
                    published_port=int(binding.host_port),
                    publish_mode="host",
                )
                found[protocol, int(target), int(binding.host_port)] = port
    return tuple(found.values())


def container_status(view: View | None) -> ContainerStatus | None:
    if view is None:
        return None
    running = view.life is Life.RUNNING
    return ContainerStatus(
        container_id=view.id, pid=view.pid if running else 0, exit_code=0 if running else view.exit_code
    )


def port_status(view: View | None) -> PortStatus:
    return PortStatus(ports=list(view.ports)) if view is not None and view.life is Life.RUNNING else PortStatus()


def exit_text(view: View, cause: str = "") -> str:
    """The error of a task whose container ended: Swarm's "task: non-zero exit (N): cause". An exit code that tells of
    the signal needs no further word."""
    cause = cause or view.error
    if view.cut_off and not cause and (view.exit_code == 0 or view.cut_off != STOPPED):
        cause = view.cut_off
    if view.exit_code == 0 and cause:
        return f"task: {cause}"
    text = f"task: non-zero exit ({view.exit_code})"
    return f"{text}: {cause}" if cause else text


def default_gateway(routes: str) -> str:
    """The gateway of the IPv4 default route, from the text of /proc/PID/net/route; "" when there is none."""
    for line in routes.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000":
            return str(ipaddress.IPv4Address(bytes.fromhex(fields[2])[::-1]))  # the kernel prints it as it stores it
    return ""


def address_towards(task: Task, gateway: str) -> str:
    """The task's address on the network that the gateway is on, or ""."""
    if not gateway:
        return ""
    for attachment in task.networks_attachments:
        for address in attachment.addresses:
            interface = ipaddress.ip_interface(address)
            if ipaddress.ip_address(gateway) in interface.network:
                return str(interface.ip)
    return ""


def endpoint_row(task: Task, view: View, *, active: bool, gateway: str = "") -> EndpointRow:
    """What this host gossips about the running task: where it is reached and under which names. `gateway`: of the
    container's default route."""
    endpoint = task.endpoint
    shared = endpoint.virtual_ips if endpoint is not None else []
    vips = {one.network_id: ip_of(one.addr) for one in shared if ":" not in one.addr}
    addresses = []
    for attachment in task.networks_attachments:
        network = attachment.network
        aliases = {alias for config in wishes(task, network) for alias in config.aliases}
        for address in attachment.addresses:
            if ":" in address:
                continue  # follows from the IPv4 address (model.dualstack)
            addresses.append(
                AddressRow(
                    network_id=network.id,
                    ip=ip_of(address),
                    mac=mac_of(address),
                    vip=vips.get(network.id, ""),
                    aliases=tuple(sorted(aliases)),
                )
            )
    bound, nodes = publish_addresses(task.service_labels), publish_nodes(task.service_labels)
    ports = [
        PortRow(
            port.protocol or "tcp", port.target_port, port.published_port, port.publish_mode or "ingress", port.name,
            bound, nodes,
        )
        for port in (endpoint.ports if endpoint is not None else [])
        if port.publish_mode != "host"
    ]  # fmt: skip
    names = {(port.protocol or "tcp", port.target_port): port.name for port in host_ports(task)}
    ports += [
        PortRow(
            port.protocol, port.target_port, port.published_port, "host",
            names.get((port.protocol, port.target_port), ""),
        )
        for port in view.ports
    ]  # fmt: skip
    return EndpointRow(
        task_id=task.id,
        service_id=task.service_id,
        service_name=task.service_name,
        slot=task.slot,
        container_id=view.id,
        addresses=tuple(addresses),
        ports=tuple(ports),
        active=active,
        hostname=view.hostname,
        answers_from=address_towards(task, gateway) if len(addresses) > 1 else "",
    )
