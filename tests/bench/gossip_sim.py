"""The gossip compared with plain SWIM and with memberlist's LAN defaults, in the same simulator: real core, packets
and network.

    .venv/bin/python -m tests.bench.gossip_sim [--nodes 50] [--seeds 3] [--seconds 120] [--quick]

Prints, per protocol: time from a kill to the first and to the last member that knows; bytes per node and second when
quiet; and deaths declared of nodes that lived, summed over a grid of loss and starvation. A starved node is one that
reads late (its timers run: Lifeguard's case), one whose process stops altogether again and again (a CPU hog) while its
kernel takes connections, or one that freezes with its kernel (a VM).

"memberlist" and "SWIM" are this core with its own additions switched off and their constants: what is compared is the
protocol, not the code.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "agent")]

from swarm_agent.gossip.awareness import Awareness  # noqa: E402
from swarm_agent.gossip.config import Config  # noqa: E402
from swarm_agent.gossip.core import Core  # noqa: E402
from swarm_agent.gossip.kernel import Kernel  # noqa: E402
from swarm_agent.gossip.types import State  # noqa: E402
from tests.sim.gossip_scenarios import hiccups  # noqa: E402
from tests.sim.gossip_world import World  # noqa: E402

MEMBERLIST = Config(
    probe_interval=1.0,
    probe_timeout=0.5,
    skip_heard=0.0,
    suspicion_standing=0.0,
    suspicion_least=4,
    suspicion_mult=4,
    confirmations=2,
    gossip_interval=0.2,
    flush_delay=0.2,
    contradiction=0.0,
    flap_max=0.0,
    stall=1e9,
    sync_patience=1e9,
    reconnect_interval=30.0,
)


class _LogSpread(Kernel):
    """memberlist's sends per fact: 4 · ceil(log10(N + 1))."""

    @property
    def limit(self) -> int:
        return 4 * math.ceil(math.log10(self.members.live_count + 1))


class MemberlistCore(Core):
    """Without the last check before a death, the correction of whoever speaks, and probes drawn to suspects."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kernel.__class__ = _LogSpread
        membership = self.membership

        def verdict(peer: Any, suspicion: Any) -> None:
            if peer.suspicion is suspicion:
                membership._bury(peer, peer.incarnation, State.DEAD, self.kernel.me.id)

        def heard(header: Any, address: Any) -> Any:
            peer = self.kernel.members.get(header.sender)
            if peer is not None:
                peer.heard = self.kernel.timers.now
            return peer

        membership._last_check = verdict  # type: ignore[method-assign]
        membership._verdict = verdict  # type: ignore[method-assign]
        membership.heard = heard  # type: ignore[method-assign]
        membership.on_suspect = lambda peer: None


class _NoAwareness(Awareness):
    """Score 0 whatever happens."""

    def add(self, delta: int) -> None:
        pass


class PlainSwimCore(MemberlistCore):
    """Without Lifeguard too: no health score, a fixed suspicion time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kernel.awareness = _NoAwareness(1)


PLAIN = {**{f: getattr(MEMBERLIST, f) for f in MEMBERLIST.__struct_fields__}, "suspicion_max_mult": 1.0}
PROTOCOLS: dict[str, tuple[Config, type[Core]]] = {
    "SWIM": (Config(**PLAIN), PlainSwimCore),
    "memberlist LAN": (MEMBERLIST, MemberlistCore),
    "this": (Config(), Core),
}


def world(name: str, seed: object, nodes: int, loss: float = 0.0) -> World:
    config, core = PROTOCOLS[name]
    made = World(f"{name}/{seed}", config=config, core=core, check=False)
    made.cluster(nodes, settle=False)
    made.run(10)
    made.loss = loss
    made.deaths.clear()
    made.verdicts.clear()
    return made


def detection(name: str, nodes: int, kills: int) -> tuple[list[float], list[float], float]:
    """Seconds from kill to the first and to the last survivor that knows; bytes per node and second before."""
    first, last = [], []
    w = world(name, "detect", nodes)
    start_bytes, start = sum(n.bytes_out for n in w.nodes.values()), w.now
    w.run(60)
    rate = (sum(n.bytes_out for n in w.nodes.values()) - start_bytes) / nodes / (w.now - start)
    for number in range(kills):
        victim = f"n{1 + number % (nodes - 1)}"
        w.run(w._net.uniform(1, 2))
        w.kill(victim)
        began = w.now
        rest = [n for n in w.nodes.values() if n.up]
        w.run_until(lambda r=rest, v=victim: any(n.state(v) is State.DEAD for n in r), 60, step=0.01)
        first.append(w.now - began)
        w.run_until(lambda r=rest, v=victim: all(n.state(v) is State.DEAD for n in r), 60, step=0.01)
        last.append(w.now - began)
        w.start(victim)
        w.join(victim, "n0")
        w.run_until(w.agreed, 60, step=0.1)
    return first, last, rate


