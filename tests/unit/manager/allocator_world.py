"""Objects for the tests of the allocator, and a world in which its core's decisions count as stored."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from swarm_agent.manager.allocation import AllocatorCore
from swarm_agent.model.objects import Network, Service, Task, TaskStatus
from swarm_agent.model.specs import (
    EndpointSpec,
    IPAMConfig,
    IPAMOptions,
    NetworkAttachmentConfig,
    NetworkSpec,
    PortConfig,
    ServiceSpec,
    TaskSpec,
)
from swarm_agent.model.states import TaskState
from swarm_agent.store.view import Change

NOW = 1_700_000_000_000_000_000
replace = msgspec.structs.replace
numbers = itertools.count()
INGRESS = Network(id="ing", spec=NetworkSpec(name="ingress", ingress=True))


def network(name: str, subnet: str = "", **spec: Any) -> Network:
    options = IPAMOptions(configs=[IPAMConfig(subnet=subnet)]) if subnet else None
    return Network(id=f"net-{name}", spec=NetworkSpec(name=name, ipam_options=options, **spec))


def dual(name: str, subnet: str, subnet6: str, **config: Any) -> Network:
    """A network with IPv6; `config` is of its IPv6 subnet."""
    options = IPAMOptions(configs=[IPAMConfig(subnet), IPAMConfig(subnet6, **config)])
    return Network(id=f"net-{name}", spec=NetworkSpec(name=name, ipam_options=options, ipv6_enabled=True))


def service(
    name: str, *networks: str, ports: tuple[PortConfig, ...] = (), mode: str = "vip", **changes: Any
) -> Service:
    template = TaskSpec(networks=[NetworkAttachmentConfig(target=f"net-{target}") for target in networks])
    spec = ServiceSpec(name=name, task_template=template, endpoint_spec=EndpointSpec(mode=mode, ports=list(ports)))
    return Service(id=f"svc-{name}", spec=spec, **changes)


def task(of: Service, **changes: Any) -> Task:
    fields = {"id": f"t{next(numbers)}", "service_id": of.id, "spec": of.spec.task_template, **changes}
    return Task(**{"desired_state": TaskState.RUNNING, **fields})


def publish(target: int, published: int = 0, mode: str = "ingress", protocol: str = "tcp") -> PortConfig:
    return PortConfig(protocol=protocol, target_port=target, published_port=published, publish_mode=mode)


class World:
    """A core fed with objects; its decisions count as stored."""

    def __init__(self, *objects: Any) -> None:
        self.core = AllocatorCore()
        self.now = NOW
        self.objects: dict[str, Any] = {}
        self.put(*objects)

    def put(self, *objects: Any) -> None:
        for obj in objects:
            self.core.apply([Change(type(obj), self.objects.get(obj.id), obj)], self.now)
            self.objects[obj.id] = obj

    def drop(self, obj: Any) -> None:
        self.core.apply([Change(type(obj), self.objects.pop(obj.id), None)], self.now)

    def plan(self, limit: int = 5) -> list[Any]:
        decisions: list[Any] = []
        while some := self.step(limit):
            decisions += some
        return decisions

    def step(self, limit: int) -> list[Any]:
        decided: list[Any] = list(self.core.plan(limit, self.now))
        while not decided and self.core.busy:
            decided = list(self.core.plan(limit, self.now))
        self.put(*decided)
        return decided

    def get(self, obj: Any) -> Any:
        return self.objects[obj.id]

    def end(self, of: Task, state: TaskState = TaskState.SHUTDOWN) -> None:
        self.put(replace(self.get(of), status=TaskStatus(state=state)))

    def address(self, of: Task, at: int = 0) -> str:
        return str(self.get(of).networks_attachments[at].addresses[0])

    def vips(self, of: Service) -> list[str]:
        return [vip.addr for vip in self.get(of).endpoint.virtual_ips]
