"""Which object a client means: its id, else its name, else the beginning of its id (swarm.md §1.1)."""

from __future__ import annotations

from typing import Any, TypeVar

from swarm_agent.model.errors import BadRequest, NotFound
from swarm_agent.model.objects import Config, Node, Secret, Stored, Task
from swarm_agent.store.view import Reader

T = TypeVar("T", bound=Stored)


def find(view: Reader, kind: type[T], term: str) -> T:
    """The one object that `term` names. Raises NotFound ("service x not found"), or BadRequest when it is ambiguous."""
    found = candidates(view, kind, term)
    if not found:
        raise NotFound(f"{kind.KIND} {term} not found")
    if len(found) > 1:
        raise BadRequest(f"{kind.KIND} {term} is ambiguous ({len(found)} matches found)")
    return found[0]


def candidates(view: Reader, kind: type[T], term: str) -> list[T]:
    """All objects that `term` may mean, by the first of the three rules that finds any."""
    exact = view.get(kind, term)
    if exact is not None:
        return [exact]
    if not term:
        return []
    # Names are taken without regard to case, as the index has them, but asked for as they are written; only secrets
    # and configs answer to any case, in Swarm as here.
    held = view.all(kind) if kind is Task else view.find(kind, name=term.lower())
    named = [obj for obj in held if kind in (Secret, Config) or _name(obj) == term]
    return named or view.by_prefix(kind, term)


def _name(obj: Any) -> str:
    """A task has the name of its container, a node that of its host."""
    if isinstance(obj, Task):
        return obj.name
    return str(obj.description.hostname if isinstance(obj, Node) else obj.spec.name)
