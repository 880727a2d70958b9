# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one cluster holds, in a form that another one can take: names instead of ids. Pure but for reading.

An export has networks, configs with their content, secrets without (nobody can read them), and services whose specs
name networks, secrets and configs. `localized` puts another cluster's ids in. Both clusters speak the same API, so a
spec goes over whole; nothing is translated that a table would have to know.
"""

from __future__ import annotations

import copy

from ansible_collections.swarm.cluster.plugins.module_utils.patch import read
from ansible_collections.swarm.cluster.plugins.module_utils.service_values import deep_canonical, image_name

HIDDEN_LABEL = "com.docker.swarm.predefined"
REFERENCES = (("Secrets", "Secret"), ("Configs", "Config"))


def export(client):
    """All that a manager tells. Raises ClientError."""
    networks = [
        network
        for network in client.get("/networks", filters={"scope": {"swarm": True}})
        if network.get("Scope") == "swarm"
        and not network.get("Ingress")
        and HIDDEN_LABEL not in (network.get("Labels") or {})
    ]
    names = {network["Id"]: network["Name"] for network in networks}
    return {
        "networks": sorted((_network(network) for network in networks), key=lambda item: item["Name"]),
        "secrets": sorted(
            (
                {"Name": item["Spec"]["Name"], "Labels": item["Spec"].get("Labels") or {}}
                for item in client.get("/secrets")
            ),
            key=lambda item: item["Name"],
        ),
        "configs": sorted((_config(item["Spec"]) for item in client.get("/configs")), key=lambda item: item["Name"]),
        "services": sorted(
            (portable(item["Spec"], names) for item in client.get("/services")), key=lambda item: item["Name"]
        ),
    }


def _network(network):
    options = {
        key: value
        for key, value in (network.get("Options") or {}).items()
        if key != "com.docker.network.driver.overlay.vxlanid_list"
    }
    return {
        "Name": network["Name"],
        "Driver": network["Driver"],
        "Labels": network.get("Labels") or {},
        "Attachable": bool(network.get("Attachable")),
        "Internal": bool(network.get("Internal")),
        "EnableIPv6": bool(network.get("EnableIPv6")),
        "Options": options,
        "Subnets": [entry.get("Subnet", "") for entry in read(network, "IPAM.Config") or []],
    }


def _config(spec):
    kept = {"Name": spec["Name"], "Labels": spec.get("Labels") or {}, "Data": spec.get("Data", "")}
    return {**kept, **({"Templating": spec["Templating"]} if spec.get("Templating") else {})}


def portable(spec, networks):
    """A service's spec with names: of networks from `networks` (id to name), of secrets and configs from the spec
    itself."""
    spec = copy.deepcopy(spec)
    task = spec.get("TaskTemplate") or {}
    for place in (spec, task):
        for entry in place.get("Networks") or []:
            entry["Target"] = networks.get(entry.get("Target"), entry.get("Target"))
    for key, kind in REFERENCES:
        for entry in read(task, f"ContainerSpec.{key}") or []:
            entry.pop(f"{kind}ID", None)
    return spec


def localized(spec, ids):
    """A portable spec with the ids of another cluster. `ids` maps "network", "secret" and "config" to ids by name.

    Returns the spec and what is missing, a phrase each.
    """
    spec, missing = copy.deepcopy(spec), []
    task = spec.setdefault("TaskTemplate", {})
    # Networks at the top are how clients wrote before 1.25; they mean the same.
    task["Networks"] = [*(task.get("Networks") or []), *(spec.pop("Networks", None) or [])]
    for entry in task["Networks"]:
        name = entry.get("Target")
        if name not in ids["network"]:
            missing.append(f"network {name}")
        entry["Target"] = ids["network"].get(name, name)
    for key, kind in REFERENCES:
        for entry in read(task, f"ContainerSpec.{key}") or []:
            name = entry.get(f"{kind}Name")
            if name not in ids[kind.lower()]:
                missing.append(f"{kind.lower()} {name}")
            entry[f"{kind}ID"] = ids[kind.lower()].get(name, "")
    return spec, missing


def same_service(found, wanted):
    """Whether two specs mean the same service.

    What is empty does not count, nor how many tasks there are, nor how often an update was forced.
    """
    return _essence(found) == _essence(wanted)


def _essence(spec):
    spec = copy.deepcopy(spec)
    task = spec.get("TaskTemplate") or {}
    task.pop("ForceUpdate", None)
    task.pop("Runtime", None)
    box = task.get("ContainerSpec") or {}
    box["Image"] = image_name(box.get("Image"))
    if box.get("Isolation") == "default":
        box.pop("Isolation")
    # An endpoint spec of no ports in the default mode is what no endpoint spec means.
    endpoint = spec.get("EndpointSpec") or {}
    if endpoint.get("Mode") == "vip":
        endpoint.pop("Mode")
    (spec.get("Mode") or {}).get("Replicated", {}).pop("Replicas", None)
    return deep_canonical(spec)


def chosen(services, names):
    """The services to take; all without names. Returns them and the names that there are none of."""
    if names is None:
        return services, []
    known = {service["Name"] for service in services}
    return [service for service in services if service["Name"] in names], sorted(set(names) - known)
