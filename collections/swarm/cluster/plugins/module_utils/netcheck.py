# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network between hosts: what probes look like, and what the reports of all hosts together mean (pure).

Each host sends every other one UDP datagrams to the gossip port and to the VXLAN port, the latter real VXLAN frames,
and opens TCP connections. It hears them by a raw socket, which gets what has passed the host's own packet filter,
whoever has the port: so the check says the same before the cluster is there and while it runs.
"""

from __future__ import annotations

import json
import struct

MANAGER_PORT, GOSSIP_PORT, VXLAN_PORT = 2377, 7946, 4789
WIREGUARD_PORT = 4790  # of encrypted networks alone
MAGIC = b"swarm-netcheck1 "
# A network identifier that no cluster allocates, so that a kernel with VXLAN devices drops the probe.
PROBE_VNI = 0xFFFFFE
# IEEE 802's local experimental type: nothing answers it.
PROBE_ETHERTYPE = 0x88B5
# Sizes of whole IP packets whose arrival tells the path's MTU: Ethernet, PPPoE, clouds and tunnels, IPv6's least.
MTU_SIZES = (9000, 8951, 8500, 1500, 1492, 1480, 1460, 1450, 1440, 1420, 1400, 1380, 1350, 1300, 1280)
# IP, UDP, VXLAN and the inner Ethernet header.
VXLAN_COST = 50
ALLOWED_SKEW = 1.0  # seconds


def datagram(message, size=0):
    """A plain probe, for the ports of gossip and of encrypted networks: the message, filled up so that the whole IP
    packet has that size."""
    payload = MAGIC + json.dumps(message, separators=(",", ":")).encode() + b"\0"
    return payload.ljust(size - 28, b"\0") if size else payload


def vxlan_frame(message):
    """A probe for the VXLAN port: a VXLAN header, and an Ethernet broadcast of an experimental type in it."""
    header = struct.pack("!BxxxI", 0x08, PROBE_VNI << 8)
    ethernet = b"\xff" * 6 + b"\x02swarm"[:6] + struct.pack("!H", PROBE_ETHERTYPE)
    return header + ethernet + datagram(message)


def parse(packet):
    """(source address, destination port, size of the whole packet, message) of a probe; None for other packets."""
    if len(packet) < 28 or packet[0] >> 4 != 4:
        return None
    length = (packet[0] & 15) * 4
    port = struct.unpack("!H", packet[length + 2 : length + 4])[0]
    payload = packet[length + 8 :]
    if port == VXLAN_PORT and payload[:1] == b"\x08" and payload[4:7] == PROBE_VNI.to_bytes(3, "big"):
        payload = payload[22:]
    if not payload.startswith(MAGIC):
        return None
    try:
        message = json.loads(payload[len(MAGIC) :].split(b"\0", 1)[0])
        source = ".".join(str(byte) for byte in packet[12:16])
        return (source, port, len(packet), message) if isinstance(message, dict) else None
    except ValueError:
        return None


def tcp_ports(name, managers):
    """The TCP ports that others have to reach on a host."""
    return [MANAGER_PORT, GOSSIP_PORT] if name in managers else [GOSSIP_PORT]


def skew(one, other):
    """How far the other's clock is ahead of the one's, in seconds, from what each heard of the other; None if unknown.

    A one-way time is the way plus the difference of the clocks; of two, the way cancels out if both take equally long.
    """
    there = other["heard"].get(one["name"], {}).get("one_way")
    back = one["heard"].get(other["name"], {}).get("one_way")
    return None if there is None or back is None else (there - back) / 2


def lacking(source, target, managers):
    """What of the source's probes did not get to the target, as port/protocol."""
    heard = target["heard"].get(source["name"], {})
    tcp = source["tcp"].get(target["name"], {})
    lost = [f"{port}/tcp" for port in tcp_ports(target["name"], managers) if tcp.get(str(port)) != "open"]
    lost += [] if heard.get("gossip") else [f"{GOSSIP_PORT}/udp"]
    return lost + ([] if heard.get("vxlan") else [f"{VXLAN_PORT}/udp"])


