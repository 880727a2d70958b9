"""A whole cluster under one seed: hosts, links, disks, clocks, clients, administrators and faults.

One heap of events, ordered by (time, number). All chance comes from generators derived from the seed, one for each
subject, so that a draw more in one place does not change the others. A run has two parts: faults with all checks
on, then everything healed and the demand that the cluster works again in bounded time.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from swarm_agent.raft.messages import Member, Membership

from .raft_host import Host
from .raft_oracle import Oracle, Violation

FAULTS = (
    "crash",
    "crash soon",
    "cut",
    "cut one way",
    "isolate leader",
    "churn",
    "pause",
    "slow disk",
    "failing disk",
    "lossy",
    "transfer",
    "change members",
)


class World:
    """One simulated cluster. `faults`: which kinds; a random half of all if not said."""

    def __init__(
        self,
        seed: int,
        *,
        members: int | None = None,
        faults: tuple[str, ...] | None = None,
        fault_interval: float | None = None,
        max_append_bytes: int | None = None,
    ) -> None:
        root = random.Random(seed)
        self.seed = seed
        self.rng = random.Random(root.getrandbits(64))
        self.net_rng = random.Random(root.getrandbits(64))
        self.fault_rng = random.Random(root.getrandbits(64))
        self.client_rng = random.Random(root.getrandbits(64))
        self.now = 0.0
        self.oracle = Oracle()
        self.events: list[tuple[float, int, Callable[..., Any], Host | None, int, tuple[Any, ...]]] = []
        self.sequence = 0
        self.cuts: dict[tuple[int, int], float] = {}
        self.lossy_until = self.churn_until = 0.0
        self.loss = root.choice((0.0, 0.01, 0.1))
        self.duplication = root.choice((0.0, 0.02))
        self.delay = root.choice((1.0, 5.0, 30.0))
        self.max_append_bytes = max_append_bytes or root.choice((1, 200, 100_000))
        self.faults = faults if faults is not None else tuple(f for f in FAULTS if root.random() < 0.5)
        self.fault_interval = fault_interval or root.choice((300.0, 1000.0, 3000.0))
        self.story: list[str] = []
        self.healed = False
        self.writes = 0
        self.hosts: dict[int, Host] = {}
        self.next_id = 1
        ids = [self._new_host().id for _ in range(members or root.choice((1, 2, 3, 3, 3, 3, 5, 5)))]
        first = Membership(tuple(Member(id_, f"host{id_}") for id_ in ids))
        for host in self.hosts.values():
            host.install(first)
            host.start()

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self, until: float) -> None:
        """Carry out events up to a time."""
        while self.events and self.events[0][0] <= until:
            self.now, _, call, host, incarnation, arguments = heapq.heappop(self.events)
            if host is None:
                call(*arguments)
            elif not host.alive or host.incarnation != incarnation:
                continue
            elif host.paused_until > self.now:
                self._push(host.paused_until, call, host, incarnation, arguments)
            else:
                self._on(host, call, *arguments)
        self.now = until

    def _on(self, host: Host, call: Callable[..., Any], *arguments: Any) -> None:
        elections = self.oracle.elections
        host.guarded(call, *arguments)
        if self.oracle.elections != elections and self.churn_until > self.now:
            # A leader has a few ms to replicate something, then it is gone (Raft, figure 8).
            for _ in range(3):
                self.writes += 1
                host.guarded(host.write, f"w{self.writes}")
            self.after(self.fault_rng.uniform(0, 4 * self.delay), self._crash, None, host)

    def after(self, delay: float, call: Callable[..., Any], host: Host | None = None, *arguments: Any) -> None:
        """Do something later; on a host only if it has not been restarted in between, and not while it is paused."""
        self._push(self.now + delay, call, host, host.incarnation if host is not None else 0, arguments)

    def _push(
        self, time: float, call: Callable[..., Any], host: Host | None, incarnation: int, arguments: tuple[Any, ...]
    ) -> None:
        self.sequence += 1
        heapq.heappush(self.events, (time, self.sequence, call, host, incarnation, arguments))

    def note(self, text: str) -> None:
        """A line of the story that a failing seed tells."""
        self.story.append(f"{self.now:9.1f} {text}")

    # --- network -----------------------------------------------------------------------------------------------------

    def send(self, sender: int, to: int, data: bytes) -> None:
        """Bytes on a link: lost, delayed, repeated, overtaken."""
        if self.cuts.get((sender, to), 0.0) > self.now or to not in self.hosts:
            return
        loss = 0.3 if self.lossy_until > self.now else (0.0 if self.healed else self.loss)
        copies = 2 if self.net_rng.random() < self.duplication else 1
        for _ in range(copies):
            if self.net_rng.random() < loss:
                continue
            delay = self.net_rng.expovariate(1 / self.delay)
            if not self.healed and self.net_rng.random() < 0.01:
                delay += self.net_rng.uniform(0, 2000)  # a straggler, older than any term now
            self._push(self.now + delay, self._arrive, None, 0, (to, data))

    def _arrive(self, to: int, data: bytes) -> None:
        host = self.hosts[to]
        if host.paused_until > self.now:
            self._push(host.paused_until, self._arrive, None, 0, (to, data))
        else:
            self._on(host, host.deliver, data)

    # --- clients and faults ------------------------------------------------------------------------------------------

    def play(self, until: float) -> None:
        """Clients and faults up to a time."""
        self._client()
        if self.faults:
            self._fault()
        self.run(until)

    def _client(self) -> None:
        if self.healed:
            return
        self.after(self.client_rng.expovariate(1 / 40), self._client)
        host = self.client_rng.choice(tuple(self.hosts.values()))
        leaders = [h for h in self.hosts.values() if h.alive and h.core.leadership is not None]
        if leaders and self.client_rng.random() < 0.7:
            host = self.client_rng.choice(leaders)
        if host.paused_until > self.now:
            return
        if self.client_rng.random() < 0.6:
            self.writes += 1
            host.guarded(host.write, f"w{self.writes}")
        else:
            host.guarded(host.read)

    def _fault(self) -> None:
        if self.healed:
            return
        rng = self.fault_rng
        self.after(rng.expovariate(1 / self.fault_interval), self._fault)
        kind = rng.choice(self.faults)
        leaders = [h for h in self.hosts.values() if h.alive and h.core.leadership is not None]
        host = rng.choice(leaders if leaders and rng.random() < 0.5 else tuple(self.hosts.values()))
        other = rng.choice(tuple(self.hosts.values()))
        span = rng.uniform(100, 3000)
        self.note(f"{kind} {host.id} {other.id} {span:.0f}")
        if kind == "crash" and host.alive:
            self._crash(host)
        elif kind == "churn":
            self.churn_until = self.now + 3 * span
        elif kind == "crash soon" and host.alive:
            host.crash_in = rng.randint(1, 60)
        elif kind == "cut":
            self._cut(host.id, other.id, span)
            self._cut(other.id, host.id, span)
        elif kind == "cut one way":
            self._cut(host.id, other.id, span)
        elif kind == "isolate leader":
            for leader in [h for h in self.hosts.values() if h.alive and h.core.leadership is not None]:
                for id_ in self.hosts:
                    self._cut(leader.id, id_, span)
                    self._cut(id_, leader.id, span)
        elif kind == "pause":
            host.paused_until = self.now + span
        elif kind == "slow disk":
            host.slow_until = self.now + span
        elif kind == "failing disk" and host.alive:
            host.files.failing = True
        elif kind == "lossy":
            self.lossy_until = self.now + span
        elif kind == "transfer":
            host.guarded(host.transfer, other.id)
        elif kind == "change members":
            self._change_members(rng)
        for dead in self.hosts.values():
            if not dead.alive:
                self.after(rng.uniform(100, 2000), self._restart, None, dead)

    def _cut(self, sender: int, to: int, span: float) -> None:
        self.cuts[sender, to] = max(self.cuts.get((sender, to), 0.0), self.now + span)

    def _crash(self, host: Host) -> None:
        if host.alive and not self.healed:
            host.crash()
            self.after(self.fault_rng.uniform(100, 3000), self._restart, None, host)

    def _restart(self, host: Host) -> None:
        if not host.alive:
            self.note(f"{host.id} restarts")
            host.start()

    def _change_members(self, rng: random.Random) -> None:
        leaders = [h for h in self.hosts.values() if h.alive and h.core.leadership is not None]
        if not leaders:
            return
        leader = rng.choice(leaders)
        members = leader.core.log.membership.members
        learners = [member for member in members if not member.voter]
        voters = [member for member in members if member.voter]
        draw = rng.random()
        if learners and draw < 0.5:
            chosen = rng.choice(learners)
            edit = {member.id: member for member in members} | {chosen.id: Member(chosen.id, chosen.address)}
        elif len(voters) > 2 and draw < 0.75:
            gone = rng.choice(voters).id
            edit = {member.id: member for member in members if member.id != gone}
        elif len(self.hosts) < 8:
            host = self._new_host()
            host.start()
            edit = {member.id: member for member in members} | {host.id: Member(host.id, f"host{host.id}", False)}
        else:
            return
        wanted = Membership(tuple(edit[id_] for id_ in sorted(edit)))
        self.note(f"{leader.id} proposes {wanted}")
        leader.guarded(leader.change, lambda _: wanted)

    def _new_host(self) -> Host:
        host = Host(self, self.next_id)
        self.hosts[host.id] = host
        self.next_id += 1
        return host

    # --- healing -----------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """End all faults."""
        self.note("healed")
        self.healed = True
        self.cuts.clear()
        self.lossy_until = self.churn_until = 0.0
        for host in self.hosts.values():
            host.crash_in = None
            host.paused_until = host.slow_until = 0.0
            if host.files.failing and host.alive:
                host.crash()
            host.files.failing = False
            if not host.alive:
                host.start()

    def demand_progress(self, election: float, convergence: float) -> None:
        """A leader within `election`, and a write on all members within `convergence` after that."""
        deadline = self.now + election
        while not self._agreed_leader():
            if self.now >= deadline:
                raise Violation(f"no leader within {election} ms after all faults ended")
            self.run(self.now + 50)
        value = "after all faults"
        deadline = self.now + convergence
        while not self._all_have(value):
            if self.now >= deadline:
                raise Violation(f"the members do not agree within {convergence} ms after all faults ended")
            leader = self._agreed_leader()
            if leader and value not in leader.machine.values.values():
                leader.guarded(leader.write, value)  # again, if it was dropped by a change of leader
            self.run(self.now + 500)
        self._check_acknowledged()

    def _agreed_leader(self) -> Host | None:
        leading = [host for host in self.hosts.values() if host.core.leads]
        leader = max(leading, key=lambda host: host.core.term, default=None)
        if leader is None:
            return None
        voters = [self.hosts[id_] for id_ in leader.core.log.membership.voters]
        return leader if all(host.core.leader == leader.id for host in voters) else None

    def _members(self) -> list[Host]:
        newest = max((host for host in self.hosts.values()), key=lambda host: (host.core.leads, host.core.term))
        return [self.hosts[member.id] for member in newest.core.log.membership.members]

    def _all_have(self, value: str) -> bool:
        return all(value in host.machine.values.values() for host in self._members())

    def _check_acknowledged(self) -> None:
        for host in self._members():
            for index, value in self.oracle.acknowledged.items():
                if host.machine.values.get(index) != value:
                    raise Violation(f"acknowledged write {value} at {index} is not on member {host.id}")
