"""The driver of the data plane: takes tables, plans, applies, looks after the result, tells what has been applied.

One task does all the work, a round at a time: plan (pure), engine networks (engine API), kernel and iptables (in a
thread). Any number of updates that come during a round make one next round. Between rounds it checks every second
whether others changed anything of ours (watch.py), and puts it back: rules flushed by a firewall, links deleted.

A round that fails in part is tried again soon; what could be done is done. A generation counts as applied only when
its round had no failure in the kernel or iptables, so a node acknowledges rows only when packets really follow them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Protocol

from swarm_agent.model.encryption import is_encrypted

from . import conntrack, ipv6, ipvs_netlink, netlink, wireguard
from .choice import AUTO, choose
from .diff import kernel_operations, network_operations
from .drain import Draining, OwnedRow, advance, stale_connections
from .engine import EngineNetworks, EngineRefused, EngineUnavailable
from .firewall import Firewall
from .frontends import Balancer
from .iptables import IptablesBalancer
from .ipvs_netlink import IpvsWatch
from .memory import SETTLE, is_settled, load, save, with_memory
from .netlink import Failure
from .operations import executor, summary
from .parts import Memory
from .plan import plan
from .report import MeshReport, frontends
from .sealing import LACKING
from .state import (
    CreateNetwork,
    EngineNetwork,
    IpvsOperation,
    KernelState,
    Operation,
    RemoveNetwork,
    Restore,
    WireGuardOperation,
)
from .tables import HostFacts, NetworkTables, NetworkUnavailable, duals_of, is_overlay
from .watch import Watch

log = logging.getLogger("swarm.network")

CHECK_PERIOD = 1.0  # seconds between cheap checks whether anything was changed by others
ENGINE_PAUSE = 3.0  # seconds that an engine which did not answer is left alone
LOOK_PERIOD = 60.0  # seconds between looks at everything
RETRY_FIRST = 0.1  # seconds until a failed round is tried again; doubles up to CHECK_PERIOD
REMOVE_TIMEOUT = 20.0  # seconds that leaving waits until all is gone
ATTACH_TIMEOUT = 20.0  # seconds that a task waits for its network


class NetworkEngine(Protocol):
    """What the manager needs of an engine (engine.EngineNetworks)."""

    async def list(self) -> dict[str, EngineNetwork]: ...

    async def create(self, network: EngineNetwork) -> EngineNetwork: ...

    async def remove(self, network: EngineNetwork, force: bool) -> None: ...

    async def close(self) -> None: ...


class NetworkManager:
    """The data plane of one host while it is in a cluster."""

    def __init__(
        self,
        *,
        node_id: str,
        underlay: str,
        data_path_port: int = 4789,
        engine_socket: str = "/run/docker.sock",
        engine: NetworkEngine | None = None,
        balancer: str = AUTO,
        on_applied: Callable[[int], None] | None = None,
        memory: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_applied(generation)` is called in the event loop each time a newer generation is in the kernel.

        `balancer`: "ipvs", "iptables", or "auto": IPVS where the kernel has it (choice.py).
        `memory`: a file below /run in which tables outlive a restart of the agent (memory.py), and beside which this
        host's WireGuard key is kept.
        """
        self._memory = memory
        self._key_file = memory.with_suffix(".key") if memory is not None else None
        self._private_key = b""
        self._remembered: NetworkTables | None = None
        self._settle_until = 0.0
        self._saved: NetworkTables | None = None
        self._facts = HostFacts(node_id, underlay, port=data_path_port)
        self._engine: NetworkEngine = engine or EngineNetworks(engine_socket)
        self._wanted_balancer = balancer
        self._balancer: Balancer = IptablesBalancer()  # until the kernel was asked
        self._reason = ""
        self._on_applied = on_applied
        self._clock = clock
        self._firewall = Firewall()
        self._tables = NetworkTables()
        self._draining = Draining()
        self._planned_rows: list[OwnedRow] = []
        self._planned = KernelState()
        self._parts = Memory()
        self._kernel: KernelState | None = None  # what is there as far as we know; None: look
        self._networks: dict[str, EngineNetwork] = {}  # as the engine has them
        self._attachable: dict[str, str] = {}  # network id → engine's name for it
        self._watch = Watch()
        self._ipvs = IpvsWatch()
        self._numbers: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())  # our links, our tunnels
        self._bridge_netfilter = False
        self._engine_rests = 0.0  # until then the engine is not asked
        self._looked = float("-inf")  # when everything was looked at last
        self._generation = 0
        self._applied = 0
        self._wake = asyncio.Event()
        self._round_done = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._failures: tuple[str, ...] = ()
        self._problems: tuple[str, ...] = ()
        self.counters: Counter[str] = (
            Counter()
        )  # rounds, operations, repairs (rounds that put back what others changed)

    @property
    def applied_generation(self) -> int:
        """The newest generation (from `update`) that is wholly in the kernel."""
        return self._applied

    @property
    def has_ipv6_vips(self) -> bool:
        """Whether VIPs of IPv6 are balanced here."""
        return not self._facts.lacking.vips

    @property
    def public_key(self) -> str:
        """What the other hosts must know to send this one packets of encrypted networks; "" where it can have none."""
        return self._facts.key

    @property
    def failures(self) -> tuple[str, ...]:
        """What did not work in the last round, for people."""
        return self._failures

    async def report(self) -> MeshReport:
        """What is balanced on this host, as of the last round."""
        state = self._planned
        connections = await asyncio.to_thread(ipvs_netlink.connections, state.services) if state.services else {}
        return MeshReport(
            node_id=self._facts.node_id,
            underlay=self._facts.underlay,
            mtu=self._facts.mtu,
            balancer=self._balancer.name,
            reason=self._reason,
            rules=sum(map(len, state.chains.values())),
            services=len(state.services),
            destinations=len(state.destinations),
            frontends=frontends(self._planned_rows, self._tables, self._facts.node_id, state, connections),
            hosts=dict(self._tables.hosts),
            failures=list(self._failures),
            problems=list(self._problems),
        )

    async def start(self) -> None:
        """Begin to apply. Raises LookupError when no link has the underlay address, or the kernel lacks the balancer
        that was asked for.
        """
        mtu = await asyncio.to_thread(netlink.underlay_mtu, self._facts.underlay)
        self._facts = replace(self._facts, mtu=mtu, lacking=await asyncio.to_thread(ipv6.lacking))
        self._balancer, self._reason = await asyncio.to_thread(choose, self._wanted_balancer)
        log.info("balancing by %s: %s", self._balancer.name, self._reason)
        lacking = await asyncio.to_thread(wireguard.available)
        if lacking:
            log.info("no encrypted networks: %s", lacking)
        else:
            self._private_key = await asyncio.to_thread(wireguard.own_key, self._key_file)
            self._facts = replace(self._facts, key=wireguard.public_key(self._private_key))
        if self._memory is not None:
            self._remembered = await asyncio.to_thread(load, self._memory)
            self._settle_until = self._clock() + SETTLE
        self._task = asyncio.create_task(self._run(), name="network")

    async def stop(self) -> None:
        """Stop looking after the data plane; what is in the kernel stays and works on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._watch.close()
        await self._engine.close()

    def update(self, tables: NetworkTables) -> int:
        """New tables; returns their generation at once. `on_applied` tells when it is in the kernel."""
        self._tables = tables
        self._generation += 1
        self._wake.set()
        return self._generation

    def check_now(self) -> None:
        """Look at the kernel's state without waiting for the next check (after an engine restart)."""
        self._kernel = None
        self._engine_rests = 0.0
        self._wake.set()

    async def wait_applied(self, generation: int, timeout: float) -> bool:
        """Wait until the generation is applied; False when that takes longer than `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout), self._round_done:
                await self._round_done.wait_for(lambda: self._applied >= generation)
        except TimeoutError:
            return False
        return True

    async def attach(self, network_id: str, timeout: float = ATTACH_TIMEOUT) -> str:
        """The name of the engine network to connect a task to, once this host has it. Raises NetworkUnavailable."""
        try:
            async with asyncio.timeout(timeout), self._round_done:
                await self._round_done.wait_for(
                    lambda: self._engine_name(network_id) is not None or self._impossible(network_id)
                )
        except TimeoutError:
            raise NetworkUnavailable(self._why_missing(network_id, timeout)) from None
        if self._impossible(network_id):
            raise NetworkUnavailable(self._why_missing(network_id, 0))
        return self._engine_name(network_id) or network_id

    async def remove_all(self) -> None:
        """Take everything of ours off this host (it leaves the cluster); containers must be gone or are cut off."""
        self._remembered = None
        self._engine_rests = 0.0
        generation = self.update(NetworkTables())
        for file in (self._memory, self._key_file):
            if file is not None:
                file.unlink(missing_ok=True)
        if self._task is None:
            await self._round()
        try:
            async with asyncio.timeout(REMOVE_TIMEOUT), self._round_done:
                await self._round_done.wait_for(lambda: self._applied >= generation and not self._failures)
        except TimeoutError:
            log.warning("network state left on this host: %s", "; ".join(self._failures) or "the removal goes on")

    # --- rounds ------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        await self._wake.wait()  # without tables there is no telling what belongs here
        retry = RETRY_FIRST
        while True:
            try:
                failed = bool(await self._round())
            except Exception:
                log.exception("a round of the data plane broke off; tried again in %.1f s", retry)
                self._kernel = None
                failed = True
            retry = min(retry * 2, CHECK_PERIOD) if failed else RETRY_FIRST
            if failed:
                await self._woken(retry)
            else:
                await self._rest()

    async def _rest(self) -> None:
        """Return when there is something to do: new tables, a time that is over, something changed by others."""
        due = self._due()
        while not await self._woken(min(CHECK_PERIOD, max(0.0, due - self._clock()))):
            if due <= self._clock():
                return
            if not await self._quiet():
                self._kernel = None
                return

    def _due(self) -> float:
        """When a round is due though nothing changed: a leaving row's time is over, or the settling."""
        leaving = self._draining.next_wake()
        settled = self._settle_until if self._remembered is not None else None
        return min((moment for moment in (leaving, settled) if moment is not None), default=float("inf"))

    def _completed(self, tables: NetworkTables) -> NetworkTables:
        """The tables, with what is remembered of hosts that a fresh agent has not heard yet."""
        if self._remembered is None:
            return tables
        if self._clock() >= self._settle_until or is_settled(tables, self._remembered):
            self._remembered = None
            return tables
        return with_memory(tables, self._remembered)

    async def _woken(self, delay: float) -> bool:
        """Wait for new tables; False when `delay` is over."""
        try:
            async with asyncio.timeout(delay):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _quiet(self) -> bool:
        """Whether all is as it was left, as far as can be told cheaply. Now and then False, to look at everything."""
        if self._kernel is None or self._clock() - self._looked > LOOK_PERIOD:
            return False
        try:
            if self._clock() >= self._engine_rests and await self._engine.list() != self._networks:
                return False
        except (EngineUnavailable, EngineRefused):
            self._rest_engine()
        return await asyncio.to_thread(self._undisturbed, self._kernel)

    def _undisturbed(self, kernel: KernelState) -> bool:
        return (
            not self._watch.disturbed(*self._numbers)
            and self._firewall.undisturbed()
            and netlink.bridge_netfilter() == self._bridge_netfilter
            and netlink.read_sysctls(kernel.sysctls) == kernel.sysctls
            and self._ipvs.undisturbed(kernel)
            and wireguard.undisturbed(kernel)
        )

    async def _round(self) -> tuple[str, ...]:
        """Plan and apply once; returns what failed."""
        self._wake.clear()
        generation, tables = self._generation, self._completed(self._tables)
        looking = self._kernel is None
        self._draining, rows = advance(self._draining, tables.endpoints, tables.hosts, self._clock())
        planned = await asyncio.to_thread(
            plan, replace(tables, endpoints=rows), self._facts, self._balancer, self._parts
        )
        wanted = planned.state

        engine_failures, removals = await self._create_networks(wanted, looking)
        operations, kernel_failures = await asyncio.to_thread(self._apply, wanted)
        stale = stale_connections(self._planned_rows, rows, duals_of(tables.networks))
        stale_failures = await asyncio.to_thread(conntrack.drop, stale)
        engine_failures += await self._change_networks(removals)
        if removals:  # a bridge of ours may be left where the engine's own had been deleted by others
            self._kernel = None
            more, left = await asyncio.to_thread(self._apply, wanted)
            operations, kernel_failures = [*operations, *more], [*kernel_failures, *left]

        failures = (*engine_failures, *map(str, kernel_failures), *stale_failures)
        self._planned_rows, self._planned = rows, wanted
        await self._save(tables)
        self._kernel = None if failures else wanted
        self._tell(operations, failures, planned.problems, repaired=looking and generation == self._applied)
        async with self._round_done:
            self._attachable = {
                network_id: network.name
                for network_id, network in self._networks.items()
                if network_id in wanted.networks
            }
            newly = not kernel_failures and generation > self._applied
            if newly:
                self._applied = generation
            self._round_done.notify_all()
        if newly and self._on_applied is not None:
            self._on_applied(generation)
        return failures

    async def _save(self, tables: NetworkTables) -> None:
        if self._memory is None or tables is self._saved or not tables.networks:
            return
        try:
            await asyncio.to_thread(save, self._memory, tables)
            self._saved = tables
        except OSError as error:
            log.warning("network tables cannot be remembered in %s: %s", self._memory, error)

    async def _create_networks(self, wanted: KernelState, looking: bool) -> tuple[list[str], list[Operation]]:
        """Make missing engine networks; returns failures, and the removals that are due after the kernel's turn."""
        try:
            if self._clock() < self._engine_rests:
                raise EngineUnavailable("the engine did not answer a moment ago")
            if looking:
                self._networks = await self._engine.list()
        except (EngineUnavailable, EngineRefused) as error:
            # The kernel forwards without an engine; go on with the networks known so far.
            self._rest_engine()
            return [str(error)], []
        creations, removals = network_operations(KernelState(networks=self._networks), wanted)
        if creations:
            self._kernel = None
        return await self._change_networks(creations), removals

    async def _change_networks(self, operations: list[Operation]) -> list[str]:
        failures = []
        for operation in operations:
            try:
                match operation:
                    case CreateNetwork(network):
                        self._networks[network.network_id] = await self._engine.create(network)
                    case RemoveNetwork(network, force):
                        await self._engine.remove(network, force)
                        self._networks.pop(network.network_id, None)
            except EngineRefused as error:
                failures.append(str(error))
            except EngineUnavailable as error:
                self._rest_engine()
                return [*failures, str(error)]
        return failures

    def _rest_engine(self) -> None:
        """Leave an engine that does not answer alone for a while: a hung one costs a time-out at every attempt."""
        if self._clock() >= self._engine_rests:
            self._engine_rests = self._clock() + ENGINE_PAUSE

    def _apply(self, wanted: KernelState) -> tuple[list[Operation], list[Failure]]:
        """Bring kernel and iptables to the plan. In a thread."""
        there = self._kernel or self._observe(wanted)
        operations = kernel_operations(replace(there, networks=self._networks), wanted)
        failures: list[Failure] = []
        for kind, group in groupby(operations, executor):
            match kind:
                case "iptables":
                    failures += self._firewall.execute(item for item in group if isinstance(item, Restore))
                case "ipvs":
                    failures += ipvs_netlink.execute(item for item in group if isinstance(item, IpvsOperation))
                case "wireguard":
                    mine = (item for item in group if isinstance(item, WireGuardOperation))
                    failures += wireguard.execute(mine, self._private_key)
                case _:
                    failures += netlink.execute(group)
        self._bridge_netfilter = netlink.bridge_netfilter()
        netlink.open_hairpins(wanted.bridges)
        tunnels = netlink.numbers(wanted.vxlans)
        self._numbers = (tunnels | netlink.numbers([*wanted.bridges, *wanted.wireguards]), tunnels)
        return operations, failures

    def _observe(self, wanted: KernelState) -> KernelState:
        self._looked = self._clock()
        self._watch.forget()  # what comes from here on may be missed below, and asks for another look
        chains, jumps = self._firewall.observe(wanted)
        services, destinations, timeouts = ipvs_netlink.observe()
        wireguards, sealed = wireguard.observe()
        return replace(
            netlink.observe(wanted),
            chains=chains,
            jumps=jumps,
            services=services,
            destinations=destinations,
            timeouts=timeouts,
            wireguards=wireguards,
            sealed=sealed,
        )

    def _tell(
        self, operations: list[Operation], failures: tuple[str, ...], problems: tuple[str, ...], repaired: bool
    ) -> None:
        self.counters["rounds"] += 1
        self.counters["operations"] += len(operations)
        if repaired and operations:
            self.counters["repairs"] += 1
            log.warning("the data plane had been changed by others; put back: %s", summary(operations))
        elif operations:
            log.info("data plane changed: %s", summary(operations))
        if failures != self._failures and failures:
            log.error("the data plane is incomplete, trying again: %s", "; ".join(failures))
        if problems != self._problems and problems:
            log.error("left out of the data plane: %s", "; ".join(problems))
        self._failures, self._problems = failures, problems

    def _why_missing(self, network_id: str, timeout: float) -> str:
        known = next((item for item in self._tables.networks if item.id == network_id), None)
        if known is None:
            reason = "the manager has not told this host about it"
        elif self._impossible(network_id):
            return f"network {known.spec.name} cannot be had on this host: {LACKING}"
        elif network_id not in self._tables.own:
            reason = "the manager has not given this host an address on it"
        else:
            told = [text for text in self._problems if network_id in text]
            reason = "; ".join((*told, *self._failures)) or "it is still being made"
        name = known.spec.name if known else network_id
        return f"network {name} is not usable on this host after {timeout:.0f} s: {reason}"

    def _impossible(self, network_id: str) -> bool:
        """Whether the network must be encrypted, which this host cannot do."""
        return not self._facts.key and any(
            item.id == network_id and is_encrypted(item) for item in self._tables.networks
        )

    def _engine_name(self, network_id: str) -> str | None:
        for network in self._tables.networks:
            if network.id == network_id and not is_overlay(network):
                return network.spec.name
        return self._attachable.get(network_id)
