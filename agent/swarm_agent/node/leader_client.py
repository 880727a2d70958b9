"""Requests of a member to the leader's management plane: asks any manager and follows to the one that leads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import msgspec

from swarm_agent.model.errors import ClusterError, NoLeader
from swarm_agent.pki import authority
from swarm_agent.pki.files import NodeCertificate

from .admission import RemoteError, call, message_of
from .certificates import CertificateHolder
from .management import CertificateAnswer, RenewalRequest

_MAX_REDIRECTS = 3


class LeaderClient:
    """`managers()` gives the addresses (host:port) to begin with."""

    def __init__(self, holder: CertificateHolder, managers: Callable[[], Iterable[str]]) -> None:
        self._holder = holder
        self._managers = managers

    async def post(self, path: str, body: bytes) -> bytes:
        """POST to the leader; returns the answer's body.

        Raises RemoteError with the leader's refusal, Unavailable or NoLeader when none can be reached.
        """
        failure: ClusterError = NoLeader()
        for address in self._managers():
            try:
                return await self._follow(address, path, body)
            except RemoteError as refusal:
                if refusal.status not in (421, 500, 503):
                    raise
                failure = refusal
            except ClusterError as error:
                failure = error
        raise failure

    async def _follow(self, address: str, path: str, body: bytes) -> bytes:
        for _ in range(_MAX_REDIRECTS):
            status, answer = await call("POST", address, path, self._holder.client_context(), body)
            if status == 200:
                return answer
            if status != 421:
                break
            address = message_of(answer)
        raise RemoteError(status, message_of(answer))

    async def renew(self) -> NodeCertificate:
        """A new certificate for a new key, with the role that the managers see in this node now."""
        key = await asyncio.to_thread(authority.new_key)
        request = RenewalRequest(csr=authority.new_signing_request(key))
        answer = msgspec.json.decode(await self.post("/v1/renew", msgspec.json.encode(request)), type=CertificateAnswer)
        return NodeCertificate(self._holder.present.root, answer.certificate, key)
