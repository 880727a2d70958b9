"""`ClusterApi`: the cluster's API over a store. It knows no socket and no engine.

The front door calls it on any manager. Reads are answered by every manager from its own copy, after a round that
proves it current; writes only succeed on the leader. A follower's front door sends them there: the management plane
of the leader decodes the forwarded `Request`, calls `handle`, and sends the `Response` back.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets

from swarm_agent.model.errors import ClusterError
from swarm_agent.store.store import Store

from .context import AbsentStore, Context
from .control_protocol import ExternalAuthorities, Quorum
from .message import Request, Response, error_of, error_response
from .routes import NETWORKS, match

log = logging.getLogger(__name__)

TIMEOUT = 20.0
"""Seconds for one request to the managers, as in Swarm."""

TIMEOUT_TEXT = "rpc error: code = DeadlineExceeded desc = context deadline exceeded"


class ClusterApi:
    """Serves requests from a manager's store."""

    def __init__(
        self,
        store: Store | AbsentStore,
        rng: random.Random | None = None,
        *,
        quorum: Quorum | None = None,
        external: ExternalAuthorities | None = None,
    ) -> None:
        """`quorum` guards the raft group; without it the nodes' own manager status decides. Without `external` outer
        certificate authorities are believed to be there."""
        self._store = store
        self._quorum = quorum
        self._external = external
        self._rng = rng if rng is not None else secrets.SystemRandom()

    async def handle(self, request: Request) -> Response:
        """Carry out a request; every failure is a response. Unknown paths get 404."""
        found = match(request.method, request.path) or match(request.method, request.path, NETWORKS)
        if found is None:
            return error_response(404, "page not found")
        route, term = found
        try:
            async with asyncio.timeout(TIMEOUT):
                context = Context(request, self._store, self._rng, term, self._quorum, self._external)
                return await route.handler(context)
        except TimeoutError:
            return error_response(500, TIMEOUT_TEXT)
        except ClusterError as error:
            return error_of(error)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return error_response(500, "internal error: see the agent's log")
