#!/usr/bin/python
# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declares a service: creates it, changes what differs, and tells honestly whether it came to run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_service
short_description: Declare a service of the cluster
description:
  - Creates a service or changes what differs from what is declared. Options that are left out stay as they are; lists
    and dicts that are given are taken as the whole.
  - Waits until the service is what was declared. An update that is paused or rolled back is a failure, and the message
    says what was seen last. Running it again after a paused update takes the update up again.
version_added: 0.1.0
author:
  - swarm.cluster contributors (@swarm-cluster)
extends_documentation_fragment:
  - swarm.cluster.attributes
  - swarm.cluster.connection
options:
  name:
    description:
      - Name of the service.
    type: str
    required: true
  state:
    description:
      - Whether the service shall be there.
    type: str
    choices: [present, absent]
    default: present
  image:
    description:
      - Image of its containers. Needed to create a service. An image without a tag means V(latest).
    type: str
  command:
    description:
      - Replaces the image's entrypoint.
    type: list
    elements: str
  args:
    description:
      - Replaces the image's command.
    type: list
    elements: str
  env:
    description:
      - Environment, exactly these. Put numbers and booleans in quotes.
    type: dict
  working_dir:
    description:
      - Directory that the command starts in.
    type: str
  user:
    description:
      - User and group, by name or number.
    type: str
  groups:
    description:
      - Further groups.
    type: list
    elements: str
  hostname:
    description:
      - Hostname in containers. May hold templates of Docker, such as that of the node's hostname.
    type: str
  hosts:
    description:
      - Further entries for C(/etc/hosts), address by name.
    type: dict
  dns:
    description:
      - Name servers.
    type: list
    elements: str
  dns_search:
    description:
      - Search domains.
    type: list
    elements: str
  dns_options:
    description:
      - Options of the resolver.
    type: list
    elements: str
  tty:
    description:
      - Whether containers get a terminal.
    type: bool
  init:
    description:
      - Whether an init process runs in containers.
    type: bool
  read_only:
    description:
      - Whether the containers' root file system is read-only.
    type: bool
  stop_signal:
    description:
      - Signal that asks a container to stop.
    type: str
  stop_grace_period:
    description:
      - How long a container may take to stop, a duration such as V(10s) or V(1m30s).
    type: str
  sysctls:
    description:
      - Kernel parameters of containers.
    type: dict
  cap_add:
    description:
      - Capabilities to add.
    type: list
    elements: str
  cap_drop:
    description:
      - Capabilities to take away.
    type: list
    elements: str
  container_labels:
    description:
      - Labels of containers, exactly these.
    type: dict
  labels:
    description:
      - Labels of the service, exactly these.
    type: dict
  mode:
    description:
      - How many tasks there are. Fixed once a service exists; V(replicated) when it is created without.
    type: str
    choices: [replicated, global, replicated-job, global-job]
  replicas:
    description:
      - Number of tasks; of a V(replicated-job), of completions. Left out, it stays as it is, so that scaling by
        others is not undone.
    type: int
  max_concurrent:
    description:
      - Of a V(replicated-job), how many tasks run at once.
    type: int
  mounts:
    description:
      - What to mount into containers, exactly these.
    type: list
    elements: dict
    suboptions:
      target:
        description:
          - Path in the container.
        type: str
        required: true
      source:
        description:
          - Path on the host, or name of the volume.
        type: str
      type:
        description:
          - Kind of mount.
        type: str
        choices: [bind, volume, tmpfs]
        default: volume
      readonly:
        description:
          - Whether containers cannot write to it.
        type: bool
        default: false
      propagation:
        description:
          - Propagation of a bind mount.
        type: str
        choices: [rprivate, private, rshared, shared, rslave, slave]
      no_copy:
        description:
          - Whether a new volume stays empty instead of getting the image's content.
        type: bool
        default: false
      labels:
        description:
          - Labels of a new volume.
        type: dict
      driver_config:
        description:
          - Driver of a new volume.
        type: dict
        suboptions:
          name:
            description:
              - Name of the driver.
            type: str
          options:
            description:
              - Options of the driver.
            type: dict
      tmpfs_size:
        description:
          - Size of a tmpfs, such as V(64M).
        type: str
      tmpfs_mode:
        description:
          - Mode of a tmpfs in octal digits, such as V('1770').
        type: str
  networks:
    description:
      - Networks to attach to, exactly these.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name or id of the network.
        type: str
        required: true
      aliases:
        description:
          - Further names of the service on it.
        type: list
        elements: str
  endpoint_mode:
    description:
      - V(vip) gives the service one address, V(dnsrr) answers with all tasks'.
    type: str
    choices: [vip, dnsrr]
  publish:
    description:
      - Ports to publish, exactly these.
    type: list
    elements: dict
    suboptions:
      target_port:
        description:
          - Port in containers.
        type: int
        required: true
      published_port:
        description:
          - Port on hosts. Left out, the cluster chooses one from 30000-32767.
        type: int
      protocol:
        description:
          - Protocol.
        type: str
        choices: [tcp, udp, sctp]
        default: tcp
      mode:
        description:
          - V(ingress) publishes on every host, V(host) only where a task runs.
        type: str
        choices: [ingress, host]
        default: ingress
  placement:
    description:
      - Where tasks may run.
    type: dict
    suboptions:
      constraints:
        description:
          - Conditions such as V(node.labels.disk == ssd).
        type: list
        elements: str
      spread:
        description:
          - Node attributes to spread evenly over, such as V(node.labels.rack).
        type: list
        elements: str
      replicas_max_per_node:
        description:
          - Highest number of tasks on one node; V(0) means no limit.
        type: int
  limits:
    description:
      - What a task may use at most.
    type: dict
    suboptions:
      cpus:
        description:
          - Processors.
        type: float
      memory:
        description:
          - Memory, such as V(512M).
        type: str
      pids:
        description:
          - Number of processes; V(0) means no limit.
        type: int
  reservations:
    description:
      - What a node must have free for a task.
    type: dict
    suboptions:
      cpus:
        description:
          - Processors.
        type: float
      memory:
        description:
          - Memory, such as V(512M).
        type: str
  healthcheck:
    description:
      - How to tell whether a container is well.
    type: dict
    suboptions:
      test:
        description:
          - A command. One item goes to a shell, several start with V(CMD) or V(CMD-SHELL); V(NONE) alone turns the
            image's check off.
        type: list
        elements: str
      interval:
        description:
          - Time between checks, a duration such as V(10s) or V(1m30s).
        type: str
      timeout:
        description:
          - How long a check may take, a duration such as V(10s) or V(1m30s).
        type: str
      start_period:
        description:
          - Time in which failures do not count, a duration such as V(10s) or V(1m30s).
        type: str
      retries:
        description:
          - Failures in a row that make a container unhealthy.
        type: int
  logging:
    description:
      - Where containers' output goes.
    type: dict
    suboptions:
      driver:
        description:
          - Name of the log driver.
        type: str
      options:
        description:
          - Options of the driver.
        type: dict
  restart_config:
    description:
      - When ended tasks are replaced.
    type: dict
    suboptions:
      condition:
        description:
          - When.
        type: str
        choices: [none, on-failure, any]
      delay:
        description:
          - Pause before, a duration such as V(10s) or V(1m30s).
        type: str
      max_attempts:
        description:
          - How often; V(0) means without end.
        type: int
      window:
        description:
          - Time in which O(restart_config.max_attempts) counts, a duration such as V(10s) or V(1m30s).
        type: str
  update_config:
    description:
      - How changes roll out.
    type: dict
    suboptions:
      parallelism:
        description:
          - How many tasks to update at once; V(0) means all.
        type: int
      delay:
        description:
          - Pause between them, a duration such as V(10s) or V(1m30s).
        type: str
      failure_action:
        description:
          - What to do when a task fails.
        type: str
        choices: [pause, continue, rollback]
      monitor:
        description:
          - How long a task is watched for failure, a duration such as V(10s) or V(1m30s).
        type: str
      max_failure_ratio:
        description:
          - Share of tasks that may fail.
        type: float
      order:
        description:
          - Whether the old task stops first or the new one starts first.
        type: str
        choices: [stop-first, start-first]
  rollback_config:
    description:
      - How a rollback goes.
    type: dict
    suboptions:
      parallelism:
        description:
          - How many tasks to roll back at once; V(0) means all.
        type: int
      delay:
        description:
          - Pause between them, a duration such as V(10s) or V(1m30s).
        type: str
      failure_action:
        description:
          - What to do when a task fails.
        type: str
        choices: [pause, continue]
      monitor:
        description:
          - How long a task is watched for failure, a duration such as V(10s) or V(1m30s).
        type: str
      max_failure_ratio:
        description:
          - Share of tasks that may fail.
        type: float
      order:
        description:
          - Whether the old task stops first or the new one starts first.
        type: str
        choices: [stop-first, start-first]
  secrets:
    description:
      - Secrets as files in containers, exactly these.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the secret.
        type: str
        required: true
      target:
        description:
          - Name of the file in containers; by default the secret's name, below C(/run/secrets).
        type: str
      uid:
        description:
          - Owner.
        type: str
        default: "0"
      gid:
        description:
          - Group.
        type: str
        default: "0"
      mode:
        description:
          - Mode in octal digits.
        type: str
        default: "0444"
  configs:
    description:
      - Configs as files in containers, exactly these.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the config.
        type: str
        required: true
      target:
        description:
          - Name of the file in containers; by default C(/) and the config's name.
        type: str
      uid:
        description:
          - Owner.
        type: str
        default: "0"
      gid:
        description:
          - Group.
        type: str
        default: "0"
      mode:
        description:
          - Mode in octal digits.
        type: str
        default: "0444"
  force_update:
    description:
      - Replace all tasks although nothing changed. This is a change each time.
    type: bool
    default: false
  wait:
    description:
      - Whether to wait until the service is what was declared. A paused update and a rollback are failures then.
    type: bool
    default: true
  wait_timeout:
    description:
      - Seconds to wait.
    type: int
    default: 300
