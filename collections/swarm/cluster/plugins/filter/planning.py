# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that decide from the facts of all hosts together; the decisions are in module_utils, pure and tested."""

from __future__ import annotations

import time

from ansible_collections.swarm.cluster.plugins.module_utils.membership import membership_plan
from ansible_collections.swarm.cluster.plugins.module_utils.preflight import fleet_findings, manager_warning


def findings_text(findings):
    """Findings as lines that a person reads, all hosts in one text."""
    lines = []
    for host, entries in findings.items():
        for entry in entries:
            lines += [
                f"{host}: {entry['check']}",
                f"    found   {entry['found']}",
                f"    wanted  {entry['wanted']}",
                f"    fix     {entry['fix']}",
            ]
    return "\n".join(lines)


def all_findings(facts, accepted=(), now=None):
    """Findings on each host, and between hosts and the controller: facts by host in, findings by host out."""
    between = fleet_findings(facts, time.time() if now is None else now)
    joined = {
        name: [entry for entry in [*values["findings"], *between[name]] if entry["check"] not in accepted]
        for name, values in facts.items()
    }
    return {name: findings for name, findings in joined.items() if findings}


def cluster_text(info, host):
    """A cluster in a few lines: nodes, services, and what to type next. `info` is a result of swarm_info on `host`."""
    if not info.get("nodes"):
        return (
            f"{host} is in no cluster" if not info.get("cluster_id") else f"cluster {info['cluster_id']} has no nodes"
        )
    managers = sum(node["role"] == "manager" for node in info["nodes"])
    lines = [f"cluster {info['cluster_id']}: {len(info['nodes'])} nodes, {managers} of them managers"]
    rows = [
        (
            node["hostname"],
            node["address"],
            ("leader" if node["leader"] else node["role"]) if node["reachability"] != "unreachable" else "unreachable",
            node["state"],
            node["availability"],
        )
        for node in info["nodes"]
    ]
    rows += [
        ("service " + service["name"], service["image"], f"{service['running']}/{service['desired']}", service["mode"],
         " ".join(service["ports"]))
        for service in info.get("services", [])
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines += [
        "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join(
        [*lines, f"next: on {host}, docker --context swarm service create --name hello alpine ping 127.0.0.1"]
    )


def adoption_text(plan):
    """A result of swarm_import in check mode, as lines that a person reads."""
    parts = (
        ("To be done, with -e adopt_apply=true:", plan.get("actions")),
        ("Left out:", plan.get("skipped")),
        ("There already, and left as it is:", plan.get("conflicts")),
    )
    lines = [line for title, entries in parts if entries for line in (title, *(f"  {entry}" for entry in entries))]
    return lines or ["All of it is there already."]


class FilterModule:
    """What Ansible asks for."""

    def filters(self):
        """Names of the filters."""
        return {
            "adoption_text": adoption_text,
            "all_findings": all_findings,
            "cluster_text": cluster_text,
            "findings_text": findings_text,
            "manager_warning": manager_warning,
            "membership_plan": membership_plan,
        }
