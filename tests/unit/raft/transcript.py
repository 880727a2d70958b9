"""Raft stories: scripts of commands with the exact output beside them, after etcd's interaction tests.

A script is a text file of blocks; a block is a command line, `----`, and the output up to an empty line. The runner
carries out the commands on real cores with an instant disk and a network that delivers only when told, and renders
every message and change of role. Run pytest with UPDATE_TRANSCRIPTS=1 to write the output anew, then read the diff.

Commands (members are numbers; M,N are lists):

    members 1 2 3            a cluster of these voters, each with the first entry
    joiner 4                 a member that knows nothing yet
    campaign 1               its election timeout passes
    tick 1 [N]               N ticks
    propose 1 TEXT           a client's write
    read 1 ID                a client's linearizable read
    change 1 +4 | 4! | -3    add learner 4, promote 4, remove 3
    transfer 1 2             hand leadership over
    deliver [M] [FROM>TO]    messages that wait now: all, to M, or on one link
    drop [M] [FROM>TO]       lose them
    hold 1                   its disk syncs nothing until `release 1`
    release 1                the disk goes on
    stabilize [M N]          deliver until nothing is under way (between these only)
    snapshot 1               it compacts its log; a snapshot is handed over whole when another needs it
    restart 1                from what its disk has
    status                   a line for each member
    log 1                    its entries
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from swarm_agent.raft.core import Core, Ready
from swarm_agent.raft.errors import RaftError
from swarm_agent.raft.log import Log
from swarm_agent.raft.messages import (
    Append,
    AppendReply,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    HeartbeatReply,
    Member,
    Membership,
    Message,
    ReadReply,
    ReadRequest,
    SnapshotChunk,
    SnapshotMeta,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
    VoteRequest,
    decode_membership,
    encode_membership,
)


class Node:
    """A core with a disk in memory."""

    def __init__(self, id_: int) -> None:
        self.id = id_
        self.snapshot = SnapshotMeta()
        self.entries: list[Entry] = []
        self.hard_state = HardState()
        self.held = False
        self.boot()

    def boot(self) -> None:
        self.writing: deque[Ready] = deque()
        log = Log(self.snapshot, self.entries, self.hard_state.commit)
        self.core = Core(self.id, log, self.hard_state, random.Random(self.id))
        self.role = "follower"

    def persist(self, ready: Ready) -> None:
        if ready.snapshot is not None:
            self.snapshot, self.entries = ready.snapshot, []
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        if ready.entries:
            first = ready.entries[0].index
            self.entries = [entry for entry in self.entries if entry.index < first] + ready.entries


class Story:
    """Carries out commands and collects what happens."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.network: list[Message] = []
        self.lines: list[str] = []

    def run(self, line: str) -> list[str]:
        name, *arguments = line.split()
        self.lines = []
        try:
            getattr(self, f"do_{name}")(*arguments)
        except RaftError as error:
            self.lines.append(f"error: {str(error).removeprefix('rpc error: code = Unknown desc = ')}")
        return self.lines or ["ok"]

    # --- commands ----------------------------------------------------------------------------------------------------

    def do_members(self, *ids: str) -> None:
        first = Membership(tuple(Member(int(id_)) for id_ in ids))
        for id_ in map(int, ids):
            node = self.nodes[id_] = Node(id_)
            node.entries = [Entry(1, 1, EntryKind.MEMBERSHIP, encode_membership(first))]
            node.hard_state = HardState(1, 0, 1)
            node.boot()
            node.core.ready()

    def do_joiner(self, id_: str) -> None:
        self.nodes[int(id_)] = Node(int(id_))

    def do_campaign(self, id_: str) -> None:
        self.on(id_, lambda core: core.campaign())

    def do_tick(self, id_: str, ticks: str = "1") -> None:
        for _ in range(int(ticks)):
            self.on(id_, lambda core: core.tick())

    def do_propose(self, id_: str, text: str) -> None:
        self.on(id_, lambda core: core.propose(text.encode()))

    def do_read(self, id_: str, read: str) -> None:
        self.on(id_, lambda core: core.read(int(read)))

    def do_change(self, id_: str, change: str) -> None:
        members = {member.id: member for member in self.nodes[int(id_)].core.log.membership.members}
        other = int(change.strip("+-!"))
        if change.startswith("-"):
            del members[other]
        else:
            members[other] = Member(other, "", change.endswith("!"))
        wanted = Membership(tuple(members[key] for key in sorted(members)))
        self.on(id_, lambda core: core.propose_membership(wanted))

    def do_transfer(self, id_: str, to: str) -> None:
        self.on(id_, lambda core: core.transfer(int(to)))

    def do_deliver(self, *where: str) -> None:
        for message in self.take(where):
            self.on(message.to, lambda core, message=message: core.step(message))

    def do_drop(self, *where: str) -> None:
        for message in self.take(where):
            self.lines.append(f"lost {describe(message)}")

    def do_hold(self, id_: str) -> None:
        self.nodes[int(id_)].held = True

    def do_release(self, id_: str) -> None:
        node = self.nodes[int(id_)]
        node.held = False
        self.flush(node)
        self.pump(node)

    def do_stabilize(self, *ids: str) -> None:
        among = {int(id_) for id_ in ids} or set(self.nodes)
        while ready := [m for m in self.network if m.to in among and m.sender in among]:
            for message in ready:
                self.network.remove(message)
                self.on(message.to, lambda core, message=message: core.step(message))

    def do_snapshot(self, id_: str) -> None:
        node = self.nodes[int(id_)]
        log = node.core.log
        node.snapshot = SnapshotMeta(log.applied, log.term(log.applied) or 0, log.membership_at(log.applied))
        node.core.compact(log.applied)
        node.entries = [entry for entry in node.entries if entry.index > log.applied]
        self.lines.append(f"{id_} has a snapshot at {node.snapshot.index}, its log begins at {log.first}")

    def do_restart(self, id_: str) -> None:
        node = self.nodes[int(id_)]
        node.boot()
        self.pump(node)

    def do_status(self) -> None:
        for node in self.nodes.values():
            core, log = node.core, node.core.log
            self.lines.append(
                f"{node.id} {node.role} term {core.term} leader {core.leader} log {log.first}-{log.last} "
                f"committed {log.committed} members {members(log.membership)}"
            )

    def do_log(self, id_: str) -> None:
        log = self.nodes[int(id_)].core.log
        self.lines += [describe_entry(entry) for entry in log.slice(log.first, log.last, 1 << 40)]

    # --- inside ------------------------------------------------------------------------------------------------------

    def on(self, id_: str | int, call: Any) -> None:
        node = self.nodes[int(id_)]
        call(node.core)
        self.pump(node)

    def take(self, where: tuple[str, ...]) -> list[Message]:
        def wanted(message: Message) -> bool:
            if not where:
                return True
            link = f"{message.sender}>{message.to}"
            return any(link == place or str(message.to) == place for place in where)

        found = [message for message in self.network if wanted(message) and message.to in self.nodes]
        self.network = [message for message in self.network if message not in found]
        return found

    def pump(self, node: Node) -> None:
        while node.core.has_ready():
            ready = node.core.ready()
            self.observe(node)
            for message in ready.messages:
                self.post(message)
            node.writing.append(ready)
            if not node.held:
                self.flush(node)
            for entry in ready.committed:
                self.lines.append(f"{node.id} applies {describe_entry(entry)}")
            for id_, index in ready.reads:
                self.lines.append(f"{node.id} may answer read {id_} at {index}")
            for member in ready.snapshots_wanted:
                self.post(SnapshotChunk(node.id, member, node.core.term, node.snapshot, 0, b"", True))
            for reply in ready.snapshot_replies:
                node.core.snapshot_ended(reply.sender, reply.index)
            for chunk in ready.chunks:
                installed = node.core.install(chunk.meta)
                self.lines.append(
                    f"{node.id} {'installs' if installed else 'ignores'} a snapshot at {chunk.meta.index}"
                )
                self.post(SnapshotReply(node.id, chunk.sender, chunk.term, chunk.meta.index, 1, True))
        self.observe(node)

    def flush(self, node: Node) -> None:
        while node.writing:
            ready = node.writing.popleft()
            node.persist(ready)
            for message in ready.after_persist:
                if message.to != node.id:
                    self.post(message)
            node.core.advance(ready)

    def post(self, message: Message) -> None:
        self.lines.append(describe(message))
        self.network.append(message)

    def observe(self, node: Node) -> None:
        core = node.core
        role = "follower"
        if core.leadership is not None:
            role = "leader"
        elif core.candidacy is not None:
            role = "pre-candidate" if core.candidacy.pre else "candidate"
        if role != node.role:
            node.role = role
            self.lines.append(f"{node.id} becomes {role} in term {core.term}")


