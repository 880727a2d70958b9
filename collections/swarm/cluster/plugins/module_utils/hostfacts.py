# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts of a host that the cluster needs, from /proc, /sys and a few harmless trials. Changes nothing.

Whether the kernel can make bridges and VXLANs is tried in a network namespace of its own that ends with the trial:
module lists do not know what is built in, and inside containers there are none.
"""

from __future__ import annotations

import json
import os
import platform
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time

COMMANDS = ("dockerd", "ip", "iptables", "modprobe")
APPARMOR = ("/sys/kernel/security/apparmor", "/sys/module/apparmor/parameters/enabled")
ENGINE_SOCKET = "/run/docker.sock"
AGENT = "/opt/swarm-agent/current"
VIRTUAL = re.compile(r"^(lo|docker|br-|veth|virbr|vxlan|cni|flannel|sw)")
LISTENING = {"tcp": "0A", "udp": "07"}


def run(command):
    """(code, output) of a command, (127, "") when it does not exist or hangs."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 127, ""
    return done.returncode, done.stdout.decode("utf-8", "replace")


def contents(path):
    """A small file's text without white space around it, "" when it cannot be read."""
    try:
        with open(path, errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def addresses():
    """The host's IPv4 addresses by interface, without loopback and those that container engines make."""
    found = {}
    code, output = run(["ip", "-j", "-4", "address", "show", "up"])
    try:
        interfaces = json.loads(output) if code == 0 else []
    except ValueError:
        interfaces = []
    for interface in interfaces:
        name = interface.get("ifname", "")
        for entry in interface.get("addr_info", []):
            if entry.get("scope") == "global" and not VIRTUAL.match(name):
                found.setdefault(name if name not in found else f"{name}:{len(found)}", entry["local"])
    return found


def default_route_address():
    """The source address of packets that leave the host, "" without a default route. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return probe.getsockname()[0]


def kernel_features():
    """Which parts of the data plane the kernel has."""

    def trial(*command):
        return run(["unshare", "--net", *command])[0] == 0

    def known(module):
        return os.path.isdir(f"/sys/module/{module}") or run(["modprobe", "--dry-run", "--quiet", module])[0] == 0

    return {
        "bridge": known("bridge") or trial("ip", "link", "add", "t0", "type", "bridge"),
        "vxlan": known("vxlan") or trial("ip", "link", "add", "t0", "type", "vxlan", "id", "1", "dstport", "4789"),
        "veth": known("veth") or trial("ip", "link", "add", "t0", "type", "veth", "peer", "name", "t1"),
        "nat": any(known(name) for name in ("iptable_nat", "nft_chain_nat", "nf_nat"))
        or trial("iptables", "-t", "nat", "-L", "-n"),
    }


def open_files(pid):
    """What a process has open, in the words of /proc; nothing when it is gone. A file that is closed just now is left
    out, not the others with it."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(f"{folder}/{name}")
        except OSError:
            continue


def listening(ports):
    """Who listens on which of these ports: {"2377/tcp": "swarm-agent"}. The kernel's sockets, for VXLAN and WireGuard,
    count as the agent's where one is installed."""
    inodes = {}
    for protocol, number in ports:
        for family in ("", "6"):
            for line in contents(f"/proc/net/{protocol}{family}").splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rsplit(":", 1)[1], 16) == number and fields[3] == LISTENING[protocol]:
                    inodes[fields[9]] = f"{number}/{protocol}"
    found = dict.fromkeys(inodes.values(), "the kernel")
    for pid in [entry for entry in os.listdir("/proc") if entry.isdigit()] if inodes else []:
        for link in open_files(pid):
            if link.startswith("socket:[") and link[8:-1] in inodes:
                command = contents(f"/proc/{pid}/cmdline").replace("\0", " ")
                name = "swarm-agent" if "swarm-agent" in command else contents(f"/proc/{pid}/comm")
                found[inodes[link[8:-1]]] = name
    for port in ("4789/udp", "4790/udp") if os.path.exists(AGENT) else ():
        if found.get(port) == "the kernel":
            found[port] = "swarm-agent"
    return found


def needed_commands():
    """The programs without which no container starts here. An engine whose kernel enforces AppArmor loads a profile for
    its containers, and refuses to start any when it cannot."""
    directory, enabled = APPARMOR
    enforced = os.path.isdir(directory) and contents(enabled) == "Y"
    return (*COMMANDS, "apparmor_parser") if enforced else COMMANDS


def engine_in_swarm(client_class):
    """True when the plain engine is in Docker's own swarm mode."""
    try:
        info = client_class(ENGINE_SOCKET, 10).get("/info")
    except Exception:  # no engine, or one that does not answer: nothing to say about it
        return False
    return (info.get("Swarm") or {}).get("LocalNodeState", "inactive") not in ("", "inactive")


def package_manager():
    """The package manager that roles know: apt, dnf or ""."""
    for name in ("apt-get", "dnf"):
        if shutil.which(name):
            return name.removesuffix("-get")
    return ""


def gather(ports, controller_time, client_class):
    """All facts of this host, apart from the address choice."""
    told = time.time()  # first of all, since what follows takes its time
    paths = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin"
    os.environ["PATH"] = paths
    release = dict(
        line.split("=", 1) for line in contents("/etc/os-release").splitlines() if "=" in line and line[0] != "#"
    )
    release = {key: value.strip("\"'") for key, value in release.items()}
    memory = re.search(r"MemTotal:\s+(\d+) kB", contents("/proc/meminfo"))
    disk = shutil.disk_usage("/var/lib")
    return {
        "hostname": socket.gethostname(),
        "machine_id": contents("/etc/machine-id"),
        "root": os.geteuid() == 0,
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "systemd": os.path.isdir("/run/systemd/system"),
        "init": contents("/proc/1/comm"),
        "python": platform.python_version(),
        "architecture": platform.machine(),
        "platform": f"{sys.version_info[0]}.{sys.version_info[1]}/{platform.machine()}",
        "distribution": release.get("ID", "unknown"),
        "distribution_version": release.get("VERSION_ID", ""),
        "families": [release.get("ID", ""), *release.get("ID_LIKE", "").split()],
        "kernel": platform.release(),
        "kernel_features": kernel_features(),
        "memory": int(memory.group(1)) * 1024 if memory else 0,
        "disk_free": disk.free,
        "time": told,
        "asked_at": controller_time,
        "addresses": addresses(),
        "default_route_address": default_route_address(),
        "listening": listening(ports),
        "engine_path": shutil.which("dockerd", path=paths) or "",
        "engine_in_swarm": engine_in_swarm(client_class),
        "package_manager": package_manager(),
        "missing_commands": [name for name in needed_commands() if not shutil.which(name, path=paths)],
    }
