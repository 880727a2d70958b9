"""A host that is in a cluster: all parts of a member, started and stopped in order.

Order of start: manager role (the store must be there before sessions come), gossip and network, worker (adopts what
runs), session. A worker whose managers are all away still does everything it was told before.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import socket
import ssl
from collections.abc import Callable

import msgspec

from swarm_agent.model.objects import Node, NodeDescription, NodeTLSInfo
from swarm_agent.model.session import Assignments, ManagerPeer, Welcome
from swarm_agent.pki import tls
from swarm_agent.pki.authority import issuer_info
from swarm_agent.pki.files import NodeCertificate
from swarm_agent.worker.engine import Engine, EngineError
from swarm_agent.worker.worker import Worker

from .data_plane import DataPlane
from .manager_role import ManagerRole
from .session import SessionClient
from .settings import Settings
from .state import SavedState, StateFolder

log = logging.getLogger(__name__)

ENGINE_RETRY = 0.5  # seconds between looks for an engine that is not there yet
DESCRIBE_INTERVAL = 20.0  # seconds between looks at the engine's resources, labels and plugins; Swarm's period


class Membership:
    """Everything a member runs. `manager` is None on workers."""

    def __init__(
        self,
        settings: Settings,
        folder: StateFolder,
        state: SavedState,
        certificate: NodeCertificate,
        engine: Engine,
        *,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.state = state
        self._folder = folder
        self._certificate = certificate
        self._rng = random.SystemRandom()
        self.data_plane = DataPlane(state, settings)
        self._description = NodeDescription()
        self.session = SessionClient(
            advertise=state.advertise,
            managers=state.managers,
            context=self._client_context,
            describe=lambda: self._description,
            on_welcome=self._welcomed,
            on_assignments=self._assigned,
            on_state=self._session_changed,
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
        )
        self.manager: ManagerRole | None = None
        if state.role == "manager":
            self.manager = ManagerRole(folder, state, certificate, liveness=self.data_plane.liveness, on_fatal=on_fatal)
        self._node = Node(id=state.node_id)
        self._describing: asyncio.Task[None] | None = None
        self.welcomed = asyncio.Event()

    @property
    def node(self) -> Node:
        """This node's object as the leader last sent it."""
        return self._node

    async def start_manager(self, *, bootstrap: bool) -> None:
        """Start the manager role, if any. Separate, because founding a cluster writes the first objects in between."""
        if self.manager is not None:
            await self.manager.start(bootstrap=bootstrap)

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
        self.session.start()
        self._describing = asyncio.create_task(self._watch_description(), name="describe")

    async def stop(self, *, leave: bool = False) -> None:
        """Stop all parts. With `leave`, tasks are removed from this host too; otherwise containers go on running."""
        if self._describing is not None:
            self._describing.cancel()
            await asyncio.gather(self._describing, return_exceptions=True)
        await self.session.stop()
        if leave:
            await self.worker.remove_all()
        await self.worker.stop()
        await self.data_plane.stop(leave=leave)
        if self.manager is not None:
            await self.manager.stop()

    def _client_context(self) -> ssl.SSLContext:
        return tls.client_context(self._certificate, self._folder.certificates)

    def _welcomed(self, message: Welcome) -> None:
        self._node = message.node
        self.worker.node(message.node)
        self.data_plane.welcome(message)
        self._remember_managers(message.managers)
        self.welcomed.set()

    def _assigned(self, message: Assignments) -> None:
        self.worker.assign(message)

    def _session_changed(self, connected: bool) -> None:
        log.info("session %s", "established" if connected else "lost")

    def _remember_managers(self, managers: list[ManagerPeer]) -> None:
        if managers and managers != self.state.managers:
            self.state = msgspec.structs.replace(self.state, managers=list(managers))
            self._folder.save(self.state)

    async def _describe(self) -> NodeDescription:
        """What this node is: its engine's resources, and the root it trusts."""
        subject, key = issuer_info(self._certificate.root)
        tls_info = NodeTLSInfo(
            trust_root=self._certificate.root,
            cert_issuer_subject=base64.b64encode(subject).decode(),
            cert_issuer_public_key=base64.b64encode(key).decode(),
        )
        return msgspec.structs.replace(await self.worker.describe(), tls_info=tls_info)

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
