"""This host's relation to a cluster: outside, joining, inside; what `docker swarm init`, `join` and `leave` do to it.

| from | by | to |
|---|---|---|
| inactive | init, join | pending, then active; back to inactive, without a trace, when it fails |
| inactive | start with saved state | pending until the first session, then active |
| active | leave | inactive |
| inactive | start with keys that are locked (autolock) | locked |
| locked | unlock | as a start with saved state |
| any | a part fails for good | error |
"""

from __future__ import annotations

import asyncio
import datetime
import enum
import logging
import random
import secrets
import socket
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from msgspec.structs import replace

from swarm_agent.manager.control import cluster as cluster_control
from swarm_agent.manager.control import roots
from swarm_agent.model import errors
from swarm_agent.model.errors import BadRequest, ClusterError, Conflict, InvalidArgument, Unauthorized, Unavailable
from swarm_agent.model.ids import new_id
from swarm_agent.model.objects import Cluster, NodeDescription
from swarm_agent.model.requests import InitRequest, JoinRequest, RestoreRequest
from swarm_agent.model.session import ManagerPeer
from swarm_agent.model.specs import EncryptionConfig
from swarm_agent.network.report import MeshReport
from swarm_agent.pki import authority, locking, tls
from swarm_agent.pki.authority import Authority, Identity
from swarm_agent.pki.files import NodeCertificate
from swarm_agent.store.tx import Tx
from swarm_agent.worker.engine import Engine

from . import addresses, backup, founding, whereabouts
from .addresses import Resolved
from .admission import request_admission
from .attachments import Attachments
from .introspection import Introspection
from .keys import is_locked, opens
from .manager_role import ManagerRole
from .membership import ApiFactory, Membership
from .settings import Settings
from .signing import sign
from .state import SavedState, StateFolder

log = logging.getLogger(__name__)

READY_TIMEOUT = 20.0  # seconds for init and join to become ready, as in Swarm
JOIN_TIMEOUT_TEXT = (
    "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. "
    'Use the "docker info" command to see the current swarm status of your node.'
)


class LocalState(enum.StrEnum):
    """As /info's LocalNodeState."""

    INACTIVE = "inactive"
    PENDING = "pending"
    ACTIVE = "active"
    ERROR = "error"
    LOCKED = "locked"


