"""Tracked connections are dropped by what they are about, also on kernels that cannot delete by selection."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from swarm_agent.network.conntrack import Answers, SentTo, drop, drop_each

NAMESPACE = f"ct{os.getpid()}"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
CODE = """
import socket, sys
from swarm_agent.network.conntrack import *
for port in (5001, 5002):
    socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.2", port))
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"x", (f"fd00::{port}", 80))
print(eval(sys.argv[1]))
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    rule = "iptables -A OUTPUT -m conntrack --ctstate NEW -j ACCEPT"
    for command in (f"ip netns add {NAMESPACE}", *(f"ip netns exec {NAMESPACE} {part}" for part in (
        "ip link set lo up", "ip addr add fd00::5001 dev lo nodad", "ip addr add fd00::5002 dev lo nodad",
        rule.replace("iptables", "ip6tables"), "ip6tables -A OUTPUT -p icmpv6 -j DROP", rule,
        "iptables -A OUTPUT -p icmp -j DROP",
    ))):  # fmt: skip
        subprocess.run(command.split(), check=True)
    yield NAMESPACE
    subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


@pytest.mark.parametrize(
    ("call", "left"),
    [
        (f"{function}({selection})", left)
        for function, wrap in ((drop_each.__name__, "{}"), (drop.__name__, "[{}]"))
        for selection, left in (
            (wrap.format(SentTo("udp", 5001)), {"5002"}),
            (wrap.format(SentTo("udp", ip="127.0.0.2")), set()),
            (wrap.format(Answers("127.0.0.2", "udp")), set()),
            (wrap.format(Answers("127.0.0.3")), {"5001", "5002"}),
        )
    ],
)
def test_the_selected_entries_go_and_the_others_stay(namespace: str, call: str, left: set[str]) -> None:
    run = ["ip", "netns", "exec", namespace]
    answer = subprocess.run([*run, sys.executable, "-c", CODE, call], capture_output=True, text=True, check=True).stdout
    assert answer.strip() in ("0", "[]")
    entries = subprocess.run([*run, "cat", "/proc/net/nf_conntrack"], capture_output=True, text=True, check=True).stdout
    assert {port for port in ("5001", "5002") if f"dport={port}" in entries} == left


@pytest.mark.parametrize(
    ("selection", "left"),
    [
        (SentTo("udp", ip="fd00::5001"), {"5002"}),
        (Answers("fd00::5001"), {"5002"}),
        (Answers("fd00::5001", "udp"), {"5002"}),
        (Answers("fd00::5001", "tcp"), {"5001", "5002"}),
        (Answers("fd00::3"), {"5001", "5002"}),
    ],
)
def test_the_same_holds_for_ipv6_and_leaves_ipv4_alone(namespace: str, selection: object, left: set[str]) -> None:
    run = ["ip", "netns", "exec", namespace]
    subprocess.run([*run, sys.executable, "-c", CODE, f"drop([{selection}])"], check=True)
    entries = subprocess.run([*run, "cat", "/proc/net/nf_conntrack"], capture_output=True, text=True, check=True).stdout
    assert {port for port in ("5001", "5002") if f"dst=fd00:0000:0000:0000:0000:0000:0000:{port}" in entries} == left
    assert all(f"dport={port}" in entries for port in ("5001", "5002"))
