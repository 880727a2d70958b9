"""Requests of a member to the leader's management plane: asks any manager and follows to the one that leads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from swarm_agent.model.errors import ClusterError, NoLeader, message_of
from swarm_agent.pki import authority
from swarm_agent.pki.files import NodeCertificate

from .admission import RemoteError, Unreachable, call
from .certificates import CertificateHolder
from .management import CertificateAnswer, RenewalRequest

PATIENCE = 10.0  # seconds to look for a leader: several elections
RETRY = 0.1  # seconds between rounds over all managers
CONNECT_TIMEOUT = 1.0  # seconds; managers are near, and a dead one should not hold up the search for its successor
NOT_LEADING = (421, 500, 503)  # answers of a manager that cannot say what the leader would


class LeaderClient:
    """`managers()` gives the addresses (host:port) to ask, the likeliest leader first."""

    def __init__(self, holder: CertificateHolder, managers: Callable[[], Iterable[str]]) -> None:
        self._holder = holder
        self._managers = managers

    async def post(self, path: str, body: bytes, patience: float = PATIENCE) -> bytes:
        """POST to the leader; returns the answer's body. Waits for a leader when there is none just now.

        Raises RemoteError with the leader's refusal, Unavailable when the connection broke while it was being asked (it
        may have done it), NoLeader or the last failure when no leader was found in `patience` seconds.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            failure: ClusterError = NoLeader()
            seen: set[str] = set()
            addresses = deque(self._managers())
            while addresses:
                address = addresses.popleft()
                if address in seen:
                    continue
                seen.add(address)
                try:
                    return await self._ask(address, path, body)
                except Unreachable as error:
                    # A manager that answered knows more than one that is away.
                    if not isinstance(failure, RemoteError):
                        failure = error
                except RemoteError as refusal:
                    if refusal.status not in NOT_LEADING:
                        raise
                    if refusal.status == 421:
                        addresses.appendleft(str(refusal))
                    else:
                        failure = refusal
            if loop.time() > deadline:
                raise failure
            await asyncio.sleep(RETRY)

    async def _ask(self, address: str, path: str, body: bytes) -> bytes:
        context = self._holder.leader_context()
        status, answer = await call("POST", address, path, context, body, connect_timeout=CONNECT_TIMEOUT)
        if status != 200:
            raise RemoteError(status, message_of(answer))
        return answer

    async def renew(self) -> NodeCertificate:
        """A new certificate for a new key, with the role that the managers see in this node now."""
        key = await asyncio.to_thread(authority.new_key)
        request = RenewalRequest(csr=authority.new_signing_request(key))
        answer = msgspec.json.decode(await self.post("/v1/renew", msgspec.json.encode(request)), type=CertificateAnswer)
        root = self._holder.present.root
        if not authority.trusted(answer.certificate, root):
            raise ClusterError("the manager sent a certificate that leads to no root which this node trusts")
        return NodeCertificate(root, answer.certificate, key)