def starve_lag(seconds: float) -> Callable[[World, str], None]:
    def apply(w: World, id: str) -> None:
        w.nodes[id].lag = seconds

    return apply


def starve_pause(stop: float, go: float, frozen: bool = False) -> Callable[[World, str], None]:
    return lambda w, id: hiccups(w, id, stop, go, frozen)


FAULTS: dict[str, Callable[[World, str], None]] = {
    "reads up to 1 s late": starve_lag(1.0),
    "reads up to 3 s late": starve_lag(3.0),
    "stops up to 1 s": starve_pause(1.0, 0.5),
    "stops up to 2 s": starve_pause(2.0, 0.5),
    "stops up to 4 s": starve_pause(4.0, 0.5),
    "stops up to 15 s": starve_pause(15.0, 0.5),
    "host freezes up to 4 s": starve_pause(4.0, 0.5, frozen=True),
}


def false_deaths(
    name: str, nodes: int, starved: int, fault: str, loss: float, seed: int, seconds: float
) -> tuple[int, int]:
    """Living nodes that somebody declared dead: healthy ones, starved ones. Each verdict counts once, however many
    learn of it, and however late (a starved node reads of it when it runs again).
    """
    w = world(name, f"{fault}/{starved}/{loss}/{seed}", nodes, loss)
    for number in range(starved):
        FAULTS[fault](w, f"n{1 + number}")
    w.run(seconds)
    victims = {f"n{1 + number}" for number in range(starved)}
    ill = sum(subject in victims for subject, _ in w.verdicts)
    return len(w.verdicts) - ill, ill


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--quick", action="store_true", help="fewer cells")
    parser.add_argument("--only", help="comma-separated protocols")
    parser.add_argument("--fault", default="", help="only faults with this in their name")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(PROTOCOLS)
    nodes = options.nodes

    print(f"{nodes} nodes, virtual time\n")
    print(f"{'kill to known, s':<24}{'first p50':>10}{'first max':>10}{'all p50':>10}{'all max':>10}{'B/s/node':>10}")
    for name in names:
        first, last, rate = detection(name, nodes, 6 if options.quick else 12)
        print(
            f"{name:<24}{statistics.median(first):>10.2f}{max(first):>10.2f}"
            f"{statistics.median(last):>10.2f}{max(last):>10.2f}{rate:>10.0f}",
            flush=True,
        )

    losses = (0.0, 0.05) if options.quick else (0.0, 0.05, 0.2)
    counts = (max(1, nodes // 10),) if options.quick else (1, max(1, nodes // 10), max(2, nodes // 4))
    print(f"\nfalse deaths in {options.seeds} runs of {options.seconds:.0f} s: of healthy nodes + of starved ones")
    print(f"{'starved':<34}{'loss':>6}" + "".join(f"{name:>17}" for name in names) + f"{'wall s':>8}")
    totals = dict.fromkeys(names, (0, 0))
    for fault in (name for name in FAULTS if options.fault in name):
        for starved in counts:
            for loss in losses:
                began = time.monotonic()
                cells = []
                for name in names:
                    runs = range(options.seeds)
                    found = [false_deaths(name, nodes, starved, fault, loss, s, options.seconds) for s in runs]
                    healthy, ill = sum(h for h, _ in found), sum(i for _, i in found)
                    totals[name] = (totals[name][0] + healthy, totals[name][1] + ill)
                    cells.append(f"{healthy} + {ill}")
                label = f"{starved} {fault}"
                row = "".join(f"{cell:>17}" for cell in cells)
                print(f"{label:<34}{loss:>6.0%}{row}{time.monotonic() - began:>8.1f}", flush=True)
    print(f"{'total':<40}" + "".join(f"{h} + {i}".rjust(17) for h, i in totals.values()))


if __name__ == "__main__":
    main()
