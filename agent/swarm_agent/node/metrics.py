"""The agent's metrics as families, read from its parts when somebody asks (docs/metrics.md lists them)."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from swarm_agent.gossip.types import State
from swarm_agent.model.objects import Task
from swarm_agent.network.manager import NetworkManager
from swarm_agent.raft.settings import Status
from swarm_agent.store.store import Store
from swarm_agent.worker.worker import Worker

from .exposition import Family, counter, counters, gauge, gauges

GOSSIP_GAUGES = ("health", "rows", "owners", "repairs", "pulls_running")
QUEUES = ("membership", "own", "relayed")

_started = time.time()


def process() -> list[Family]:
    """Memory and CPU of this process, under the names that every exporter uses."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return [
        gauge("process_resident_memory_bytes", "Resident memory.", pages * resource.getpagesize()),
        counter("process_cpu_seconds_total", "CPU time, user and system.", usage.ru_utime + usage.ru_stime),
        gauge("process_start_time_seconds", "Start of this process, Unix time.", round(_started, 1)),
    ]


def gossip(stats: Mapping[str, int]) -> list[Family]:
    """From GossipNode.stats(): what is a state there becomes a label here."""
    members = {state.name.lower(): stats.get(f"members_{state.name.lower()}", 0) for state in State}
    queues = {name: stats.get(f"queue_{name}", 0) for name in QUEUES}
    refused = {name.removeprefix("refused_"): n for name, n in stats.items() if name.startswith("refused_")}
    streams = {name.removeprefix("streams_"): n for name, n in stats.items() if name.startswith("streams_")}
    families = [
        gauges("swarm_gossip_members", "Other members that this node knows, by state.", "state", members),
        gauges("swarm_gossip_queue", "Facts that wait to be sent, by class.", "class", queues),
        counters("swarm_gossip_refused_total", "Packets refused, by reason.", "reason", refused),
        counters("swarm_gossip_streams_total", "TCP exchanges opened, failed or refused.", "kind", streams),
    ]
    for name in GOSSIP_GAUGES:
        families.append(gauge(f"swarm_gossip_{name}", _GOSSIP_HELP[name], stats.get(name, 0)))
    shown = {"members_", "refused_", "streams_"}
    always = dict.fromkeys(_GOSSIP_HELP, 0)  # a counter that is not there yet cannot be alarmed on
    for name, value in sorted({**always, **stats}.items()):
        if name in GOSSIP_GAUGES or name.removeprefix("queue_") in QUEUES or any(name.startswith(p) for p in shown):
            continue
        families.append(counter(f"swarm_gossip_{name}_total", _GOSSIP_HELP.get(name, "See docs/metrics.md."), value))
    return families


_GOSSIP_HELP = {
    "health": "This node's trust in itself: 0 is well, 7 the worst; its timers stretch by health + 1.",
    "rows": "Rows held, of all owners.",
    "owners": "Owners of rows held.",
    "repairs": "Owners whose rows are being repaired now.",
    "pulls_running": "Row exchanges over TCP under way.",
    "packets_sent": "Packets sent.",
    "packets_received": "Packets received, refused ones too.",
    "bytes_sent": "Bytes of packets sent.",
    "bytes_received": "Bytes of packets received.",
    "probes": "Probes begun.",
    "probes_failed": "Probes without an answer by any way: each made a suspicion.",
    "probes_tcp_only": "Probes answered by TCP only: UDP is blocked on the way.",
    "suspicions": "Suspicions begun or heard of.",
    "deaths": "Members declared dead.",
    "deaths_averted": "Deaths not declared because the suspect spoke at the last moment.",
    "refutations": "Accusations against this node that it refuted.",
    "pauses": "Stops of this process that were longer than 0.2 s.",
    "pulls": "Repairs of rows asked for.",
    "digest_syncs": "Full exchanges because digests differed.",
}


def network(manager: NetworkManager) -> list[Family]:
    counts = manager.counters
    return [
        counter("swarm_network_rounds_total", "Comparisons of the kernel with the plan.", counts["rounds"]),
        counter("swarm_network_operations_total", "Changes made to the kernel.", counts["operations"]),
        counter("swarm_network_repairs_total", "Rounds that put back what others had changed.", counts["repairs"]),
        gauge("swarm_network_failures", "What could not be applied in the last round.", len(manager.failures)),
        gauge("swarm_network_generation", "Newest generation of tables in the kernel.", manager.applied_generation),
    ]


def worker(part: Worker) -> list[Family]:
    states = Counter(str(update.status.state) for update in part.statuses())
    return [gauges("swarm_worker_tasks", "Tasks of this host, by observed state.", "state", states)]


def raft(status: Status) -> list[Family]:
    members = {"voter": sum(m.voter for m in status.members), "learner": sum(not m.voter for m in status.members)}
    families = [
        counter("swarm_raft_term", "Current term.", status.term),
        gauge("swarm_raft_leads", "1 while this manager leads.", status.leads),
        gauge("swarm_raft_has_leader", "1 while a leader is known.", status.leader != 0),
        counter("swarm_raft_last_index", "Last entry in this manager's log.", status.last),
        counter("swarm_raft_committed_index", "Last committed entry known here.", status.committed),
        counter("swarm_raft_applied_index", "Last entry applied here.", status.applied),
        gauge("swarm_raft_log_entries", "Entries kept in the log.", max(0, status.last - status.first + 1)),
        gauges("swarm_raft_members", "Members of the raft group.", "kind", members),
    ]
    if status.leads:
        active = sum(member.active for member in status.members)
        families.append(gauge("swarm_raft_members_active", "Members heard of lately, itself too (leader).", active))
    return families


def store(part: Store) -> list[Family]:
    states = Counter(str(task.status.state) for task in part.view().all(Task))
    return [
        gauges("swarm_store_objects", "Objects in the cluster's store, by kind.", "kind", part.counts()),
        counter("swarm_store_index", "Log index of the store.", part.index),
        gauge("swarm_store_queue", "Writes that wait for their turn.", part.queued),
        gauges("swarm_tasks", "Tasks of the cluster, by observed state.", "state", states),
    ]
