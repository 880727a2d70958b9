"""What a manager runs beside its worker: raft member, store, management plane and, while it leads, the control loops.

The control loops and the dispatcher live exactly as long as this manager leads. Leadership comes and goes by raft's
word; one task starts and stops them in order, so a quick change back and forth cannot leave two sets running.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import ssl
from collections.abc import Callable, Container, Sequence

from swarm_agent.manager.dispatcher import Dispatcher
from swarm_agent.manager.events import History
from swarm_agent.manager.leader import Leader
from swarm_agent.model.errors import ClusterError
from swarm_agent.model.objects import Cluster, Node
from swarm_agent.model.session import ManagerPeer
from swarm_agent.model.specs import RaftConfig
from swarm_agent.pki import tls
from swarm_agent.raft.driver import RaftNode
from swarm_agent.raft.files import OsFiles
from swarm_agent.raft.messages import Membership
from swarm_agent.raft.settings import Settings
from swarm_agent.store.store import Store
from swarm_agent.store.view import Change

from .certificates import CertificateHolder
from .gossip_keys import GossipKeys
from .lock_keeper import LockKeeper
from .management import ManagementServer
from .manager_routes import ApiHandler
from .peers import PeerTransport
from .role_keeper import UNREACHABLE, RoleKeeper, can_remove
from .signing import reaches
from .state import SavedState, StateFolder
from .streams import StreamBroker

log = logging.getLogger(__name__)

HAND_OVER_TIMEOUT = 3.0  # seconds that an orderly stop waits for a successor


def raft_settings(spec: RaftConfig) -> Settings:
    """What the cluster's spec sets of raft (API: Spec.Raft). An election time-out too short for the beat is raised."""
    defaults = Settings()
    heartbeat = spec.heartbeat_tick or defaults.heartbeat_ticks
    return Settings(
        heartbeat_ticks=heartbeat,
        election_ticks=max(spec.election_tick or defaults.election_ticks, 3 * heartbeat),
        snapshot_interval=spec.snapshot_interval or defaults.snapshot_interval,
        keep_entries=spec.log_entries_for_slow_followers or defaults.keep_entries,
        keep_snapshots=spec.keep_old_snapshots or 0,
    )


def leave_warning(reachable: int, unreachable: int) -> str:
    """Swarm's words for a manager that leaves without --force a cluster of so many managers, itself included; of one
    that does not know how many there are (0), as it does not work.
    """
    text = "You are attempting to leave the swarm on a node that is participating as a manager. "
    if not reachable + unreachable:
        text += "Doing so may lose the consensus of your cluster. "
    elif reachable + unreachable == 1:
        return text + (
            "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
        )
    elif reachable - 2 <= unreachable:  # Swarm's rule: a leaving manager still counts among those that must agree
        text += (
            f"Removing this node leaves {reachable - 1} managers out of {reachable + unreachable}. "
            "Without a Raft quorum your swarm will be inaccessible. "
        )
    return text + (
        "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. "
        "Use `--force` to suppress this message."
    )


