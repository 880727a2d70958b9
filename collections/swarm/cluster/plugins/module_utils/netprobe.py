# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends and hears the probes of netcheck on one host, until all is heard both ways or the time is over.

All hosts run this at about the same time. Each probe says what its sender has got so far, so that a host knows when its
peers need it no more: where all is well the check takes a second or two, and only what is lost is waited for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import selectors
import socket
import struct
import threading
import time

from ansible_collections.swarm.cluster.plugins.module_utils.netcheck import (
    GOSSIP_PORT,
    MTU_SIZES,
    VXLAN_PORT,
    WIREGUARD_PORT,
    datagram,
    parse,
    tcp_ports,
    vxlan_frame,
)

_EVERY = 0.4  # seconds between two rounds of probes
_ROUNDS_OF_SIZES = 3  # to a peer that listens: one may be lost for once
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3
_SIOCGIFMTU = 0x8921


class Prober:
    """One host's part in the check. `peers` maps every host's name to its address, this one's included."""

    def __init__(self, name, peers, managers, run, mtu):
        self.name, self.address = name, peers[name]
        self.peers = {peer: address for peer, address in peers.items() if peer != name}
        self.managers, self.run, self.mtu = managers, run, mtu
        self.heard = {
            peer: {"gossip": False, "vxlan": False, "encrypted": False, "mtu": 0, "sources": []} for peer in self.peers
        }
        self.tcp = {peer: dict.fromkeys(map(str, tcp_ports(peer, managers)), "no answer") for peer in self.peers}
        self.sizes_sent = dict.fromkeys(self.peers, 0)  # rounds of them since the peer was heard: since it listens
        self.sizes_got = set()  # peers that have sent theirs
        self.content = set()  # peers that have got all from this host
        self.over = threading.Event()

    def complete(self, peer):
        """Whether all of the peer's probes got here, and all of this host's connections there."""
        heard = self.heard[peer]
        return (
            peer in self.sizes_got
            and heard["gossip"]
            and heard["vxlan"]
            and all(told == "open" for told in self.tcp[peer].values())
        )

    def take(self, packet, now):
        """Note a packet that arrived."""
        probe = parse(packet)
        if probe is None:
            return
        source, port, size, message = probe
        peer = message.get("from")
        if peer not in self.heard or message.get("run") != self.run:
            return
        heard = self.heard[peer]
        if source not in heard["sources"]:
            heard["sources"].append(source)
        if port == VXLAN_PORT:
            heard["vxlan"] = True
        elif port == WIREGUARD_PORT:
            heard["encrypted"] = True
        elif port == GOSSIP_PORT:
            heard["gossip"] = True
            if message.get("size"):
                heard["mtu"] = max(heard["mtu"], size)
            else:
                # The quickest of all is the one that waited least on its way.
                one_way = now - message["sent"]
                heard["one_way"] = min(heard.get("one_way", one_way), one_way)
        if self.name in message.get("sized", ()):
            self.sizes_got.add(peer)
        if self.name in message.get("complete", ()):
            self.content.add(peer)

    def message(self, **more):
        """What every probe says."""
        done = [peer for peer in self.peers if self.complete(peer)]
        sized = [peer for peer, rounds in self.sizes_sent.items() if rounds >= _ROUNDS_OF_SIZES]
        return {"run": self.run, "from": self.name, "complete": done, "sized": sized, "sent": time.time(), **more}

    def probes_for(self, peer):
        """The next round for a peer, as pairs of port and payload. Sizes go on until the peer has had its rounds."""
        probes = []
        if self.sizes_sent[peer] < _ROUNDS_OF_SIZES:
            fitting = [size for size in MTU_SIZES if size <= self.mtu]
            probes = [(GOSSIP_PORT, datagram(self.message(size=size), size)) for size in fitting]
            self.sizes_sent[peer] += bool(self.heard[peer]["sources"])
        message = self.message()
        plain, frame = datagram(message), vxlan_frame(message)
        return [*probes, (WIREGUARD_PORT, plain), (GOSSIP_PORT, plain), (VXLAN_PORT, frame)]

    def finished(self):
        """Whether there is nothing left to wait for, on either side."""
        return self.content == set(self.peers) and all(self.complete(peer) for peer in self.peers)

    def check(self, seconds):
        """Send and hear until finished or the seconds are over; returns the report."""
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP))
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            raw.setblocking(False)
            sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sender.bind((self.address, 0))
            sender.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
            selector = stack.enter_context(selectors.DefaultSelector())
            selector.register(raw, selectors.EVENT_READ, None)
            for port in tcp_ports(self.name, self.managers):
                listener = self._listener(port)
                if listener is not None:
                    selector.register(stack.enter_context(listener), selectors.EVENT_READ, listener)
            threads = [threading.Thread(target=self._connect, args=(peer,), daemon=True) for peer in self.peers]
            for thread in threads:
                thread.start()
            self._loop(selector, raw, sender, time.monotonic() + seconds)
            self.over.set()
        return {"name": self.name, "address": self.address, "mtu": self.mtu, "heard": self.heard, "tcp": self.tcp}

    def _listener(self, port):
        """A socket that takes connections on the port, or None when the cluster's own agent has it already."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.address, port))
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                return None
            raise
        listener.listen(64)
        listener.setblocking(False)
        return listener

    def _loop(self, selector, raw, sender, deadline):
        next_round, farewell = 0.0, 2
        while time.monotonic() < deadline:
            now = time.monotonic()
            if now >= next_round:
                # Two more rounds at the end, since the last word that a peer waits for may be the one that got lost.
                farewell -= self.finished()
                self._send(sender)
                if farewell < 0:
                    return
                next_round = now + _EVERY
            for key, _events in selector.select(max(0.0, min(next_round, deadline) - time.monotonic())):
                if key.fileobj is raw:
                    self._drain(raw)
                else:
                    with contextlib.suppress(OSError):
                        key.fileobj.accept()[0].close()

    def _drain(self, raw):
        for _number in range(1000):
            try:
                packet = raw.recv(65535)
            except BlockingIOError:
                return
            self.take(packet, time.time())

    def _send(self, sender):
        for peer, address in self.peers.items():
            for port, payload in self.probes_for(peer):
                # A packet that this host's own interface or filter refuses is one that does not arrive.
                with contextlib.suppress(OSError):
                    sender.sendto(payload, (address, port))

    def _connect(self, peer):
        """Try the peer's ports until each answers, or the check is over."""
        left = list(self.tcp[peer])
        while left and not self.over.is_set():
            for port in list(left):
                told = self._try(self.peers[peer], int(port))
                self.tcp[peer][port] = told
                if told == "open":
                    left.remove(port)
            self.over.wait(_EVERY)

    def _try(self, address, port):
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
                connection.settimeout(2)
                connection.bind((self.address, 0))
                connection.connect((address, port))
            return "open"
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "no answer"
        except OSError as error:
            return error.strerror or str(error)


def interface_mtu(address):
    """The MTU of the interface that has the address. Raises LookupError when none has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _index, name in socket.if_nameindex():
            request = struct.pack("16s240x", name.encode())
            try:
                found = fcntl.ioctl(asking, 0x8915, request)  # SIOCGIFADDR
            except OSError:
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return struct.unpack("16xi", fcntl.ioctl(asking, _SIOCGIFMTU, request)[:20])[0]
    raise LookupError(f"no interface of this host has the address {address}")
