"""When a server gets traffic, and when it may be told to stop: decided from the sockets in its namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from swarm_agent.worker.sockets import QUIET, Probe, Socket, busy, listening
from swarm_agent.worker.traffic import Traffic

LISTEN, ESTABLISHED, SYN_RECEIVED, FIN_WAIT2, CLOSE_WAIT = 10, 1, 3, 5, 8
LONG = QUIET * 10
IDLE = Socket(ESTABLISHED, 80, False, received=LONG, sent=LONG)


def test_only_what_can_be_reached_from_outside_listens() -> None:
    found = [Socket(LISTEN, 80, False), Socket(LISTEN, 41000, True), Socket(ESTABLISHED, 443, False)]
    assert listening(found) == {80}


@pytest.mark.parametrize(
    ("connection", "under_way"),
    [
        (IDLE, False),
        (Socket(SYN_RECEIVED, 80, False), True),
        (Socket(ESTABLISHED, 80, False, unread=1, received=LONG, sent=LONG), True),
        (Socket(ESTABLISHED, 80, False, unsent=1, received=LONG, sent=LONG), True),
        (Socket(ESTABLISHED, 80, False, received=LONG, sent=2 * LONG), True),  # asked, not answered
        (Socket(CLOSE_WAIT, 80, False, received=LONG, sent=2 * LONG), True),  # the same of one who says no more
        (Socket(ESTABLISHED, 80, False, received=2 * LONG, sent=LONG), False),  # answered
        (Socket(ESTABLISHED, 80, False, received=0.01, sent=0.01), True),  # in the middle of a conversation
        (Socket(FIN_WAIT2, 80, False, received=LONG, sent=2 * LONG), False),  # the server has said all it had to say
        (Socket(ESTABLISHED, 80, True, unread=1), False),  # the container with itself
        (Socket(ESTABLISHED, 5432, False, unread=1), False),  # its own question to somebody else
        (Socket(LISTEN, 80, False, unread=3), False),
    ],
)
def test_a_connection_is_busy_while_an_answer_may_be_due(connection: Socket, under_way: bool) -> None:
    assert busy([connection], {80}) == ([connection] if under_way else [])


class Shown:
    """A sight that shows one list of sockets after another; the last stays."""

    def __init__(self, *looks: Sequence[Socket]) -> None:
        self.looks = list(looks)
        self.closed = False

    def sockets(self) -> Sequence[Socket]:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def close(self) -> None:
        self.closed = True


SERVER, ASKED = Socket(LISTEN, 80, False), Socket(ESTABLISHED, 80, False, unread=5)


async def test_draining_ends_with_the_last_answer_and_two_looks_must_agree() -> None:
    shown = Shown([SERVER, ASKED], [SERVER], [SERVER, ASKED], [SERVER, IDLE], [SERVER, IDLE], [SERVER, ASKED])
    assert await Traffic(lambda pid: shown).until_drained(7, 60)
    assert len(shown.looks) == 1 and shown.closed


async def test_a_server_that_closed_its_listener_still_has_its_connections() -> None:
    shown = Shown([SERVER, ASKED], [ASKED], [], [])
    assert await Traffic(lambda pid: shown).until_drained(7, 60)
    assert len(shown.looks) == 1


async def test_draining_and_waiting_for_a_listener_are_bounded() -> None:
    assert not await Traffic(lambda pid: Shown([SERVER, ASKED])).until_drained(7, 0.01)
    assert not await Traffic(lambda pid: Shown([SERVER])).until_listening(7, {443}, 0.01)


async def test_one_of_the_ports_is_enough() -> None:
    shown = Shown([], [Socket(LISTEN, 9, False)], [SERVER], [])
    assert await Traffic(lambda pid: shown).until_listening(7, {80, 443}, 60)
    assert len(shown.looks) == 1


async def test_what_cannot_be_seen_is_not_waited_for() -> None:
    assert await Traffic(lambda pid: None).until_drained(7, 60)
    assert await Traffic().until_drained(0, 60)
    assert await Traffic().until_listening(os.getpid(), {80}, 60)  # it shares our own network namespace


PROGRAM = """
import socket, sys
server = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
inner = socket.create_server(("127.0.0.1", 81))
client = socket.create_connection(("10.1.2.3", 80))
accepted, _ = server.accept()
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    """A server with one connection, in a network namespace of its own."""
    inside = "ip link set lo up && ip address add 10.1.2.3/32 dev lo && exec " + sys.executable + ' -c "$0"'
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", inside, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
async def test_the_kernel_shows_a_containers_sockets(program: subprocess.Popen[str]) -> None:
    def do(line: str) -> None:
        assert program.stdin and program.stdout
        program.stdin.write(line + "\n")
        program.stdin.flush()
        assert program.stdout.readline() == "done\n"

    own = os.stat("/proc/self/ns/net").st_ino
    probe = Probe.open(program.pid)
    assert probe is not None
    assert os.stat("/proc/thread-self/ns/net").st_ino == own
    try:
        assert listening(probe.sockets()) == {80}
        do("client.send(b'question')")
        [asked] = [one for one in probe.sockets() if one.port == 80 and one.unread]
        assert asked.unread == 8 and busy(probe.sockets(), {80})
        do("accepted.recv(100)")
        assert busy(probe.sockets(), {80})
        do("accepted.send(b'answer'); client.recv(100)")
        assert await Traffic().until_drained(program.pid, 60)
        do("client.close(); accepted.close(); server.close()")
        assert listening(probe.sockets()) == set()
        assert [one.state for one in probe.sockets() if one.port == 80] == []
    finally:
        probe.close()
