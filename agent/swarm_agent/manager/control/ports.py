"""Published ports: one port of the cluster belongs to one service (swarm.md §1.3).

Ingress ports are taken on every host, so they exclude each other and every use of the same port in host mode. Two
services may share a host-mode port: the scheduler keeps them on different hosts.
"""

from __future__ import annotations

from swarm_agent.model.errors import InvalidArgument
from swarm_agent.model.objects import Service
from swarm_agent.model.specs import EndpointSpec, PortConfig
from swarm_agent.store.view import Reader

Key = tuple[str, int]


def check_conflicts(view: Reader, spec: EndpointSpec | None, service_id: str = "") -> None:
    """Raises InvalidArgument if a port of `spec` is held by another service than `service_id`."""
    ports = spec.ports if spec is not None else []
    ingress = {_key(port) for port in ports if port.published_port and port.publish_mode == "ingress"}
    host = {_key(port) for port in ports if port.published_port and port.publish_mode == "host"}
    if not ingress and not host:
        return
    for service in view.all(Service):
        if service.id == service_id:
            continue
        declared = service.spec.endpoint_spec.ports if service.spec.endpoint_spec is not None else []
        for port in (*declared, *service.endpoint.ports):
            if not port.published_port:
                continue
            if port.publish_mode == "host":
                if _key(port) in ingress:
                    raise _taken(port, service, "a host-published port")
            elif _key(port) in ingress or _key(port) in host:
                raise _taken(port, service, "an ingress port")


def needs_ingress(spec: EndpointSpec | None) -> bool:
    """True when a service with this spec is attached to the ingress network: VIP mode and a port in ingress mode."""
    return spec is not None and spec.mode != "dnsrr" and any(port.publish_mode == "ingress" for port in spec.ports)


def _key(port: PortConfig) -> Key:
    return port.protocol, port.published_port


def _taken(port: PortConfig, service: Service, how: str) -> InvalidArgument:
    return InvalidArgument(
        f"port '{port.published_port}' is already in use by service '{service.spec.name}' ({service.id}) as {how}"
    )