seealso:
  - module: swarm.cluster.swarm_info
"""

EXAMPLES = r"""
- name: Run three web servers, reached on port 8080 of every host
  swarm.cluster.swarm_service:
    name: web
    image: nginx:1.27
    replicas: 3
    publish:
      - published_port: 8080
        target_port: 80
    update_config:
      parallelism: 1
      order: start-first
      failure_action: rollback

- name: Change only its image
  swarm.cluster.swarm_service:
    name: web
    image: nginx:1.28

- name: Remove it
  swarm.cluster.swarm_service:
    name: web
    state: absent
"""

RETURN = r"""
service:
  description: The service as the API returns it, empty when it is absent.
  type: dict
  returned: always
  sample: {ID: 5t7v9x1z3b5d7f9h2j4l6n8p0, Spec: {Name: web}}
running:
  description: How many tasks run (of a job, how many completed).
  type: int
  returned: when it waited
  sample: 3
desired:
  description: How many should.
  type: int
  returned: when it waited
  sample: 3
actions:
  description: What was done, or would be in check mode, a sentence each.
  type: list
  elements: str
  returned: always
  sample: [changed image of web]
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.swarm.cluster.plugins.module_utils import rollout
from ansible_collections.swarm.cluster.plugins.module_utils.client import (
    CONNECTION_SPEC,
    ApiError,
    Client,
    ClientError,
    Unreachable,
    by_name,
)
from ansible_collections.swarm.cluster.plugins.module_utils.patch import plan, read, write
from ansible_collections.swarm.cluster.plugins.module_utils.service_options import (
    BLANKS,
    MODES,
    OPTIONS,
    mode_of,
    mode_options,
)
from ansible_collections.swarm.cluster.plugins.module_utils.service_spec import SERVICE_SPEC
from ansible_collections.swarm.cluster.plugins.module_utils.values import SECOND

