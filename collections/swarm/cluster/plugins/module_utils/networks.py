# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Overlay networks of a cluster. A network never changes once it exists: what differs needs another one in its
place."""

from __future__ import annotations

import ipaddress

from ansible_collections.swarm.cluster.plugins.module_utils.client import ApiError, ClientError
from ansible_collections.swarm.cluster.plugins.module_utils.fields import Field, options
from ansible_collections.swarm.cluster.plugins.module_utils.patch import plan, read
from ansible_collections.swarm.cluster.plugins.module_utils.values import texts

OURS = "com.docker.network.driver.overlay."  # options that the cluster adds


def subnets(wanted):
    """Subnets as the API wants them."""
    keys = {"Subnet": "subnet", "Gateway": "gateway", "IPRange": "ip_range"}
    return [{key: entry[name] for key, name in keys.items() if entry[name]} for entry in wanted]


def same_subnets(found):
    """Subnets by meaning; a gateway that is the subnet's first address is what a cluster chooses by itself."""
    result = []
    for entry in found or []:
        try:
            subnet = ipaddress.ip_network(entry.get("Subnet", ""), strict=False)
            first = str(next(subnet.hosts(), ""))
        except ValueError:
            subnet, first = entry.get("Subnet"), ""
        gateway = (entry.get("Gateway") or "").partition("/")[0]
        result.append((str(subnet), "" if gateway == first else gateway, entry.get("IPRange") or ""))
    return sorted(result)


def show_subnets(found):
    """Subnets for people."""
    return [entry.get("Subnet", "") for entry in found or []]


def own_options(found):
    """The driver's options without those that the cluster adds."""
    return {key: value for key, value in (found or {}).items() if not key.startswith(OURS)}


FIELDS = (
    Field("driver", "Driver. Networks of a cluster are overlays.", path="Driver", empty="overlay",
          choices=("overlay",)),
    Field("subnets", "Address ranges, exactly these. Left out, the cluster chooses one from its pools.", "list",
          "IPAM.Config", subnets, [], same_subnets, show_subnets, elements="dict", fields=(
              Field("subnet", "Subnet such as V(10.20.0.0/24).", required=True),
              Field("gateway", "Its gateway; by default the first address."),
              Field("ip_range", "Part of the subnet that addresses are taken from."))),
    Field("ipv6", "Whether the network has IPv6.", "bool", "EnableIPv6", empty=False),
    Field("internal", "Whether containers on it reach no other network by it.", "bool", "Internal", empty=False),
    Field("attachable", "Whether plain containers can be attached to it, as by C(docker run --network).", "bool",
          "Attachable", empty=False),
    Field("ingress", "Whether it carries published ports. There is one such network.", "bool", "Ingress", empty=False),
    Field("driver_options", "Options for the driver, exactly these. V({encrypted: ''}) encrypts traffic.",
          "dict", "Options", texts, {}, own_options, own_options),
    Field("labels", "Labels, exactly these.", "dict", "Labels", texts, {}),
)  # fmt: skip
OPTIONS = options(FIELDS)


def network_plan(params, current):
    """What the network shall be; `current` is what the API says of it, {} when there is none."""
    return plan(OPTIONS, params, current)


def create_request(name, wanted):
    """The body that creates the network."""
    body = {key: wanted[key] for key in ("Internal", "Attachable", "Ingress", "EnableIPv6", "Labels") if key in wanted}
    body["Options"] = own_options(wanted.get("Options"))
    if read(wanted, "IPAM.Config"):
        body["IPAM"] = {"Driver": "default", "Config": wanted["IPAM"]["Config"]}
    return {"Name": name, "Driver": "overlay", "Scope": "swarm", "CheckDuplicate": True, **body}


def users_of(network_id, services):
    """Names of the services on a network."""
    return sorted(
        service["Spec"]["Name"]
        for service in services
        if any(entry.get("Target") == network_id for entry in read(service, "Spec.TaskTemplate.Networks") or [])
    )


def find(declaration, name):
    """The cluster's network of exactly this name, None when there is none. Refuses to take a host's own for it.

    A manager that cannot answer for the cluster at that moment says 404, too, since it still shows its host's own
    networks. So nobody is believed before the same manager has told something of the cluster.
    """
    for attempt in range(2):
        try:
            return declaration.ask(f"/networks/{name}", scope="swarm")
        except ApiError as error:
            if error.status != 404:
                raise
        if attempt == 0:
            declaration.ask("/swarm")
    return None


def declare(declaration, name, params, recreate=False):
    """Have the network."""
    found = find(declaration, name)
    change = network_plan(params, found or {})
    if found is None:
        declaration.note(f"created network {name}", {}, {f"network {name}": {"driver": "overlay", **change.after}})
    elif not change.changed:
        return
    else:
        differs = ", ".join(sorted(change.after))
        users = users_of(found["Id"], declaration.ask("/services", []))
        if users or not recreate:
            raise ClientError(
                f"network {name} differs in {differs}, and a network cannot be changed. "
                + (f"It is in use by {', '.join(users)}: take them off it first, or declare another network."
                   if users else "Nothing uses it: with recreate: true it is removed and made anew.")
            )  # fmt: skip
        declaration.note(f"made network {name} anew for its {differs}", {f"network {name}": change.before},
                         {f"network {name}": change.after})  # fmt: skip
        if not declaration.check:
            remove(declaration, found)
    if not declaration.check:
        create(declaration, name, create_request(name, change.wanted))


def create(declaration, name, body):
    """Create a network. The host's part of one of that name that was just removed may be there for a moment yet."""

    def ask():
        try:
            declaration.client.post("/networks/create", body)
        except ApiError as error:
            if error.status != 409 or find(declaration, name) is not None:
                raise
            return False, error.reason
        return True, ""

    declaration.wait_until(ask, f"network {name} is not created")


def remove(declaration, found):
    """Remove a network, once the tasks that are on their way out are off it."""
    seen = []

    def ask():
        try:
            declaration.client.delete(f"/networks/{found['Id']}")
        except ApiError as error:
            if error.status == 404:
                return True, ""
            # Tasks that end free it in a moment; a service does not.
            if "in use by task" not in error.reason:
                raise
            seen.append(error.reason)
            return False, error.reason
        return True, ""

    declaration.wait_until(ask, f"network {found['Name']} is not removed")
