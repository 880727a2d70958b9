"""What really went over the wires of the network bed: frames as scapy reads them, with the port they were seen on.

    with Wire(bed) as wire:
        ...traffic...
    wire.frames                      # all of them, each once for every switch port that it passed

The watcher runs in the switch's namespace. It knows that it has seen everything when it sees a datagram that is sent
at the end, behind all other traffic.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from dataclasses import dataclass
from types import TracebackType

from network_bed import PATIENCE, Bed, run
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

END = b"the end of the recording"
WATCHER = """
import base64, select, socket, sys, time
links = {}
for port in sys.argv[3:]:
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
    link.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE: nothing may be missed
    link.bind((port, 0))
    links[link] = port
missing = set(sys.argv[3:5])
print("ready", flush=True)
end = time.monotonic() + float(sys.argv[2])
while missing and time.monotonic() < end:
    for link in select.select(list(links), [], [], 1)[0]:
        data = link.recv(1 << 17)
        if sys.argv[1].encode() in data:
            missing.discard(links[link])
        print(links[link], base64.b64encode(data).decode())
"""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame on the port of a machine (`port`: h1, client …). Outer part and, inside a tunnel, what it carries."""

    port: str
    outer: Ether

    @property
    def tunnel(self) -> bool:
        return VXLAN in self.outer

    @property
    def vni(self) -> int:
        return int(self.outer[VXLAN].vni)

    @property
    def inner(self) -> Ether:
        return self.outer[VXLAN].payload

    @property
    def talk(self) -> tuple[str, int, str, int] | None:
        """Source address and port, destination address and port of what is carried: TCP or UDP over IPv4."""
        packet = self.inner if self.tunnel else self.outer
        if IP not in packet:
            return None
        transport = TCP if TCP in packet else UDP if UDP in packet else None
        if transport is None:
            return None
        return packet[IP].src, packet[transport].sport, packet[IP].dst, packet[transport].dport


class Wire:
    def __init__(self, bed: Bed, seconds: int = 60) -> None:
        """`seconds`: the longest that a recording may take."""
        self.bed = bed
        self._seconds = seconds * PATIENCE
        self.frames: list[Frame] = []

    def __enter__(self) -> Wire:
        ports = ["client", *(host.name for host in self.bed.hosts)]
        command = ["ip", "netns", "exec", f"{self.bed.prefix}switch", sys.executable, "-c", WATCHER]
        command += [END.decode(), str(self._seconds)]
        self._watcher = subprocess.Popen([*command, *ports], stdout=subprocess.PIPE, text=True)
        assert self._watcher.stdout is not None and self._watcher.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                send = f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto({END!r}, ('10.99.0.1', 9))"
                subprocess.run(["ip", "netns", "exec", self.bed.client, sys.executable, "-c", send], check=True)
                output, _ = self._watcher.communicate(timeout=90 * PATIENCE)
                for line in output.splitlines():
                    port, text = line.split()
                    data = base64.b64decode(text)
                    if END not in data:
                        self.frames.append(Frame(port, Ether(data)))
        finally:
            self._watcher.kill()
            self._watcher.wait()

    def mac(self, host_name: str) -> str:
        """The MAC of a machine's own link."""
        text = run(f"ip netns exec {self.bed.prefix}{host_name} cat /sys/class/net/eth0/address")
        return text.strip()