ATTEMPTS = 10
REFERENCES = {"secrets": ("Secret", "/secrets", ""), "configs": ("Config", "/configs", "/")}


class ServiceState:
    """One service on a manager, and how to change it."""

    def __init__(self, module):
        self.module = module
        self.params = dict(module.params)
        self.name = module.params["name"]
        self.client = Client(module.params["socket"], module.params["timeout"])
        self.actions = []
        self.warnings = []
        self.before = {}
        self.after = {}
        self.verdict = None

    def find(self):
        """The service of exactly this name, None when there is none. In check mode there may be no cluster yet."""
        try:
            services = self.client.get("/services", filters=by_name(self.name))
        except Unreachable:
            if self.module.check_mode:
                return None
            raise
        except ApiError as error:
            if self.module.check_mode and error.status == 503:
                return None
            raise
        return next((service for service in services if service["Spec"]["Name"] == self.name), None)

    def present(self):
        """Create the service or change what differs, then wait."""
        for attempt in range(ATTEMPTS):
            try:
                if self._declare():
                    break
            except ApiError as error:
                if not error.conflict or attempt + 1 == ATTEMPTS:
                    raise
        if self.params["wait"] and not self.module.check_mode:
            self._wait(fresh=bool(self.actions))

    def absent(self):
        """Remove the service, and wait until its tasks are gone."""
        service = self.find()
        if service is None:
            return
        self.actions, self.before, self.after = [f"removed {self.name}"], {"service": self.name}, {"service": None}
        if self.module.check_mode:
            return
        self.client.delete(f"/services/{service['ID']}")
        deadline = time.monotonic() + self.params["wait_timeout"]
        while self.params["wait"]:
            left = [task for task in self.client.get("/tasks") if task.get("ServiceID") == service["ID"]]
            if not left:
                return
            if time.monotonic() > deadline:
                states = ", ".join(f"{task['ID']} {task['Status']['State']}" for task in left)
                raise ClientError(f"{self.name} is removed, but its tasks are still there: {states}")
            time.sleep(0.2)

    def _declare(self):
        """One attempt: read, plan, apply."""
        service = self.find()
        current = service["Spec"] if service else {}
        mode = self.params["mode"] or mode_of(current)
        if service and mode != mode_of(current):
            raise ClientError(
                f"service {self.name} is {mode_of(current)} and cannot become {mode}: a service's mode is fixed. "
                f"Remove it first (state: absent), which ends its tasks."
            )
        if not service and not self.params["image"]:
            raise ClientError(f"there is no service {self.name}; to create it, say which image it runs")
        if "replicas" in self._given() and MODES[mode][1] is None:
            raise ClientError(f"replicas cannot be set: service {self.name} is {mode}")
        change = plan([*OPTIONS, *mode_options(mode)], self._resolved(), current, BLANKS)
        if self.params["force_update"] and service:
            count = read(current, "TaskTemplate.ForceUpdate") or 0
            write(change.wanted, "TaskTemplate.ForceUpdate", count + 1)
            change.before["force_update"], change.after["force_update"] = count, count + 1
        state = read(service or {}, "UpdateStatus.State") or ""
        resume = service is not None and not change.changed and state in ("paused", "rollback_paused")
        if service is None:
            change.wanted["Name"] = self.name
            change.wanted.setdefault("Mode", {MODES[mode][0]: {}})
            change.before, change.after = {}, {"mode": mode, **change.after}
            self.actions = [f"created {self.name}"]
        elif change.changed:
            self.actions = [f"changed {', '.join(sorted(change.after))} of {self.name}"]
        elif resume:
            self.actions = [f"took up the paused update of {self.name} again"]
            change.before, change.after = {"update": state}, {"update": "updating"}
        self.before, self.after = change.before, change.after
        if self.actions and not self.module.check_mode:
            self._send(service, change.wanted)
        return True

    def _send(self, service, spec):
        if service is None:
            answer = self.client.post("/services/create", spec)
        else:
            version = service["Version"]["Index"]
            answer = self.client.post(f"/services/{service['ID']}/update", spec, version=version)
        self.warnings = (answer or {}).get("Warnings") or []

    def _given(self):
        return {name for name, value in self.params.items() if value is not None}

    def _resolved(self):
        """The parameters with names of networks, secrets and configs turned into what the API wants."""
        params = dict(self.params)
        if params["networks"] is not None:
            params["networks"] = [
                {"Target": self._network(entry["name"]), "Aliases": entry["aliases"] or []}
                for entry in params["networks"]
            ]
        for option, (kind, path, prefix) in REFERENCES.items():
            if params[option]:
                params[option] = [self._reference(entry, kind, path, prefix) for entry in params[option]]
        return params

    def _network(self, name):
        try:
            return self.client.get(f"/networks/{name}", scope="swarm")["Id"]
        except (ApiError, Unreachable) as error:
            # In check mode an earlier task may be the one that would make it.
            if self.module.check_mode and getattr(error, "status", 404) in (404, 503):
                return name
            raise

    def _reference(self, entry, kind, path, prefix):
        try:
            found = [item for item in self.client.get(path, filters=by_name(entry["name"])) if
                     item["Spec"]["Name"] == entry["name"]]  # fmt: skip
        except (ApiError, Unreachable):
            if not self.module.check_mode:
                raise
            found = []
        if not found and not self.module.check_mode:
            raise ClientError(f"service {self.name}: there is no {kind.lower()} {entry['name']}; create it first")
        return {
            f"{kind}ID": found[0]["ID"] if found else "",
            f"{kind}Name": entry["name"],
            "File": {
                "Name": entry["target"] or prefix + entry["name"],
                "UID": entry["uid"],
                "GID": entry["gid"],
                "Mode": int(entry["mode"], 8),
            },
        }

    def _observe(self):
        service = self.find()
        if service is None:
            raise ClientError(f"service {self.name} was removed by somebody while it was waited for")
        counted = self.client.get("/services", filters={"id": {service["ID"]: True}}, status=True)
        service["ServiceStatus"] = (counted[0].get("ServiceStatus") or {}) if counted else {}
        tasks = self.client.get("/tasks", filters={"service": {service["ID"]: True}, "_up-to-date": {"true": True}})
        return rollout.judge(service, tasks, self.client.get("/nodes"))

    def _wait(self, fresh):
        """Wait until the verdict is good. After a change the tasks have to last; unchanged ones have lasted already."""
        deadline = time.monotonic() + self.params["wait_timeout"]
        steady, marker = 0.0, None
        while True:
            self.verdict = self._observe()
            now = time.monotonic()
            if self.verdict.kind == rollout.FAILED:
                raise ClientError(self.verdict.text)
            if self.verdict.kind == rollout.DONE or (self.verdict.kind == rollout.STEADY and not fresh):
                return
            if self.verdict.kind != rollout.STEADY or self.verdict.marker != marker:
                steady, marker = now, self.verdict.marker
            elif now - steady >= self.verdict.hold / SECOND:
                return
            if now > deadline:
                raise ClientError(f"not converged after {self.params['wait_timeout']} s. {self.verdict.text}")
            time.sleep(0.2)


def main():
    module = AnsibleModule(argument_spec={**CONNECTION_SPEC, **SERVICE_SPEC}, supports_check_mode=True)
    state = ServiceState(module)
    try:
        getattr(state, module.params["state"])()
        service = state.find()
    except (ClientError, ValueError) as error:
        module.fail_json(msg=str(error), actions=state.actions, diff={"before": state.before, "after": state.after})
    result = {"service": service or {}, "actions": state.actions}
    if state.verdict:
        result.update(running=state.verdict.running, desired=state.verdict.desired)
    for warning in state.warnings:
        module.warn(warning)
    module.exit_json(changed=bool(state.actions), diff={"before": state.before, "after": state.after}, **result)


if __name__ == "__main__":
    main()
