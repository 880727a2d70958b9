# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold before anything is changed. Pure: facts in, findings out.

A finding says what was found, what is wanted, and the command that mends it. All findings of all hosts are shown at
once: nobody should have to run a playbook five times to learn five things.
"""

from __future__ import annotations

import ipaddress

MIN_PYTHON = (3, 11)
MIN_MEMORY = 400 * 2**20
MIN_DISK = 1024 * 2**20
MAX_CLOCK_DIFFERENCE = 60
KERNEL = {"bridge": "bridges", "vxlan": "VXLAN", "veth": "veth pairs", "nat": "iptables' nat table"}


def finding(check, found, wanted, fix):
    """One thing that stands in the way."""
    return {"check": check, "found": found, "wanted": wanted, "fix": fix}


def choose_address(addresses, explicit, hint, alone, default_route=""):
    """The address by which other hosts reach this one: (address, finding or None).

    The user's own choice counts first, then the address that Ansible reaches the host by, then the only one there is.
    With several and no hint nothing is chosen, since the wrong network fails late; a host on its own may take any.
    """
    if explicit:
        if explicit in addresses.values() or explicit in addresses:
            return addresses.get(explicit, explicit), None
        listed = ", ".join(f"{address} on {name}" for name, address in addresses.items()) or "none"
        return "", finding(
            "address", f"cluster_address is {explicit}; this host has {listed}", "an address or interface of this host",
            "set cluster_address in the inventory to one of those",
        )  # fmt: skip
    if hint in addresses.values():
        return hint, None
    found = sorted(set(addresses.values()), key=lambda text: int(ipaddress.ip_address(text)))
    if len(found) == 1:
        return found[0], None
    if alone and default_route in found:
        return default_route, None
    if alone and found:
        return found[0], None
    listed = ", ".join(f"{address} on {name}" for name, address in addresses.items()) or "no address at all"
    return "", finding(
        "address", listed, "one address by which the other hosts reach this one",
        "set cluster_address for this host in the inventory, to an address or an interface",
    )  # fmt: skip


def host_findings(facts, ports):
    """Findings on one host. `ports` are those the agent will use here: [(protocol, number)]."""
    found = []
    if not facts["root"]:
        found.append(finding("root", f"user {facts['user']}", "root", "add --become (and -K if sudo wants a password)"))
    if not facts["systemd"]:
        found.append(
            finding("systemd", f"process 1 is {facts['init']}", "systemd", "use a system that is booted by systemd")
        )
    version = tuple(int(part) for part in facts["python"].split(".")[:2])
    if version < MIN_PYTHON:
        wanted = ".".join(str(part) for part in MIN_PYTHON)
        fix = "use Debian 12, Ubuntu 24.04 or newer, or set ansible_python_interpreter to a newer Python"
        found.append(finding("python", f"Python {facts['python']}", f"Python {wanted} or newer", fix))
    for feature, present in facts["kernel_features"].items():
        if not present:
            fix = f"modprobe {'iptable_nat' if feature == 'nat' else feature}, or install all modules of the kernel"
            found.append(finding("kernel", f"no {KERNEL[feature]}", f"{KERNEL[feature]} in the kernel", fix))
    if facts["engine_in_swarm"]:
        found.append(
            finding(
                "engine", "the engine is in Docker's own swarm mode", "a plain engine", "docker swarm leave --force"
            )
        )
    if not facts["engine_path"] and not facts["package_manager"]:
        found.append(
            finding("engine", "no dockerd and neither apt nor dnf", "an engine, or a way to install one",
                    "install Docker by hand: https://docs.docker.com/engine/install")
        )  # fmt: skip
    for protocol, number in ports:
        holder = facts["listening"].get(f"{number}/{protocol}")
        if holder and holder != "swarm-agent":
            fix = f"stop {holder}, or give it another port: ss -lnp sport = :{number}"
            found.append(
                finding("port", f"{number}/{protocol} is taken by {holder}", "that port free for the cluster", fix)
            )
    if facts["memory"] < MIN_MEMORY:
        found.append(
            finding(
                "memory", f"{facts['memory'] // 2**20} MiB", f"{MIN_MEMORY // 2**20} MiB or more", "give the host more"
            )
        )
    if facts["disk_free"] < MIN_DISK:
        wanted = f"{MIN_DISK // 2**20} MiB free"
        found.append(
            finding("disk", f"{facts['disk_free'] // 2**20} MiB free on /var/lib", wanted, "docker system prune")
        )
    if facts["address_finding"]:
        found.append(facts["address_finding"])
    return found


def clock_findings(asked, told, answered):
    """What is wrong with a host's clock that told this time, asked and answered at these times of the controller.

    The host read its clock at an unknown moment in between, which on a busy machine may be long: only what is wrong
    whenever it was counts.
    """
    ahead, behind = told - answered, asked - told
    if max(ahead, behind) <= MAX_CLOCK_DIFFERENCE:
        return []
    word, seconds = ("ahead of", ahead) if ahead > behind else ("behind", behind)
    wanted = f"at most {MAX_CLOCK_DIFFERENCE} s: certificates have times"
    return [finding("clock", f"at least {seconds:.0f} s {word} the controller", wanted, "timedatectl set-ntp true")]


def fleet_findings(hosts, now):
    """Findings between hosts and the controller, by host: {name: facts} in, {name: [finding]} out.

    `now` is the controller's clock, read after all hosts have answered.
    """
    result = {
        name: clock_findings(facts["asked_at"], facts["time"], now) if facts.get("asked_at") else []
        for name, facts in hosts.items()
    }
    fixes = {
        "hostname": ("hostname", "hostnamectl set-hostname NAME"),
        "machine_id": ("machine id", "rm /etc/machine-id && systemd-machine-id-setup, then reboot"),
        "address": ("address", "set cluster_address for each host in the inventory"),
    }
    for key, (word, fix) in fixes.items():
        owners = {}
        for name, facts in hosts.items():
            if facts.get(key):
                owners.setdefault(facts[key], []).append(name)
        for value, names in owners.items():
            for name in names if len(names) > 1 else []:
                others = ", ".join(other for other in names if other != name)
                result[name].append(finding(key, f"{word} {value}, as on {others}", f"a {word} of its own", fix))
    return result


def manager_warning(count):
    """What to say about the number of managers, "" when it is good."""
    if count == 0:
        return "No host is in the group managers; a cluster needs one."
    if count % 2 == 0:
        return (
            f"{count} managers bear the loss of {(count - 1) // 2}, no more than {count - 1} do. "
            f"Use an odd number: {count - 1} or {count + 1}."
        )
    return ""
