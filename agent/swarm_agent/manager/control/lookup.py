"""Which object a client means: its id, else its name, else the beginning of its id (swarm.md §1.1)."""

from __future__ import annotations

from typing import TypeVar

from swarm_agent.model.errors import BadRequest, NotFound
from swarm_agent.model.objects import Stored, Task
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
    if kind is Task:
        named = [task for task in view.all(kind) if task.name == term]  # type: ignore[attr-defined]
    else:
        named = view.find(kind, name=term.lower())
    return named or view.by_prefix(kind, term)