class ClusterNode:
    """The front door's view of this host, and the owner of its membership."""

    def __init__(
        self, settings: Settings, engine: Engine, *, api: ApiFactory, on_fatal: Callable[[BaseException], None]
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._api = api
        self._on_fatal = on_fatal
        self._folder = StateFolder(settings.state_dir)
        self._membership: Membership | None = None
        self._locked: SavedState | None = None  # of a manager that waits for its unlock key
        self._changing = asyncio.Lock()
        self._starting: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._rng = random.SystemRandom()
        self._failure = ""
        self.introspection = Introspection(lambda: self._membership, lambda: str(self.local_state))

    # --- what the front door asks -----------------------------------------------------------------------------------

    @property
    def error(self) -> str:
        """Why this host's membership does not work, with what to do; empty while it does."""
        if not self._failure and self._membership is not None and self._membership.certificates.expired:
            return errors.CERTIFICATES_EXPIRED
        return self._failure

    @property
    def local_state(self) -> LocalState:
        if self.error:
            return LocalState.ERROR
        if self._locked is not None:
            return LocalState.LOCKED
        if self._membership is None:
            return LocalState.INACTIVE
        return LocalState.ACTIVE if self._membership.welcomed.is_set() else LocalState.PENDING

    @property
    def node_id(self) -> str:
        return self._membership.state.node_id if self._membership is not None else ""

    @property
    def node_addr(self) -> str:
        return self._membership.state.advertise if self._membership is not None else ""

    @property
    def is_manager(self) -> bool:
        return self._membership is not None and self._membership.manager is not None

    def remote_managers(self) -> list[ManagerPeer]:
        return self._membership.session.managers if self._membership is not None else []

    def manager(self) -> ManagerRole:
        """This host's manager role. Raises Unavailable, with Swarm's words, when it has none that works now."""
        if self._locked is not None:
            raise Unavailable(errors.SWARM_LOCKED)
        if self._membership is None:
            raise Unavailable(self._failure or errors.NOT_IN_SWARM)
        if self._membership.manager is None:
            raise Unavailable(self.error or errors.NOT_A_MANAGER)
        if not self._membership.manager.ready:
            raise Unavailable(self.error or errors.MANAGER_NOT_READY)
        return self._membership.manager

    async def ask_leader(self, data: bytes) -> bytes:
        """Carry out an encoded API request on the leader. Raises ClusterError."""
        if self._membership is None:
            raise Unavailable(errors.NOT_IN_SWARM)
        return await self._membership.leader.post("/v1/api", data)

    @property
    def attachments(self) -> Attachments | None:
        """Places on cluster networks for plain containers; None outside a cluster."""
        return self._membership.attachments if self._membership is not None else None

    async def connect_engine(self, node_id: str) -> socket.socket:
        """A connection to the engine of any node of the cluster, from a manager. Raises Unavailable."""
        membership = self._membership
        if membership is None or membership.manager is None:
            raise Unavailable(errors.NOT_IN_SWARM if membership is None else errors.NOT_A_MANAGER)
        if node_id == membership.state.node_id:
            try:
                return await membership.streams.own()
            except OSError as error:
                raise Unavailable(f"node {node_id} is not available: {error}") from error
        manager = membership.manager
        if manager.is_leader:
            return await manager.streams.open(node_id, lambda: manager.dispatcher)
        return await membership.streams.through(manager.leader_addr, node_id)

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up the membership that the state folder tells of, if any. The parts start on their own."""
        self.introspection.lag.start()
        self._looking = asyncio.create_task(self._look_for_moves(), name="whereabouts")
        state = await asyncio.to_thread(self._folder.load)
        if state is None:
            return
        if await asyncio.to_thread(is_locked, self._folder):
            self._locked = state
            log.info("this manager's keys are locked; `docker swarm unlock` with the cluster's unlock key goes on")
            return
        await self._take_up(state, None)

    async def _take_up(self, state: SavedState, lock: bytes | None) -> None:
        certificate = await asyncio.to_thread(NodeCertificate.load, self._folder.certificates, lock)
        if certificate is None:
            self._failure = f"the node's certificate in {self._folder.certificates} is missing or incomplete"
            return
        membership = self._member(state, certificate, lock)
        self._membership = membership
        self._starting = asyncio.create_task(self._resume(membership), name="resume")

    async def _resume(self, membership: Membership) -> None:
        try:
            await membership.resume_manager()
            await membership.start()
        except Exception as error:
            log.exception("this node cannot take up its membership")
            self._failure = str(error) or type(error).__name__

    async def unlock(self, text: str) -> None:
        """Go on with the cluster's unlock key; returns when this manager runs, or soon after it could not. Raises
        Unauthorized for another key, Conflict when nothing is locked, Unavailable outside a cluster."""
        async with self._changing:
            if self._locked is None:
                self.manager()  # a worker, or a manager that is not ready, says so
                raise Conflict(errors.NOT_LOCKED)
            lock = locking.parse_unlock_key(text)
            if lock is None or not await asyncio.to_thread(opens, self._folder, lock):
                raise Unauthorized(errors.WRONG_UNLOCK_KEY)
            state, self._locked = self._locked, None
            await self._take_up(state, lock)
            if self._starting is not None:
                await asyncio.wait([self._starting], timeout=READY_TIMEOUT)
            if self._failure:
                raise Unavailable(self._failure)

    async def stop(self) -> None:
        """Stop the agent's parts; containers go on running."""
        self.introspection.lag.stop()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        if self._membership is not None:
            await self._end(self._membership)

    async def _end(self, membership: Membership, *, leave: bool = False) -> None:
        """Stop a membership. What is still taking it up ends first, or it would start parts behind our back."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await membership.stop(leave=leave)

    async def _look_for_moves(self) -> None:
        """Go on at another address when the one that this node advertises is no longer this host's."""
        last, times = "", 0
        while True:
            await asyncio.sleep(whereabouts.LOOK)
            membership = self._membership
            address = await whereabouts.new_address(membership.state, self._engine) if membership is not None else ""
            last, times = address, times + 1 if address == last else 1
            if not address or times < whereabouts.SURE:
                continue
            times = 0
            try:
                async with self._changing:
                    if self._membership is membership and membership is not None:
                        await self._move(membership, address)
            except Exception:  # this look must not be the last one
                log.exception("this node could not go on at its new address %s", address)

    async def _move(self, membership: Membership, address: str) -> None:
        state = whereabouts.moved(membership.state, address)
        log.warning("this host's address is no longer %s; going on as %s", membership.state.advertise, address)
        await self._end(membership)
        await asyncio.to_thread(self._folder.save, state)
        self._failure = ""
        await self._take_up(state, membership.certificates.keys.lock)

    async def init(self, request: InitRequest) -> str:
        """Found a cluster with this host as its first manager; returns the node id.

        Raises BadRequest on bad addresses, pools or specs, Unavailable inside a cluster. A failure leaves no trace.
        """
        async with self._changing:
            if request.force_new_cluster and (self._membership is not None or self._locked is not None):
                return await self._force_new_cluster()
            self._check_outside()
            pools, size = founding.check_pools(request.default_addr_pool, request.subnet_size)
            port = founding.check_data_path_port(request.data_path_port)
            availability = founding.check_availability(request.availability)
            spec = cluster_control.complete_spec(request.spec)
            if request.auto_lock_managers:
                spec = replace(spec, encryption_config=EncryptionConfig(auto_lock_managers=True))
            unlock_key = cluster_control.next_unlock_key(spec.encryption_config.auto_lock_managers, self._rng)
            lock = locking.parse_unlock_key(unlock_key)
            where = await self._resolve(request)
            node_id, cluster_id = new_id(self._rng), new_id(self._rng)
            now = datetime.datetime.now(datetime.UTC)
            brought = roots.checked_root(spec.ca_config, now)
            root = brought if brought is not None else await asyncio.to_thread(Authority.create, now)
            if not root.key:
                raise InvalidArgument("a cluster is founded with a CA certificate and its key, not with one alone")
            identity = Identity(node_id, "manager", cluster_id)
            certificate = await asyncio.to_thread(founding.first_certificate, root, identity, now)
            state = whereabouts.first_manager(where, node_id, cluster_id)
            await asyncio.to_thread(certificate.save, self._folder.certificates, lock)
            membership = self._member(state, certificate, lock)
            first = founding.found(
                cluster_id=cluster_id,
                node_id=node_id,
                network_id=new_id(self._rng),
                spec=spec,
                pools=pools,
                subnet_size=size,
                data_path_port=port,
                availability=availability,
                advertise=where.advertise,
                manager_addr=where.advertise_addr,
                description=NodeDescription(hostname=socket.gethostname()),
                authority=root,
                unlock_key=unlock_key,
                gossip_keys=[secrets.token_bytes(32) for _ in range(founding.GOSSIP_KEYS)],
                raft_id=state.raft_id,
                rng=self._rng,
            )
            await self._enter(membership, lambda: self._found(membership, first))
            return node_id

    async def _found(self, membership: Membership, first: founding.Founding) -> None:
        await membership.start_manager(bootstrap=True)
        manager = membership.manager
        assert manager is not None
        await manager.raft_leads(READY_TIMEOUT)
        await manager.store.update(lambda tx: [tx.create(obj) for obj in (first.cluster, first.node, first.ingress)])
        await membership.start()
        async with asyncio.timeout(READY_TIMEOUT):
            await membership.welcomed.wait()

    async def _force_new_cluster(self) -> str:
        """Make this manager the only one of its cluster, with all state that it has. The way out of a lost quorum."""
        membership = self._membership
        if self._locked is not None:
            raise Unavailable(errors.SWARM_LOCKED)
        if membership is None or membership.manager is None:
            raise Unavailable(errors.NOT_A_MANAGER)
        await self._end(membership)
        certificates = membership.certificates
        fresh = self._member(membership.state, certificates.present, certificates.keys.lock)
        self._membership = fresh
        await self._go_on_alone(fresh, lambda tx: founding.sole_manager(tx, fresh.state.node_id))
        return fresh.state.node_id

    async def mesh_report(self) -> MeshReport:
        """What this host balances. Raises Unavailable outside a cluster and before the data plane has started."""
        if self._membership is None:
            raise Unavailable(errors.NOT_IN_SWARM)
        return await self._membership.data_plane.mesh_report()

    async def save_snapshot(self, secret: bytes) -> AsyncGenerator[bytes, None]:
        """A backup of the cluster as a file's pieces, see backup.py. Raises ClusterError."""
        return await backup.save(self.manager(), secret)

    async def restore(self, request: RestoreRequest, secret: bytes) -> str:
        """Found the cluster of a backup again, with this host as its only manager; returns the node id. Raises
        BadRequest, Unavailable inside a cluster. A failure leaves no trace."""
        async with self._changing:
            self._check_outside()
            head, view, parts = await asyncio.to_thread(backup.load, Path(request.path), secret)
            cluster = view.all(Cluster)[0]
            where = await self._resolve(request)
            hostname = socket.gethostname()
            node_id = backup.identity_for(view, hostname, new_id(self._rng))
            key = await asyncio.to_thread(authority.new_key)
            identity = Identity(node_id, "manager", cluster.id)
            now = datetime.datetime.now(datetime.UTC)
            cert = await sign(cluster, authority.new_signing_request(key), identity, now, tls.root_only_context)
            certificate = NodeCertificate(cluster.trust_bundle, cert, key)
            state = whereabouts.first_manager(where, node_id, cluster.id)
            lock = locking.parse_unlock_key(cluster.unlock_key)
            membership = self._member(state, certificate, lock)
            keys = membership.certificates.keys

            async def steps() -> None:
                await asyncio.to_thread(keys.save_certificate, certificate)
                raft_keys = await asyncio.to_thread(keys.raft_keys)
                await asyncio.to_thread(backup.lay_down, self._folder, raft_keys.raw, head, parts, state)
                await self._go_on_alone(membership, lambda tx: backup.take_over(tx, state, hostname))

            await self._enter(membership, steps)
            log.info("cluster %s restored from the snapshot of %s", cluster.id, head.created)
            return node_id

    async def _go_on_alone(self, membership: Membership, change: Callable[[Tx], None]) -> None:
        """Start a manager as the only one of the cluster on its disk, and write that down."""
        await membership.start_manager(force_new_cluster=True)
        manager = membership.manager
        assert manager is not None
        await manager.raft_leads(READY_TIMEOUT)
        await manager.store.update(change)
        await membership.start()
        async with asyncio.timeout(READY_TIMEOUT):
            await membership.welcomed.wait()

    async def join(self, request: JoinRequest) -> None:
        """Join a cluster with a token. Raises with Swarm's texts; a failure leaves no trace."""
        async with self._changing:
            self._check_outside()
            if not request.remote_addrs or not request.remote_addrs[0]:
                raise BadRequest("at least 1 RemoteAddr is required to join")
            availability = founding.check_availability(request.availability)
            remote = self._remote(request.remote_addrs[0])
            where = await whereabouts.resolve_joining(
                request.listen_addr,
                request.advertise_addr,
                request.data_path_addr,
                remote,
                self._engine,
                self._settings.management_port,
            )
            admission = await request_admission(remote, request.join_token, availability, socket.gethostname())
            state = whereabouts.state_at(
                where,
                node_id=admission.node_id,
                cluster_id=admission.cluster_id,
                role=admission.role,
                managers=[ManagerPeer("", admission.manager)],
                raft_id=secrets.randbits(63) | 1 if admission.role == "manager" else 0,
            )
            await asyncio.to_thread(admission.certificate.save, self._folder.certificates)
            membership = self._member(state, admission.certificate)
            await self._enter(membership, lambda: self._join(membership))

    async def _join(self, membership: Membership) -> None:
        await membership.start_manager()
        if membership.manager is not None:
            await membership.join_raft()
        await membership.start()
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                await membership.welcomed.wait()
        except TimeoutError:
            raise Unavailable(JOIN_TIMEOUT_TEXT) from None

    async def leave(self, force: bool) -> None:
        """Leave the cluster: tasks end, the state folder is emptied. Raises Unavailable with Swarm's warnings."""
        async with self._changing:
            membership = self._membership
            if self._locked is not None and not force:
                raise Unavailable(errors.LEAVE_LOCKED)
            if membership is None and self._locked is None and not self._failure:
                raise Unavailable(errors.NO_SWARM)
            if membership is not None and membership.manager is not None and not force:
                raise Unavailable(membership.manager.leave_warning())
            if membership is not None and membership.manager is not None:
                await self._resign(membership)
            unable = await asyncio.to_thread(self._folder.load) if membership is None else None
            if unable is not None:  # it is locked, or has no certificate
                await self._member(replace(unable, role="worker"), NodeCertificate("", "", "")).remove_leftovers()
            self._membership = self._locked = None
            self._failure = ""
            if membership is not None:
                await self._end(membership, leave=True)
            await asyncio.to_thread(self._folder.forget)
            log.info("this node left its cluster")

    async def _resign(self, membership: Membership) -> None:
        """A manager that leaves lets the others know, so that their quorum shrinks with it. Best effort: it may be the
        only one, or the last that works."""
        manager = membership.manager
        if manager is None or not manager.ready or len(manager.managers()) < 2:
            return
        try:
            await membership.leave_raft()
        except (ClusterError, TimeoutError) as error:
            log.warning("leaving without having been let go by the other managers: %s", error)

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _check_outside(self) -> None:
        if self._membership is not None or self._locked is not None or self._failure:
            raise Unavailable(errors.SWARM_EXISTS)

    def _member(self, state: SavedState, certificate: NodeCertificate, lock: bytes | None = None) -> Membership:
        return Membership(
            self._settings,
            self._folder,
            state,
            certificate,
            self._engine,
            self._api,
            lock=lock,
            on_fatal=self._on_fatal,
        )

    async def _enter(self, membership: Membership, steps: Callable[[], object]) -> None:
        """Run the steps that make this host a member; undo everything when one fails."""
        self._membership = membership
        try:
            await steps()  # type: ignore[misc]
            await asyncio.to_thread(self._folder.save, membership.state)
        except BaseException as error:
            log.warning("becoming a member failed: %s", error)
            self._membership = None
            await membership.stop(leave=True)
            await asyncio.to_thread(self._folder.forget)
            if isinstance(error, ClusterError | asyncio.CancelledError):
                raise
            if isinstance(error, OSError):
                raise BadRequest(f"could not listen on {membership.state.listen}: {error.strerror or error}") from error
            raise ClusterError(f"this node could not become a member: {error}") from error

    async def _resolve(self, request: InitRequest | RestoreRequest) -> Resolved:
        return await whereabouts.resolve(
            request.listen_addr,
            request.advertise_addr,
            request.data_path_addr,
            self._engine,
            self._settings.management_port,
        )

    def _remote(self, text: str) -> str:
        try:
            host, port = addresses.split_host_port(text)
        except ValueError:
            host, port = text.strip("[]"), self._settings.management_port
        return addresses.join_host_port(host, port)