def members(membership: Membership) -> str:
    return "{" + " ".join(f"{m.id}" if m.voter else f"({m.id})" for m in membership.members) + "}"


def describe_entry(entry: Entry) -> str:
    if entry.kind is EntryKind.MEMBERSHIP:
        text = members(decode_membership(entry.data))
    else:
        text = entry.data.decode() or "''"
    return f"{entry.term}/{entry.index} {text}"


def describe(message: Message) -> str:
    text = f"{message.sender}>{message.to} term {message.term} "
    match message:
        case VoteRequest():
            kind = "pre-vote?" if message.pre else "vote?"
            forced = " (asked by the leader)" if message.transfer else ""
            return text + f"{kind} log ends {message.last_term}/{message.last_index}{forced}"
        case VoteReply():
            return text + f"{'pre-vote' if message.pre else 'vote'}: {'yes' if message.granted else 'no'}"
        case Append():
            entries = ", ".join(map(describe_entry, message.entries)) or "nothing"
            return text + f"append after {message.prev_term}/{message.prev_index}: {entries}; commit {message.commit}"
        case AppendReply() if message.rejected:
            return text + f"not at {message.index}, perhaps at {message.hint_term}/{message.hint_index}"
        case AppendReply():
            return text + f"has {message.index}"
        case Heartbeat():
            return text + f"heartbeat commit {message.commit} round {message.round}"
        case HeartbeatReply():
            return text + f"alive round {message.round}"
        case TimeoutNow():
            return text + "campaign now"
        case ReadRequest():
            return text + f"read {message.id}?"
        case ReadReply():
            return text + f"read {message.id} at {message.index}"
        case SnapshotChunk():
            return text + f"snapshot at {message.meta.index} {members(message.meta.membership)}"
        case SnapshotReply():
            return text + f"snapshot at {message.index}: {'done' if message.done else message.next}"
