"""Placement constraints: "node.labels.disk == ssd" (reference/swarm.md §3.6).

A constraint is KEY OPERATOR VALUE with operator == or !=; a node has to satisfy all. Values compare without regard to
case, as do the keys' fixed parts; label names are case-sensitive. A missing label equals the empty string, so "!="
holds for it. A well-formed constraint with an unknown key is accepted and satisfied by no node, as in Swarm.

Shared by the scheduler (where a task may go), the enforcer and the orchestrators (where it may stay) and the API (what
may be declared). `parsed` keeps results, since the same few lists are asked about for every task.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from swarm_agent.model.objects import Node

_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE | re.ASCII)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE | re.ASCII)

NODE_LABEL = "node.labels."
ENGINE_LABEL = "engine.labels."


class ConstraintError(ValueError):
    """The expression is no constraint. The text is Swarm's, to be passed on to the user."""


class Operator(enum.Enum):
    EQUAL = "=="
    NOT_EQUAL = "!="


@dataclass(frozen=True, slots=True)
class Constraint:
    """One condition on a node."""

    key: str
    operator: Operator
    value: str


def parse(expressions: Iterable[str]) -> tuple[Constraint, ...]:
    """The constraints of a placement. Raises ConstraintError at the first that is malformed."""
    return tuple(_parse_one(expression) for expression in expressions)


def parsed(expressions: Iterable[str]) -> tuple[Constraint, ...] | None:
    """Like `parse`, remembered; None if one is malformed (no node satisfies such a list)."""
    return _parsed(tuple(expressions))


@functools.lru_cache(maxsize=4096)
def _parsed(expressions: tuple[str, ...]) -> tuple[Constraint, ...] | None:
    try:
        return parse(expressions)
    except ConstraintError:
        return None


def _parse_one(expression: str) -> Constraint:
    for operator in Operator:
        key, found, value = expression.partition(operator.value)
        if not found:
            continue
        key, value = key.strip(), value.strip()
        if not _KEY.fullmatch(key):
            raise ConstraintError(f"key '{key}' is invalid")
        if not _VALUE.fullmatch(value):
            raise ConstraintError(f"value '{value}' is invalid")
        return Constraint(key, operator, value)
    raise ConstraintError("constraint expected one operator from ==, !=")


def matches(constraints: Iterable[Constraint] | None, node: Node) -> bool:
    """Whether the node satisfies all of them. None (a malformed list, see `parsed`) is satisfied by no node."""
    return constraints is not None and all(_holds(constraint, node) for constraint in constraints)


def node_satisfies(expressions: Iterable[str], node: Node) -> bool:
    """Whether the node satisfies these constraints, given as text."""
    return matches(parsed(expressions), node)


def actual(expression: str, node: Node) -> str:
    """What the node has for a constraint's key, for people."""
    constraint = _parse_one(expression)
    if constraint.key.lower() == "node.ip":
        return node.status.addr or "not known"
    found = _attribute(constraint.key.lower(), constraint.key, node)
    return "a key that no node has" if found is None else repr(found) if found else "not set"


def _holds(constraint: Constraint, node: Node) -> bool:
    key = constraint.key.lower()
    if key == "node.ip":
        return _address_holds(constraint, node)
    actual = _attribute(key, constraint.key, node)
    if actual is None:
        return False
    equal = actual.casefold() == constraint.value.casefold()
    return equal is (constraint.operator is Operator.EQUAL)


def _attribute(key: str, written: str, node: Node) -> str | None:
    """The node's value for a key ("" when it has none), or None for a key that does not exist."""
    description = node.description
    match key:
        case "node.id":
            return node.id
        case "node.hostname":
            return description.hostname
        case "node.role":
            return node.spec.role
        case "node.platform.os":
            return description.platform.os
        case "node.platform.arch":
            return description.platform.architecture
    if key.startswith(NODE_LABEL) and len(key) > len(NODE_LABEL):
        return node.spec.labels.get(written[len(NODE_LABEL) :], "")
    if key.startswith(ENGINE_LABEL) and len(key) > len(ENGINE_LABEL):
        return description.engine.labels.get(written[len(ENGINE_LABEL) :], "")
    return None


def _address_holds(constraint: Constraint, node: Node) -> bool:
    """node.ip takes an address or a subnet; a malformed one holds for no node, whatever the operator."""
    try:
        network = ipaddress.ip_network(constraint.value, strict=False)
    except ValueError:
        return False
    try:
        inside = ipaddress.ip_address(node.status.addr) in network
    except ValueError:  # the node's address is not known yet
        inside = False
    return inside is (constraint.operator is Operator.EQUAL)
