"""Every knob of the gossip, each with its price.

The defaults aim at half of memberlist's detection time with fewer false deaths than its LAN defaults. Short intervals
alone would bring false deaths; four things pay for them: many retransmits of every fact (`spread.py`), timers that do
not count time in which this process did not run (`timers.py`), a direct check before a death is declared, and
answering an accused node with its accusation whenever it speaks (`membership.py`). tests/bench/gossip_sim.py compares
the choices.
"""

from __future__ import annotations

import msgspec


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All times in seconds."""

    # Failure detection. One member is probed each interval, in shuffled order. Shorter finds deaths sooner and costs
    # 2 packets per interval and node. The round is over when the interval is.
    probe_interval: float = 0.5
    # Wait for the direct answer before relays and TCP are asked. Must be above the network's round trip plus a loop
    # hiccup.
    probe_timeout: float = 0.2
    # Relays asked when a direct probe is unanswered. More tells a lost packet from a lost host better; one packet each.
    indirect_checks: int = 3

    # A member that spoke to us less than skip_heard · min(2, others) intervals ago is not probed now: in a small group
    # that halves packets and wake-ups, in a large one it hardly happens. Costs 0.1 to 0.2 s of detection there. 0: off.
    skip_heard: float = 0.75

    # Suspicion lasts max(suspicion_least, suspicion_mult · log10 N) · probe_interval once confirmed, at most max_mult
    # times that when not. least is what a small group gets; mult makes it 3.3 s at 50 members, so that hardly any stop
    # of up to 4 s looks like a death there, at half of memberlist's detection time.
    suspicion_least: float = 3.0
    suspicion_mult: float = 3.9
    suspicion_max_mult: float = 6.0
    # Independent accusers that shorten the suspicion to its minimum (Lifeguard's K). Not used below K + 2 members.
    confirmations: int = 3
    # Shortest suspicion of a member whose host takes TCP connections while its process does not answer: that host has
    # power, its process is late or stands still. A process that hangs for good is noticed that much later.
    suspicion_standing: float = 4.0
    # The same of a member whose host refuses connections: that host has power and its containers work, but no agent is
    # there. Most likely it is being started anew, which takes some seconds; the leader waits as long for its session.
    suspicion_away: float = 10.0
    # Flap damping: each time a member came back from a death, or narrowly from a suspicion, its next suspicions last
    # one more unit, up to this many; forgotten over flap_memory. Only members that were wrongly accused lately pay
    # for it.
    flap_max: float = 4.0
    flap_memory: float = 300.0
    # A host that did not run for a while (a frozen VM, no CPU) says for how long with its next word, and is not
    # declared dead sooner than 1.5 times that plus 0.5 s until it has run well for stall_memory: should it die then,
    # it is missed that much later. Shorter stops than stall_min are covered by the suspicion time; longer ones than
    # stall_max were an outage, which nobody should wait for again.
    stall_min: float = 1.0
    stall_max: float = 15.0
    stall_memory: float = 300.0
    # A death that a peer reports is taken as a suspicion when its subject spoke to us less than this ago.
    contradiction: float = 1.0

    # Health score 0 .. max-1; each point stretches our own probe timers by one unit (Lifeguard: 8).
    awareness_max: int = 8
    # Timers later than this mean that the process was paused: the pause does not count for any deadline.
    stall: float = 0.2

    # Facts are repeated each interval to this many members until their sends are used up. Fresh facts go out after
    # flush_delay already, so that distance in hops costs milliseconds; the delay lets facts share a packet.
    gossip_interval: float = 0.1
    gossip_nodes: int = 3
    flush_delay: float = 0.005
    # Miss probability about N·e^-L with L = ceil(ln N + margin): 11.5 means 1 in 100,000 broadcasts.
    spread_margin: float = 11.5
    # ... but to one and the same peer no more often than this; anti-entropy does the rest.
    sends_per_peer: int = 6
    # Entries per class (membership, own rows, relayed rows). Above it the most-sent entries go first.
    queue_limit: int = 4096
    # UDP payload, all framing included. 1,400 passes an Ethernet with room for a tunnel header.
    packet_size: int = 1400

    # Anti-entropy. Every packet carries a digest; a difference that lasts `patience` starts a repair with that peer,
    # at most one each `gap`. The full exchange each interval is only a backstop, its interval grows with log2 N above
    # 32 members.
    sync_interval: float = 30.0
    sync_patience: float = 1.0
    sync_gap: float = 1.0
    # Row bytes in one exchange; the rest follows in the next one, so that no reply stalls the loop.
    sync_bytes: int = 2 * 1024 * 1024
    # Repair of one owner's rows: pause before asking (gossip may still deliver), then doubled up to the maximum.
    repair_delay: float = 0.1
    repair_max: float = 5.0
    # While the owner waits for acknowledgements, those missing are asked this often.
    ask_interval: float = 0.15

    # One dead member, picked at random, is called again each interval; a seed that is no live member each
    # seed_interval.
    reconnect_interval: float = 1.0
    seed_interval: float = 10.0
    # Dead members and their hidden rows are remembered for a day, those that left for ten minutes.
    dead_retention: float = 86400.0
    left_retention: float = 600.0
    # Rows of an owner's earlier process stay visible until the new process says that all is published, or for this
    # long.
    takeover_grace: float = 10.0

    # Limits against bugs and floods.
    value_limit: int = 64 * 1024
    own_bytes_limit: int = 8 * 1024 * 1024
    meta_limit: int = 512
    relays_limit: int = 256
    unknown_limit: int = 256
    tombstone_limit: int = 512
