# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services on a manager: plan a spec from parameters, send it, wait until it is so. For swarm_service and
swarm_stack."""

from __future__ import annotations

import time

from ansible_collections.swarm.cluster.plugins.module_utils import rollout
from ansible_collections.swarm.cluster.plugins.module_utils.client import ApiError, ClientError, Unreachable, by_name
from ansible_collections.swarm.cluster.plugins.module_utils.patch import plan, read, write
from ansible_collections.swarm.cluster.plugins.module_utils.service_table import OPTIONS
from ansible_collections.swarm.cluster.plugins.module_utils.service_values import (
    BLANKS,
    MODES,
    mode_of,
    mode_options,
    octal,
    with_label_options,
)
from ansible_collections.swarm.cluster.plugins.module_utils.values import SECOND

REFERENCES = {"secrets": ("Secret", "/secrets", ""), "configs": ("Config", "/configs", "/")}


def service_plan(name, params, current, whole=False):
    """What the service's spec shall be. `params` have ids in them (see `Services.resolved`); `current` is a spec, or
    None for a service that is to be created. Raises ClientError for what cannot be."""
    spec = current or {}
    mode = params["mode"] or mode_of(spec)
    if current is not None and mode != mode_of(spec):
        raise ClientError(
            f"service {name} is {mode_of(spec)} and cannot become {mode}: a service's mode is fixed. "
            f"Remove it first (state: absent), which ends its tasks."
        )
    if current is None and not params["image"]:
        raise ClientError(f"there is no service {name}; to create it, say which image it runs")
    if params["replicas"] is not None and MODES[mode][1] is None:
        raise ClientError(f"replicas cannot be set: service {name} is {mode}")
    # The number of tasks stays when it is left out, also where all else is taken as the whole.
    params = with_label_options(params, {} if whole else spec.get("Labels") or {})
    change = plan(OPTIONS, params, spec, BLANKS, whole)
    count = plan(mode_options(mode), params, change.wanted)
    change.wanted = count.wanted
    change.before.update(count.before)
    change.after.update(count.after)
    if current is None:
        change.wanted["Name"] = name
        change.wanted.setdefault("Mode", {MODES[mode][0]: {}})
        change.before, change.after = {}, {"mode": mode, **change.after}
    return change


def force(change):
    """Let all tasks be replaced although nothing else changed."""
    count = read(change.wanted, "TaskTemplate.ForceUpdate") or 0
    write(change.wanted, "TaskTemplate.ForceUpdate", count + 1)
    change.before["force_update"], change.after["force_update"] = count, count + 1


class Services:
    """Reading, writing and waiting. `check` is check mode: what an earlier task would have made may be missing."""

    def __init__(self, client, check=False):
        self.client = client
        self.check = check

    def find(self, name):
        """The service of exactly this name, None when there is none."""
        try:
            found = self.client.get("/services", filters=by_name(name))
        except (Unreachable, ApiError) as error:
            if self.check and getattr(error, "outside", True):
                return None
            raise
        return next((service for service in found if service["Spec"]["Name"] == name), None)

    def send(self, service, spec):
        """Create the service, or update the one that was read. Returns the server's warnings."""
        if service is None:
            answer = self.client.post("/services/create", spec)
        else:
            version = service["Version"]["Index"]
            answer = self.client.post(f"/services/{service['ID']}/update", spec, version=version)
        return (answer or {}).get("Warnings") or []

    def resolved(self, name, params):
        """Parameters with names of networks, secrets and configs turned into what the API wants."""
        params = dict(params)
        if params["networks"] is not None:
            params["networks"] = [dict(entry, name=self._network(entry["name"])) for entry in params["networks"]]
        for option, (kind, path, prefix) in REFERENCES.items():
            if params[option]:
                params[option] = [self._reference(name, entry, kind, path, prefix) for entry in params[option]]
        return params

    def _network(self, name):
        try:
            return self.client.get(f"/networks/{name}", scope="swarm")["Id"]
        except (ApiError, Unreachable) as error:
            # In check mode an earlier task may be the one that would make it.
            if self.check and (getattr(error, "outside", True) or error.status == 404):
                return name
            raise

    def _reference(self, service, entry, kind, path, prefix):
        try:
            listed = self.client.get(path, filters=by_name(entry["name"]))
        except (ApiError, Unreachable) as error:
            if not self.check or not getattr(error, "outside", True):
                raise
            listed = []
        found = [item for item in listed if item["Spec"]["Name"] == entry["name"]]
        if not found and not self.check:
            raise ClientError(f"service {service}: there is no {kind.lower()} {entry['name']}; create it first")
        reference = {f"{kind}ID": found[0]["ID"] if found else "", f"{kind}Name": entry["name"]}
        if entry.get("runtime"):
            return {**reference, "Runtime": {}}
        file = {"Name": entry["target"] or prefix + entry["name"], "UID": entry["uid"], "GID": entry["gid"]}
        return {**reference, "File": {**file, "Mode": octal(entry["mode"])}}

    def remove(self, service, wait, timeout):
        """Remove the service; with `wait` until its tasks are gone."""
        self.client.delete(f"/services/{service['ID']}")
        deadline = time.monotonic() + timeout
        while wait:
            left = [task for task in self.client.get("/tasks") if task.get("ServiceID") == service["ID"]]
            if not left:
                return
            if time.monotonic() > deadline:
                states = ", ".join(f"{task['ID']} {task['Status']['State']}" for task in left)
                raise ClientError(
                    f"{service['Spec']['Name']} is removed, but its tasks are still there after {timeout} s: {states}"
                )
            time.sleep(0.2)

    def observe(self, name):
        """The verdict on what is seen now."""
        service = self.find(name)
        if service is None:
            raise ClientError(f"service {name} was removed by somebody while it was waited for")
        counted = self.client.get("/services", filters={"id": {service["ID"]: True}}, status=True)
        service["ServiceStatus"] = (counted[0].get("ServiceStatus") or {}) if counted else {}
        tasks = self.client.get("/tasks", filters={"service": {service["ID"]: True}, "_up-to-date": {"true": True}})
        return service, rollout.judge(service, tasks, self.client.get("/nodes"))

    def wait(self, name, fresh, timeout, rolled_back=False):
        """Wait until the verdict is good, and return it. After a change (`fresh`) the tasks have to last; unchanged
        ones have lasted already. With `rolled_back` a finished rollback is what was wanted. Raises ClientError."""
        deadline = time.monotonic() + timeout
        steady, marker = 0.0, None
        while True:
            service, verdict = self.observe(name)
            state = read(service, "UpdateStatus.State") or ""
            now = time.monotonic()
            if rolled_back and state == "rollback_completed" and verdict.running == verdict.desired:
                return verdict
            if verdict.kind == rollout.FAILED and not (rolled_back and state == "rollback_completed"):
                raise ClientError(verdict.text)
            if not rolled_back:
                if verdict.kind == rollout.DONE or (verdict.kind == rollout.STEADY and not fresh):
                    return verdict
                if verdict.kind != rollout.STEADY or verdict.marker != marker:
                    steady, marker = now, verdict.marker
                elif now - steady >= verdict.hold / SECOND:
                    return verdict
            if now > deadline:
                raise ClientError(f"not converged after {timeout} s. {verdict.text}")
            time.sleep(0.2)
