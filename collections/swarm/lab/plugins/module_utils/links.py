"""Cutting the links between hosts.

A cut is a direction between two hosts, and is made where the frame arrives: a rule in the receiver's network
namespace, at the ingress hook of its interface, drops every frame from the sender's MAC. That is below ARP, VXLAN and
all the rules that the engine and the agent make, and out of the way of anything that rewrites those. The rules of a
host are one table, replaced in one transaction, so applying them again is harmless; they are lost with the host's
namespace and applied anew at its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .command import run
from .state import Link

_TABLE = "netdev swarmlab"


def between(left: str, right: str, *, one_way: bool = False) -> frozenset[Link]:
    """The directions of a cut between two hosts: both, or only from left to right."""
    return frozenset({(left, right)} if one_way else {(left, right), (right, left)})


def around(name: str, everyone: Iterable[str], *, one_way: bool = False) -> frozenset[Link]:
    """The directions of a cut between one host and all others: both, or only what it sends."""
    others = [other for other in everyone if other != name]
    return frozenset().union(*(between(name, other, one_way=one_way) for other in others))


def ruleset(receiver: str, cuts: Iterable[Link], macs: Mapping[str, str]) -> str:
    """The nft script that makes a receiver drop exactly the frames of the cuts towards it.

    `macs` has the hosts that run; one that does not sends nothing, and gets its rules when it starts.
    """
    senders = sorted(macs[sender] for sender, target in cuts if target == receiver and sender in macs)
    # Adding a table that exists is no error, so this removes one whether or not it is there.
    script = [f"add table {_TABLE}", f"delete table {_TABLE}"]
    if senders:
        script += [
            f"add table {_TABLE}",
            f'add chain {_TABLE} cut {{ type filter hook ingress device "eth0" priority -500; }}',
            f"add rule {_TABLE} cut ether saddr {{ {', '.join(senders)} }} counter drop",
        ]
    return "\n".join(script) + "\n"


def apply(pid: int, script: str) -> None:
    """Run a host's ruleset in the network namespace of its first process."""
    run(["nsenter", "--target", str(pid), "--net", "nft", "--file", "-"], stdin=script)
