"""What a handler of the cluster's API gets: the request, the store, and the term in the path."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from swarm_agent.model.base import decode
from swarm_agent.model.errors import BadRequest, ClusterError
from swarm_agent.model.objects import Stored
from swarm_agent.store.store import Store
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import View

from .control_protocol import ExternalAuthorities, Quorum
from .message import JSON, Request, Response, json_list

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AbsentStore:
    """In place of a store, on a node that is no manager: every use of it raises the reason."""

    reason: ClusterError

    def view(self) -> NoReturn:
        raise self.reason

    async def read(self) -> NoReturn:
        raise self.reason

    async def update(self, change: Callable[[Tx], object]) -> NoReturn:
        raise self.reason

    def encoded(self, obj: Stored) -> NoReturn:
        raise self.reason


@dataclass(frozen=True, slots=True)
class Context:
    """One request to the cluster. `term` is the object that the path names (id, name or beginning of an id)."""

    request: Request
    store: Store | AbsentStore
    rng: random.Random
    term: str = ""
    quorum: Quorum | None = None
    external: ExternalAuthorities | None = None

    async def read(self) -> View:
        """The state, with everything that was acknowledged before this request."""
        return await self.store.read()

    async def update(self, change: Callable[[Tx], T]) -> T:
        """Carry out a change; returns what `change` returns."""
        return await self.store.update(change)

    def body(self, kind: type[T]) -> T:
        """The request's JSON. An empty body is an empty object, as in the engine. Raises BadRequest."""
        return read_json(self.request, kind)

    def encoded(self, objects: Iterable[Stored]) -> Response:
        """A list of stored objects, from their cached encodings."""
        return json_list([self.store.encoded(obj) for obj in objects])


Handler = Callable[[Context], Awaitable[Response]]


def read_json(request: Request, kind: type[T]) -> T:
    """See `Context.body`."""
    content_type = request.headers.get("content-type", "")
    if request.body or content_type:
        media = content_type.partition(";")[0].strip().lower()
        if media != JSON:
            raise BadRequest(f"unsupported Content-Type header ({content_type}): must be '{JSON}'")
    return decode(kind, request.body or b"{}")
