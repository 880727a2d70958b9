"""A host that is in a cluster: all parts of a member, started and stopped in order.

Order of start: manager role (the store must be there before sessions come), worker (adopts what runs), session; gossip
and network with the first Welcome. A worker whose managers are all away still does everything it was told before.

The role follows the node object that comes with Welcome: a promoted node gets a manager's certificate, starts its
manager role and joins raft; a demoted one is taken out of raft by the leader first, then stops the role and becomes a
worker by its certificate too. A manager that came up at another address has the leader tell the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import random
import secrets
import socket
from collections.abc import Callable

import msgspec

from swarm_agent.model.encryption import described
from swarm_agent.model.errors import ClusterError
from swarm_agent.model.objects import Node, NodeDescription
from swarm_agent.model.session import Assignments, ManagerPeer, Welcome
from swarm_agent.network import wireguard
from swarm_agent.pki.files import NodeCertificate
from swarm_agent.worker.engine import Engine, EngineError
from swarm_agent.worker.worker import Worker

from .attachments import Attachments
from .certificates import CertificateHolder, renewal_time
from .data_plane import DataPlane
from .keys import NodeKeys
from .leader_client import LeaderClient
from .manager_role import ManagerRole
from .manager_routes import ApiHandler, RaftJoin
from .session import SessionClient
from .settings import Settings
from .state import SavedState, StateFolder
from .streams import EngineStreams

log = logging.getLogger(__name__)

ENGINE_RETRY = 0.5  # seconds between looks for an engine that is not there yet
ROLE_CHECK = 3600.0  # seconds at most between looks at the certificate's age
ROLE_RETRY = 1.0
REMOVAL_DOUBT = 1.5  # seconds that a manager's node object may know nothing of its raft membership
LEAVE_RAFT_TIMEOUT = 8.0  # seconds that a leaving manager waits to be let go
DESCRIBE_INTERVAL = 20.0  # seconds between looks at the engine's resources, labels and plugins; Swarm's period


ApiFactory = Callable[[ManagerRole], ApiHandler]
"""Makes the handler of forwarded API requests for a manager role; the API is a layer above."""


class Membership:
    """Everything a member runs. `manager` is None on workers."""

    def __init__(
        self,
        settings: Settings,
        folder: StateFolder,
        state: SavedState,
        certificate: NodeCertificate,
        engine: Engine,
        api: ApiFactory,
        *,
        lock: bytes | None = None,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.state = state
        self._folder = folder
        self.certificates = CertificateHolder(certificate, NodeKeys(folder, lock))
        self._api = api
        self._on_fatal = on_fatal
        self._rng = random.SystemRandom()
        self.data_plane = DataPlane(state, settings)
        self._description = NodeDescription()
        self.streams = EngineStreams(state.node_id, settings.engine_socket, self.certificates.client_context)
        self.session = SessionClient(
            advertise=state.advertise,
            managers=state.managers,
            context=self.certificates.client_context,
            describe=lambda: self._description,
            on_welcome=self._welcomed,
            on_assignments=self._assigned,
            on_state=self._session_changed,
            on_stream=self.streams.wanted,
            address_of=self.data_plane.address_of,
            alive=self.data_plane.liveness,
            leader=self._leader_by_raft,
            rng=self._rng,
        )
        self.worker = Worker(
            engine=engine,
            node_id=state.node_id,
            hostname=socket.gethostname(),
            run_dir=settings.run_dir,
            state_dir=folder.worker,
            networks=self.data_plane,
            endpoints=self.data_plane,
            report=self.session.report,
            resolvers=self.data_plane.resolvers,
        )
        self.leader = LeaderClient(self.certificates, self._likely_leaders)
        self.attachments = Attachments(engine, self.data_plane, self.leader.post, self.session.report)
        self.manager: ManagerRole | None = self._manager_role() if state.role == "manager" else None
        self._joined_raft = False
        self._doubt_since: float | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._role_wake = asyncio.Event()
        self._role_task: asyncio.Task[None] | None = None
        self._node = Node(id=state.node_id)
        # What the leader wants of this node's certificate.
        self._roots = self._issuer = ""
        self._renewal_wanted = False
        self._describing: asyncio.Task[None] | None = None
        self.welcomed = asyncio.Event()

    @property
    def node(self) -> Node:
        """This node's object as the leader last sent it."""
        return self._node

    def _likely_leaders(self) -> list[str]:
        """Addresses of managers, the one that raft takes for the leader first."""
        known = self._leader_by_raft()
        return [*([known] if known else []), *(peer.addr for peer in self.session.managers)]

    def _leader_by_raft(self) -> str:
        """Where a manager's own raft member takes the leader to be, "" when it knows none, and on workers."""
        return self.manager.leader_addr if self.manager is not None else ""

    def _manager_role(self) -> ManagerRole:
        role = ManagerRole(
            self._folder,
            self.state,
            self.certificates,
            liveness=self.data_plane.liveness,
            on_fatal=self._on_fatal,
            relocked=self._want_renewal,
            keys_settled=self.data_plane.all_hold,
        )
        role.api = self._api(role)
        return role

    async def start_manager(self, *, bootstrap: bool = False, force_new_cluster: bool = False) -> None:
        """Start the manager role, if any. Separate, because founding a cluster writes the first objects in between."""
        if self.manager is not None:
            await self.manager.start(bootstrap=bootstrap, force_new_cluster=force_new_cluster)
            self._joined_raft = self.manager.is_member

    async def resume_manager(self) -> None:
        """Start the manager role of an earlier process, if any. A manager whose log is gone comes back as a new member:
        under its old raft id it would vote as if it had never acknowledged anything, and the others could lose that.
        """
        if self.manager is not None and not await asyncio.to_thread(lambda: self._folder.has_log):
            log.warning("there is no raft log in %s; this manager joins anew as another member", self._folder.raft)
            self._remember(raft_id=secrets.randbits(63) | 1)
            self.manager = self._manager_role()
        await self.start_manager()

    async def join_raft(self) -> None:
        """Become a raft member: returns when this manager has the log and may vote."""
        await self.leader.post("/v1/raft/join", self._as_raft_member())
        self._joined_raft = True

    def _as_raft_member(self) -> bytes:
        return msgspec.json.encode(RaftJoin(raft_id=self.state.raft_id, address=self.state.advertise_addr))

    async def leave_raft(self) -> None:
        """Have the leader take this manager out of raft; returns when done. Raises ClusterError, TimeoutError."""
        manager = self.manager
        assert manager is not None
        await self.leader.post("/v1/raft/leave", b"")
        if self.manager is manager:  # else this node has followed already
            await manager.no_member(LEAVE_RAFT_TIMEOUT)

    async def start(self) -> None:
        """Start all that is not the manager role. Waits for the engine: a node without one can do nothing."""
        while True:
            try:
                self._description = await self._describe()
                break
            except EngineError as error:
                log.warning("the engine does not answer, trying again: %s", error)
                await asyncio.sleep(ENGINE_RETRY)
        await self.worker.start()
        self.attachments.start()
        self.session.start()
        self._describing = asyncio.create_task(self._watch_description(), name="describe")
        self._role_task = asyncio.create_task(self._keep_role(), name="role")

    async def remove_leftovers(self) -> None:
        """Take off this host what an earlier process ran for the cluster. For a member that cannot be started any
        more: it needs no certificate for that."""
        await self.worker.start()
        await self.worker.remove_all()
        await self.data_plane.remove_leftovers()

    async def stop(self, *, leave: bool = False) -> None:
        """Stop all parts. With `leave`, tasks are removed from this host too; otherwise containers go on running."""
        for task in (self._describing, self._role_task):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self.session.stop()
        await self.streams.stop()
        await self.attachments.stop()
        if leave:
            await self.worker.remove_all()
        await self.worker.stop()
        await self.data_plane.stop(leave=leave)
        if self.manager is not None:
            await self.manager.stop()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _welcomed(self, message: Welcome) -> None:
        self._node = message.node
        self._roots, self._issuer = message.root_ca, message.issuer
        self.worker.node(message.node)
        self.data_plane.welcome(message)
        self._remember_managers(message.managers)
        self.welcomed.set()
        self._role_wake.set()

    def _assigned(self, message: Assignments) -> None:
        self.worker.assign(self.attachments.assign(message))

    def _session_changed(self, connected: bool) -> None:
        log.info("session %s", "established" if connected else "lost")

    def _remember_managers(self, managers: list[ManagerPeer]) -> None:
        if managers and managers != self.state.managers:
            self._remember(managers=list(managers))

    # --- role and certificate ----------------------------------------------------------------------------------------

    async def _keep_role(self) -> None:
        """Follow the node object's role, and renew the certificate in time."""
        renew_at = renewal_time(self.certificates.present.cert, self._rng)
        while True:
            left = (renew_at - datetime.datetime.now(datetime.UTC)).total_seconds()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(left, ROLE_CHECK))):
                    await self._role_wake.wait()
            self._role_wake.clear()
            try:
                await self._settle_certificate(due=left <= 0)
                await self._settle_role()
            except (ClusterError, OSError, TimeoutError) as error:
                log.warning("role or certificate cannot be settled now: %s", error)
                await asyncio.sleep(ROLE_RETRY)
                self._role_wake.set()
            renew_at = renewal_time(self.certificates.present.cert, self._rng)

    def _want_renewal(self) -> None:
        """The key of the certificate should be a new one soon."""
        self._renewal_wanted = True
        self._role_wake.set()

    async def _settle_certificate(self, *, due: bool) -> None:
        """Trust the roots that the leader says, and have a certificate that is young enough and by the right root."""
        if self._roots and self._roots != self.certificates.present.root:
            await self.certificates.trust(self._roots)
            self._tell_description()
        wrong = self._issuer and self._issuer != self.certificates.tls_info.cert_issuer_public_key
        if due or wrong or self._renewal_wanted:
            self._renewal_wanted = False
            await self._renew()

    def _tell_description(self) -> None:
        tls_info = self.certificates.tls_info
        self._description = msgspec.structs.replace(self._description, tls_info=tls_info)
        self.session.description_changed()

    async def _renew(self) -> None:
        await self.certificates.replace(await self.leader.renew())
        self._tell_description()

    async def _settle_role(self) -> None:
        if not self.welcomed.is_set():
            return
        node = self._node
        if node.spec.role == "manager":
            if self.certificates.identity.role != "manager":
                await self._renew()
            if self._was_removed(node):
                await self._become_worker()
            if self.manager is None:
                await self._become_manager()
            if not self._joined_raft:
                await self.join_raft()
            elif self.manager is not None and self.manager.has_moved:
                await self.leader.post("/v1/raft/move", self._as_raft_member())
        elif not node.raft_id:
            if self.manager is not None:
                await self._become_worker()
            if self.certificates.identity.role != "worker":
                await self._renew()

    def _was_removed(self, node: Node) -> bool:
        """Demoted and promoted again before this node noticed: raft let it go, so it has to join anew, as a new member.

        The node object may also lag behind a join that has just succeeded, so the doubt has to last.
        """
        if not self._joined_raft or node.raft_id == self.state.raft_id:
            self._doubt_since = None
            return False
        loop = asyncio.get_running_loop()
        if self._doubt_since is None:
            self._doubt_since = loop.time()
            loop.call_later(REMOVAL_DOUBT, self._role_wake.set)
        return loop.time() - self._doubt_since >= REMOVAL_DOUBT

    async def _become_manager(self) -> None:
        log.info("this node becomes a manager")
        # A raft id is used once: what an earlier membership left on disk must not speak again.
        await asyncio.to_thread(self._folder.forget_raft)
        self._remember(role="manager", raft_id=secrets.randbits(63) | 1)
        role = self._manager_role()
        try:
            await role.start(bootstrap=False)
        except BaseException:
            await self._end(role)
            raise
        self.manager = role
        self._joined_raft = False

    async def _end(self, role: ManagerRole) -> None:
        """Stop a manager role to its end, also when this node is being stopped meanwhile: it holds port and log."""
        ending = asyncio.create_task(role.stop(), name="manager-role-stop")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        await asyncio.shield(ending)

    async def _become_worker(self) -> None:
        log.info("this node becomes a worker")
        role, self.manager = self.manager, None
        if role is not None:
            await self._end(role)
        self._joined_raft = False
        self._remember(role="worker", raft_id=0)
        await asyncio.to_thread(self._folder.forget_raft)
        if self.certificates.keys.lock is not None:
            await self.certificates.change_lock(None)  # only managers are locked

    def _remember(self, **changes: object) -> None:
        self.state = msgspec.structs.replace(self.state, **changes)
        self._folder.save(self.state)

    # --- description -------------------------------------------------------------------------------------------------

    async def _describe(self) -> NodeDescription:
        """What this node is: its engine's resources, what its kernel can do, and the root it trusts."""
        description = described(await self.worker.describe(), await asyncio.to_thread(wireguard.available))
        return msgspec.structs.replace(description, tls_info=self.certificates.tls_info)

    async def _watch_description(self) -> None:
        while True:
            await asyncio.sleep(DESCRIBE_INTERVAL)
            try:
                description = await self._describe()
            except EngineError as error:
                log.info("the engine does not tell about itself: %s", error)
                continue
            if description != self._description:
                self._description = description
                self.session.description_changed()