class ManagerRole:
    """One manager's parts. `start` returns when the store can be read on this node."""

    def __init__(
        self,
        folder: StateFolder,
        state: SavedState,
        certificates: CertificateHolder,
        *,
        liveness: Callable[[str], bool | None],
        on_fatal: Callable[[BaseException], None],
        relocked: Callable[[], None] = lambda: None,
        keys_settled: Callable[[Sequence[bytes], Container[str]], bool] = lambda keys, nodes: False,
    ) -> None:
        self._folder = folder
        self._state = state
        self._certificates = certificates
        self._liveness = liveness
        self._on_fatal = on_fatal
        self._relocked = relocked
        self._keys_settled = keys_settled
        self._gossip_keys: GossipKeys | None = None
        self._locks: LockKeeper | None = None
        self._raft: RaftNode | None = None
        self._store: Store | None = None
        self._history: History | None = None
        self._leader: Leader | None = None
        self._roles: RoleKeeper | None = None
        self.transport = PeerTransport(
            state.raft_id, state.advertise_addr, self._address_of, certificates.client_context
        )
        self.api: ApiHandler | None = None
        self._server = ManagementServer(self)
        self._leadership = asyncio.Event()
        self._follow: asyncio.Task[None] | None = None

    @property
    def node_id(self) -> str:
        return self._state.node_id

    @property
    def cluster_id(self) -> str:
        return self._state.cluster_id

    @property
    def store(self) -> Store:
        assert self._store is not None, "the manager is not started"
        return self._store

    @property
    def history(self) -> History:
        """The cluster's last events."""
        assert self._history is not None, "the manager is not started"
        return self._history

    @property
    def raft(self) -> RaftNode:
        assert self._raft is not None, "the manager is not started"
        return self._raft

    @property
    def is_leader(self) -> bool:
        return self._leader is not None

    @property
    def streams(self) -> StreamBroker:
        """Opens streams to nodes' engines while this manager leads."""
        return self._server.streams

    @property
    def dispatcher(self) -> Dispatcher | None:
        return self._leader.dispatcher if self._leader is not None else None

    @property
    def leader_addr(self) -> str:
        """host:port of the leader's management plane, empty when unknown."""
        if self._raft is None or not self._raft.leader_id:
            return ""
        if self._raft.leader_id == self._state.raft_id:
            return self._state.advertise_addr  # the log may still have the address from before a move
        return self.transport.address_of(self._raft.leader_id)

    def _address_of(self, member_id: int) -> str:
        member = self._raft.membership.get(member_id) if self._raft is not None else None
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

    async def start(self, *, bootstrap: bool, force_new_cluster: bool = False) -> None:
        """Open the log and serve the management plane. Raises OSError when the port is taken.

        `bootstrap`: this is the first member of a new cluster. `force_new_cluster`: it shall be the only member of the
        cluster whose state is on its disk.
        """
        rng = random.Random(secrets.randbits(64))
        keys = (await asyncio.to_thread(self._certificates.keys.raft_keys)).raw
        store = Store()
        self._raft = await RaftNode.start(
            OsFiles(self._folder.raft),
            self._state.raft_id,
            keys,
            store,
            self.transport,
            rng=rng,
            bootstrap=self._state.advertise_addr if bootstrap or force_new_cluster else None,
            force_new_cluster=force_new_cluster,
            fatal=self._on_fatal,
        )
        store.proposer = self._raft
        self._store = store
        self._history = History(store)
        store.subscribe(self._store_changed)
        for cluster in store.view().all(Cluster):  # what a snapshot brought
            self._raft.configure(raft_settings(cluster.spec.raft))
        self._raft.on_leadership(lambda is_leader: self._leadership.set())
        self._follow = asyncio.create_task(self._follow_leadership(), name="leadership")
        self._raft.on_membership(lambda members: self.transport.keep({member.id for member in members.members}))
        self._locks = LockKeeper(store, self._raft, self._certificates, relocked=self._relocked)
        await self._locks.start()
        context = self._certificates.server_context()
        await self._server.start(self._state.listen, self._state.listen_port, context)

    def external_context(self, root: str) -> ssl.SSLContext:
        """For talking to an external certificate authority under that root."""
        return tls.external_context(self._certificates.present, root)

    async def reaches_external(self, root: str, urls: Sequence[str]) -> bool:
        """Whether one of these certificate authorities is there and under that root."""
        return await reaches(urls, self.external_context(root))

    @property
    def ready(self) -> bool:
        """True when the store holds the cluster."""
        return self._store is not None and self.cluster is not None

    @property
    def is_member(self) -> bool:
        """True when this node's raft has a log with itself in it: it needs not join again."""
        return self.raft.membership.get(self._state.raft_id) is not None

    @property
    def has_moved(self) -> bool:
        """True while the members know this manager under another address than it has."""
        member = self.raft.membership.get(self._state.raft_id)
        return member is not None and member.address != self._state.advertise_addr

    def is_raft_member(self, node_id: str) -> bool:
        """Whether raft counts the node among its members."""
        node = self.store.view().get(Node, node_id)
        return node is not None and node.raft_id != 0 and self.raft.membership.get(node.raft_id) is not None

    def can_remove(self, node_id: str) -> bool:
        """Whether enough managers that answer are left without this one, as the leader sees it."""
        node = self.store.view().get(Node, node_id)
        return node is None or not node.raft_id or can_remove(node.raft_id, self.raft.status())

    def leave_warning(self) -> str:
        """Swarm's words for a manager that leaves without --force."""
        if not self.ready:
            return leave_warning(0, 0)
        known = [node.manager_status for node in self.store.view().all(Node) if node.manager_status is not None]
        unreachable = sum(status.reachability == UNREACHABLE for status in known)
        return leave_warning(len(known) - unreachable, unreachable)

    async def no_member(self, timeout: float) -> None:
        """Return when this node has been removed from raft. Raises TimeoutError."""
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def changed(membership: Membership) -> None:
            if membership.get(self._state.raft_id) is None and not gone.done():
                gone.set_result(None)

        deaf = self.raft.on_membership(changed)
        try:
            async with asyncio.timeout(timeout):
                await gone
        finally:
            deaf()

    async def raft_leads(self, timeout: float) -> None:
        """Return when this member leads its raft group, which the only member does at once. Raises TimeoutError."""
        leads: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        deaf = self.raft.on_leadership(
            lambda is_leader: None if leads.done() or not is_leader else leads.set_result(None)
        )
        try:
            async with asyncio.timeout(timeout):
                await leads
        finally:
            deaf()

    async def stop(self) -> None:
        """Stop in the order in which nothing is left that uses the next."""
        await self._hand_over()
        if self._follow is not None:
            self._follow.cancel()
            await asyncio.gather(self._follow, return_exceptions=True)
        await self._stop_leading()
        if self._locks is not None:
            await self._locks.stop()
        await self._server.stop()
        if self._raft is not None:
            await self._raft.stop()
        await self.transport.stop()

    async def _hand_over(self) -> None:
        """A leader that stops in order lets another lead at once, instead of letting the others find out."""
        if self._raft is None or not self._raft.is_leader or len(self._raft.membership.voters) < 2:
            return
        try:
            async with asyncio.timeout(HAND_OVER_TIMEOUT):
                await self._raft.members.transfer_leadership()
        except (ClusterError, TimeoutError) as error:
            log.info("leadership could not be handed over: %s", error)

    def _store_changed(self, changes: list[Change]) -> None:
        for change in changes:
            if change.kind is Cluster and change.new is not None:
                self.raft.configure(raft_settings(change.new.spec.raft))
                if change.old is None:
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
        self._roles = RoleKeeper(self.store, self.raft)
        await self._roles.start()
        self._gossip_keys = GossipKeys(self.store, self._settled_on)
        await self._gossip_keys.start()
        log.info("this manager leads (raft member %d)", self._state.raft_id)

    def _settled_on(self, keys: Sequence[bytes]) -> bool:
        return self._keys_settled(keys, {node.id for node in self.store.view().all(Node)})

    async def _stop_leading(self) -> None:
        leader, self._leader = self._leader, None
        roles, self._roles = self._roles, None
        gossip_keys, self._gossip_keys = self._gossip_keys, None
        if gossip_keys is not None:
            await gossip_keys.stop()
        if roles is not None:
            await roles.stop()
        if leader is not None:
            await leader.stop()
            log.info("this manager no longer leads")
