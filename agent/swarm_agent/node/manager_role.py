"""What a manager runs beside its worker: raft member, store, management plane and, while it leads, the control loops.

The control loops and the dispatcher live exactly as long as this manager leads. Leadership comes and goes by raft's
word; one task starts and stops them in order, so a quick change back and forth cannot leave two sets running.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable

import msgspec

from swarm_agent.manager.dispatcher import Dispatcher
from swarm_agent.manager.leader import Leader
from swarm_agent.model.objects import Cluster, Node
from swarm_agent.model.session import ManagerPeer
from swarm_agent.pki import tls
from swarm_agent.pki.files import NodeCertificate, write_private
from swarm_agent.raft.driver import RaftNode
from swarm_agent.raft.files import OsFiles
from swarm_agent.store.store import Store
from swarm_agent.store.view import Change

from .management import ManagementServer
from .state import SavedState, StateFolder

log = logging.getLogger(__name__)


class RaftKeys(msgspec.Struct, frozen=True):
    """`raft-keys.json`: the keys that encrypt log and snapshots, hex. The first encrypts, all decrypt."""

    keys: list[str]


class _NoTransport:
    """Between managers; one manager alone has nobody to talk to."""

    def send(self, member_id: int, data: bytes) -> None:
        log.warning("no way to send %d bytes to raft member %d", len(data), member_id)


class ManagerRole:
    """One manager's parts. `start` returns when the store can be read on this node."""

    def __init__(
        self,
        folder: StateFolder,
        state: SavedState,
        certificate: NodeCertificate,
        *,
        liveness: Callable[[str], bool | None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._folder = folder
        self._state = state
        self._certificate = certificate
        self._liveness = liveness
        self._on_fatal = on_fatal
        self._raft: RaftNode | None = None
        self._store: Store | None = None
        self._leader: Leader | None = None
        self._server = ManagementServer(self)
        self._leadership = asyncio.Event()
        self._follow: asyncio.Task[None] | None = None

    @property
    def node_id(self) -> str:
        return self._state.node_id

    @property
    def store(self) -> Store:
        assert self._store is not None, "the manager is not started"
        return self._store

    @property
    def raft(self) -> RaftNode:
        assert self._raft is not None, "the manager is not started"
        return self._raft

    @property
    def is_leader(self) -> bool:
        return self._leader is not None

    @property
    def dispatcher(self) -> Dispatcher | None:
        return self._leader.dispatcher if self._leader is not None else None

    @property
    def leader_addr(self) -> str:
        """host:port of the leader's management plane, empty when unknown."""
        if self._raft is None or not self._raft.leader_id:
            return ""
        member = self._raft.membership.get(self._raft.leader_id)
        return member.address if member is not None else ""

    @property
    def cluster(self) -> Cluster | None:
        found = self.store.view().all(Cluster)
        return found[0] if found else None

    def managers(self) -> list[ManagerPeer]:
        """All managers in the store."""
        return [
            ManagerPeer(node.id, node.manager_status.addr)
            for node in self.store.view().all(Node)
            if node.manager_status is not None
        ]

    async def start(self, *, bootstrap: bool) -> None:
        """Open the log and serve the management plane. Raises OSError when the port is taken."""
        rng = random.Random(secrets.randbits(64))
        keys = await asyncio.to_thread(self._load_keys)
        store = Store()
        self._raft = await RaftNode.start(
            OsFiles(self._folder.raft),
            self._state.raft_id,
            keys,
            store,
            _NoTransport(),
            rng=rng,
            bootstrap=self._state.advertise_addr if bootstrap else None,
            fatal=self._on_fatal,
        )
        store.proposer = self._raft
        self._store = store
        store.subscribe(self._store_changed)
        self._raft.on_leadership(lambda is_leader: self._leadership.set())
        self._follow = asyncio.create_task(self._follow_leadership(), name="leadership")
        context = tls.server_context(self._certificate, self._folder.certificates)
        await self._server.start(self._state.listen, self._state.listen_port, context)

    @property
    def ready(self) -> bool:
        """True when the store holds the cluster."""
        return self._store is not None and self.cluster is not None

    async def raft_leads(self, timeout: float) -> None:
        """Return when this member leads its raft group, which the only member does at once. Raises TimeoutError."""
        leads: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.raft.on_leadership(lambda is_leader: None if leads.done() or not is_leader else leads.set_result(None))
        await asyncio.wait_for(leads, timeout)

    async def stop(self) -> None:
        """Stop in the order in which nothing is left that uses the next."""
        if self._follow is not None:
            self._follow.cancel()
            await asyncio.gather(self._follow, return_exceptions=True)
        await self._stop_leading()
        await self._server.stop()
        if self._raft is not None:
            await self._raft.stop()

    def _load_keys(self) -> list[bytes]:
        try:
            stored = msgspec.json.decode(self._folder.raft_key.read_bytes(), type=RaftKeys)
        except FileNotFoundError:
            stored = RaftKeys([secrets.token_hex(32)])
            write_private(self._folder.raft_key, msgspec.json.encode(stored))
        return [bytes.fromhex(key) for key in stored.keys]

    def _store_changed(self, changes: list[Change]) -> None:
        if any(change.kind is Cluster and change.old is None for change in changes):
            self._leadership.set()

    async def _follow_leadership(self) -> None:
        while True:
            try:
                # A cluster being founded has no objects yet: nothing to lead.
                if self.raft.is_leader and self._leader is None and self.cluster is not None:
                    await self._start_leading()
                elif not self.raft.is_leader and self._leader is not None:
                    await self._stop_leading()
            except Exception:
                log.exception("taking over or giving up leadership failed; trying again")
                await self._stop_leading()
                await asyncio.sleep(1)
                continue
            await self._leadership.wait()
            self._leadership.clear()

    async def _start_leading(self) -> None:
        leader = Leader(self.store, liveness=self._liveness, rng=random.SystemRandom())
        await leader.start()
        self._leader = leader
        log.info("this manager leads (raft member %d)", self._state.raft_id)

    async def _stop_leading(self) -> None:
        leader, self._leader = self._leader, None
        if leader is not None:
            await leader.stop()
            log.info("this manager no longer leads")
