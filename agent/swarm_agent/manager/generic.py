"""Generic resources: countable things that only their owner understands, e.g. "GPU" (reference/swarm.md §1.4, §3.6).

A node offers a kind either as a number (discrete, `SSD=3`) or as a set of names (`GPU=uuid1, GPU=uuid2`). A task always
asks for a number; it is given either that number or that many of the names, and these are kept in
`Task.generic_resources` until it ends. What is free is never stored, it is the offer less what the node's tasks hold.
"""

from __future__ import annotations

from collections.abc import Iterable

from swarm_agent.model.specs import DiscreteGenericResource, GenericResource, NamedGenericResource

Free = dict[str, int | list[str]]
"""What is free of each kind: a number, or names in the order in which the node offers them."""


def free(offered: Iterable[GenericResource], held: Iterable[GenericResource]) -> Free:
    """What is left of a node's offer when tasks hold `held`. Resources that the node no longer offers are ignored."""
    left: Free = {}
    for resource in offered:
        if resource.named_resource_spec is not None:
            names = left.setdefault(resource.named_resource_spec.kind, [])
            if isinstance(names, list):
                names.append(resource.named_resource_spec.value)
        elif resource.discrete_resource_spec is not None:
            left[resource.discrete_resource_spec.kind] = resource.discrete_resource_spec.value
    take(left, held)
    return left


def take(left: Free, held: Iterable[GenericResource]) -> None:
    """Take from `left` what a task holds. Resources that are not there are ignored."""
    for resource in held:
        if resource.named_resource_spec is not None:
            known = left.get(resource.named_resource_spec.kind)
            if isinstance(known, list) and resource.named_resource_spec.value in known:
                known.remove(resource.named_resource_spec.value)
        elif resource.discrete_resource_spec is not None:
            count = left.get(resource.discrete_resource_spec.kind)
            if isinstance(count, int):
                left[resource.discrete_resource_spec.kind] = count - resource.discrete_resource_spec.value


def has(left: Free, held: Iterable[GenericResource]) -> bool:
    """Whether all that a task holds is there: each name, and of what is counted enough."""
    for resource in held:
        if resource.named_resource_spec is not None:
            known = left.get(resource.named_resource_spec.kind)
            if not isinstance(known, list) or resource.named_resource_spec.value not in known:
                return False
        elif resource.discrete_resource_spec is not None:
            count = left.get(resource.discrete_resource_spec.kind)
            if not isinstance(count, int) or count < resource.discrete_resource_spec.value:
                return False
    return True


def wanted(reservations: Iterable[GenericResource]) -> dict[str, int] | None:
    """How much of each kind a task asks for, or None if it asks in a form that nothing can satisfy (by name)."""
    demand: dict[str, int] = {}
    for resource in reservations:
        if resource.discrete_resource_spec is None:
            return None
        kind = resource.discrete_resource_spec.kind
        demand[kind] = demand.get(kind, 0) + resource.discrete_resource_spec.value
    return demand


def has_enough(left: Free, demand: dict[str, int]) -> bool:
    """Whether a node with this free can take a task with this demand. A kind that the node lacks is never enough."""
    for kind, value in demand.items():
        available = left.get(kind)
        if available is None:
            return False
        if value > (available if isinstance(available, int) else len(available)):
            return False
    return True


def claim(left: Free, demand: dict[str, int]) -> list[GenericResource]:
    """What a task with this demand is given. To be called when `has_enough`; `left` is not changed."""
    given: list[GenericResource] = []
    for kind, value in demand.items():
        available = left[kind]
        if isinstance(available, list):
            given += [
                GenericResource(named_resource_spec=NamedGenericResource(kind=kind, value=name))
                for name in available[:value]
            ]
        elif value:
            given.append(GenericResource(discrete_resource_spec=DiscreteGenericResource(kind=kind, value=value)))
    return given