def usable_mtu(source, target):
    """The largest probed packet that got from the source to the target whole."""
    return target["heard"].get(source["name"], {}).get("mtu", 0)


def expected_mtu(source, target):
    """The largest probed packet that both interfaces could carry."""
    return max([size for size in MTU_SIZES if size <= min(source["mtu"], target["mtu"])], default=0)


def judge(reports, managers):
    """What is wrong between the hosts. Reports by host in; findings out, each with check, hosts, found and fix."""
    findings = []

    def add(check, hosts, found, fix):
        findings.append({"check": check, "hosts": hosts, "found": found, "fix": fix})

    names = list(reports)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            one, other = reports[first], reports[second]
            if one["machine_id"] and one["machine_id"] == other["machine_id"]:
                add("machine id", [first, second], f"both have {one['machine_id']}",
                    "on one of them: rm /etc/machine-id && systemd-machine-id-setup, then reboot")  # fmt: skip
            ahead = skew(one, other)
            if ahead is not None and abs(ahead) > ALLOWED_SKEW:
                word = "ahead of" if ahead > 0 else "behind"
                add("clock", [first, second], f"{second} is {abs(ahead):.1f} s {word} {first}",
                    "on both: systemctl enable --now systemd-timesyncd, or another time service")  # fmt: skip
    for source in names:
        for target in names:
            if source == target:
                continue
            sender, receiver = reports[source], reports[target]
            lost = lacking(sender, receiver, managers)
            if lost:
                told = {f"{port}/tcp": text for port, text in sender["tcp"].get(target, {}).items()}
                found = ", ".join(f"{port} ({told.get(port, 'nothing arrives')})" for port in lost)
                ports, fro = ", ".join(lost), sender["address"]
                add("ports", [source, target], f"from {source} to {target}: {found}",
                    f"on {target}, and in every filter on the way, let {ports} in from {fro}")  # fmt: skip
            seen = sorted(set(receiver["heard"].get(source, {}).get("sources", [])) - {sender["address"]})
            if seen:
                add("address", [source, target],
                    f"{target} sees {source} as {', '.join(seen)}, not as {sender['address']}",
                    "let hosts reach each other without address translation, or choose cluster_address on the network "
                    "they share")  # fmt: skip
            usable, expected = usable_mtu(sender, receiver), expected_mtu(sender, receiver)
            if usable and usable < expected:
                add("mtu", [source, target],
                    f"packets of {usable} bytes get from {source} to {target}, larger ones do not, though both "
                    f"interfaces carry {min(sender['mtu'], receiver['mtu'])}",
                    f"mend the path, or create overlays with an MTU of at most {usable - VXLAN_COST} "
                    f"(--opt com.docker.network.driver.mtu={usable - VXLAN_COST})")  # fmt: skip
    return findings


def matrix(reports, managers):
    """A table that a person reads: rows send, columns hear; the path's MTU where all is well, else what is lost."""
    names = list(reports)
    rows = [["from \\ to", *names]]
    for source in names:
        cells = []
        for target in names:
            if source == target:
                cells.append("-")
                continue
            lost = lacking(reports[source], reports[target], managers)
            mtu = usable_mtu(reports[source], reports[target])
            cells.append("no " + " ".join(lost) if lost else f"ok, mtu {mtu}")
        rows.append([source, *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def notes(reports):
    """What is not as it could be, and only some clusters need, as lines."""
    lost = [
        f"from {source} to {target}"
        for source in reports
        for target in reports
        if source != target
        # A host that hears nothing at all of another has a finding, which says enough.
        and reports[target]["heard"].get(source, {}).get("gossip")
        and not reports[target]["heard"][source].get("encrypted")
    ]
    needed = f"note: {WIREGUARD_PORT}/udp does not arrive {', '.join(lost)}: encrypted networks alone need it"
    return [needed] if lost else []


def report_text(reports, managers):
    """Matrix, findings and notes as lines."""
    lines = matrix(reports, managers)
    for finding in judge(reports, managers):
        lines += ["", f"{finding['check']}: {finding['found']}", f"    fix: {finding['fix']}"]
    for note in notes(reports):
        lines += ["", note]
    return lines
