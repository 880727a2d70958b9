# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who founds the cluster and who joins it. Pure: what every host says of itself in; a plan, or why there is none, out.

The trap this closes: a manager whose disk was lost says "in no cluster", and a playbook that then calls `init` on it
starts a second cluster beside the one that still runs on the others. So nobody founds while anybody is in a cluster.
"""

from __future__ import annotations


def membership_plan(hosts, managers):
    """Plan membership.

    `hosts` maps a host's name to the result of swarm_info on it (local_state, control_available, cluster_id, node_id,
    node_ids), `managers` lists the inventory's managers in order. The result: seed (the host to talk to), found (true
    when it has to found the cluster), problem (a sentence, "" when there is none).
    """
    states = {name: info.get("local_state", "inactive") for name, info in hosts.items()}
    inside = {name: hosts[name] for name, state in states.items() if state not in ("inactive", "absent")}
    ruling = [name for name, info in inside.items() if info.get("control_available")]
    ruling.sort(key=lambda name: managers.index(name) if name in managers else len(managers))
    problem = _state_problem(states) or _cluster_problem(inside, ruling)
    seed = ruling[0] if ruling else next(iter(managers), "")
    return {"seed": seed, "found": not inside, "problem": problem}


def _state_problem(states):
    stuck = [f"{name} ({state})" for name, state in states.items() if state in ("locked", "error", "pending")]
    if not stuck:
        return ""
    return (
        f"Neither inside nor outside of a cluster: {', '.join(stuck)}. Mend these first: unlock a locked manager, wait "
        f"for a pending one, or take the host out with: docker --context swarm swarm leave --force"
    )


def _cluster_problem(inside, ruling):
    if inside and not ruling:
        return (
            f"{', '.join(inside)}: in a cluster whose managers are not among the hosts of this run. Add a manager of "
            f"theirs to the group managers, or take them out with: docker --context swarm swarm leave --force"
        )
    clusters = {}
    for name in ruling:
        clusters.setdefault(inside[name].get("cluster_id"), []).append(name)
    if len(clusters) > 1:
        parts = "; ".join(f"{', '.join(names)} in {cluster}" for cluster, names in clusters.items())
        return (
            f"These hosts are in different clusters: {parts}. A host that shall change has to leave its cluster first."
        )
    if not ruling:
        return ""
    known = set(inside[ruling[0]].get("node_ids") or [])
    strangers = [name for name, info in inside.items() if info.get("node_id") not in known]
    if strangers:
        return (
            f"{', '.join(strangers)}: in a cluster that {ruling[0]} does not know them from. Take them out with: "
            f"docker --context swarm swarm leave --force"
        )
    return ""
