# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of swarm_service and its place in a ServiceSpec.

Traps: an UpdateConfig that is there but names no parallelism means "all at once", one that is not there means one by
one, so a new one starts from Swarm's defaults (BLANKS); a published port 0 means "choose one"; images are echoed with
the digest that a client resolved.
"""

from __future__ import annotations

import re

from ansible_collections.swarm.cluster.plugins.module_utils.patch import Option, read, unordered
from ansible_collections.swarm.cluster.plugins.module_utils.values import (
    SECOND,
    cpus,
    duration,
    size,
    spoken,
    spoken_size,
    text_of,
    texts,
)

MODES = {
    "replicated": ("Replicated", "Replicas"),
    "global": ("Global", None),
    "replicated-job": ("ReplicatedJob", "TotalCompletions"),
    "global-job": ("GlobalJob", None),
}
_ROLLOUT = {"Parallelism": 1, "FailureAction": "pause", "Order": "stop-first"}
BLANKS = {"UpdateConfig": _ROLLOUT, "RollbackConfig": _ROLLOUT}


def image_name(image):
    """What an image's reference means: `web` is `web:latest`; a digest counts only when it stands alone."""
    if not image:
        return image
    name, _at, digest = image.partition("@")
    last = name.rsplit("/", 1)[-1]
    if ":" in last or digest:
        return name if ":" in last else image
    return f"{name}:latest"


def env_list(env):
    """Environment as the API wants it."""
    return [f"{key}={text_of(value)}" for key, value in sorted(env.items())]


def hosts_list(hosts):
    """Extra hosts: the API wants "ADDRESS NAME"."""
    return [f"{address} {name}" for name, address in sorted(hosts.items())]


def without_empty(values):
    """A dict without what is empty, as servers echo it."""
    return {key: value for key, value in values.items() if value not in (None, "", [], {}, 0, False)}


def ports(publish):
    """Published ports."""
    return [
        {
            "Protocol": port["protocol"],
            "TargetPort": port["target_port"],
            "PublishedPort": port["published_port"] or 0,
            "PublishMode": port["mode"],
        }
        for port in publish
    ]


def same_ports(found):
    """Published ports by meaning."""
    return unordered(
        [
            (
                port.get("Protocol") or "tcp",
                port.get("TargetPort", 0),
                port.get("PublishedPort", 0),
                port.get("PublishMode") or "ingress",
            )
            for port in found or []
        ]
    )


def show_ports(found):
    """Published ports for people."""
    return [f"{published or 'any'}:{target}/{protocol} {mode}"
            for protocol, target, published, mode in same_ports(found)]  # fmt: skip


def mounts(wanted):
    """Mounts."""
    result = []
    for mount in wanted:
        entry = {
            "Type": mount["type"],
            "Source": mount["source"],
            "Target": mount["target"],
            "ReadOnly": mount["readonly"],
        }
        if mount["propagation"]:
            entry["BindOptions"] = {"Propagation": mount["propagation"]}
        driver = mount["driver_config"] or {}
        volume = {
            "NoCopy": mount["no_copy"],
            "Labels": texts(mount["labels"]),
            "DriverConfig": without_empty({"Name": driver.get("name"), "Options": texts(driver.get("options"))}),
        }
        tmpfs = {
            "SizeBytes": size(mount["tmpfs_size"]) if mount["tmpfs_size"] else 0,
            "Mode": int(mount["tmpfs_mode"], 8) if mount["tmpfs_mode"] else 0,
        }
        entry["VolumeOptions"], entry["TmpfsOptions"] = without_empty(volume), without_empty(tmpfs)
        result.append(without_empty(entry))
    return result


def deep_canonical(value):
    """A value without empty parts at any depth, dicts in any order."""
    if isinstance(value, dict):
        parts = {key: deep_canonical(part) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part not in (None, "", [], {}, 0, False)}
    if isinstance(value, list):
        return [deep_canonical(part) for part in value]
    return value


def set_of_objects(value):
    """A list of objects whose order has no meaning."""
    return sorted((deep_canonical(entry) for entry in value or []), key=repr)


def capabilities(names):
    """Capabilities as servers keep them: upper case, with the prefix CAP_."""
    upper = [name.upper() for name in names or []]
    return sorted(name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}" for name in upper)


def health_test(test):
    """A health check's command: a text goes to a shell, a list is taken as it is."""
    return ["CMD-SHELL", test[0]] if len(test) == 1 and test[0] != "NONE" else list(test)


def constraints(found):
    """Constraints by meaning: white space around operators has none."""
    return sorted(re.sub(r"\s*(==|!=)\s*", r"\1", text.strip()) for text in found or [])


def references(kind):
    """For secrets and configs: (translate, canonical, show). Ids are put in by the module, which can look them up."""

    def show(found):
        return sorted(f"{entry.get(kind + 'Name')} at {read(entry, 'File.Name')}" for entry in found or [])

    return set_of_objects, show


def _rollout(option, path):
    return (
        Option(f"{option}.parallelism", f"{path}.Parallelism", default=1),
        Option(f"{option}.delay", f"{path}.Delay", duration, 0, show=spoken),
        Option(f"{option}.failure_action", f"{path}.FailureAction", default="pause"),
        Option(f"{option}.monitor", f"{path}.Monitor", duration, 5 * SECOND, lambda v: v or 5 * SECOND, spoken),
        Option(f"{option}.max_failure_ratio", f"{path}.MaxFailureRatio", default=0, canonical=float),
        Option(f"{option}.order", f"{path}.Order", default="stop-first"),
    )


_TASK = "TaskTemplate"
_CONTAINER = "TaskTemplate.ContainerSpec"
_same_secrets, _show_secrets = references("Secret")
_same_configs, _show_configs = references("Config")

OPTIONS = (
    Option("image", f"{_CONTAINER}.Image", default="", canonical=image_name),
    Option("command", f"{_CONTAINER}.Command", default=[]),
    Option("args", f"{_CONTAINER}.Args", default=[]),
    Option("env", f"{_CONTAINER}.Env", env_list, [], unordered),
    Option("working_dir", f"{_CONTAINER}.Dir", default=""),
    Option("user", f"{_CONTAINER}.User", default=""),
    Option("groups", f"{_CONTAINER}.Groups", default=[], canonical=unordered),
    Option("hostname", f"{_CONTAINER}.Hostname", default=""),
    Option("hosts", f"{_CONTAINER}.Hosts", hosts_list, [], unordered),
    Option("dns", f"{_CONTAINER}.DNSConfig.Nameservers", default=[]),
    Option("dns_search", f"{_CONTAINER}.DNSConfig.Search", default=[]),
    Option("dns_options", f"{_CONTAINER}.DNSConfig.Options", default=[]),
    Option("tty", f"{_CONTAINER}.TTY", default=False),
    Option("init", f"{_CONTAINER}.Init", default=False),
    Option("read_only", f"{_CONTAINER}.ReadOnly", default=False),
    Option("stop_signal", f"{_CONTAINER}.StopSignal", default=""),
    Option("stop_grace_period", f"{_CONTAINER}.StopGracePeriod", duration, 10 * SECOND, show=spoken),
    Option("sysctls", f"{_CONTAINER}.Sysctls", texts, {}),
    Option("cap_add", f"{_CONTAINER}.CapabilityAdd", capabilities, [], capabilities),
    Option("cap_drop", f"{_CONTAINER}.CapabilityDrop", capabilities, [], capabilities),
    Option("container_labels", f"{_CONTAINER}.Labels", texts, {}),
    Option("mounts", f"{_CONTAINER}.Mounts", mounts, [], set_of_objects),
    Option("secrets", f"{_CONTAINER}.Secrets", default=[], canonical=_same_secrets, show=_show_secrets),
    Option("configs", f"{_CONTAINER}.Configs", default=[], canonical=_same_configs, show=_show_configs),
    Option("healthcheck.test", f"{_CONTAINER}.Healthcheck.Test", health_test, []),
    Option("healthcheck.interval", f"{_CONTAINER}.Healthcheck.Interval", duration, 0, show=spoken),
    Option("healthcheck.timeout", f"{_CONTAINER}.Healthcheck.Timeout", duration, 0, show=spoken),
    Option("healthcheck.start_period", f"{_CONTAINER}.Healthcheck.StartPeriod", duration, 0, show=spoken),
    Option("healthcheck.retries", f"{_CONTAINER}.Healthcheck.Retries", default=0),
    Option("labels", "Labels", texts, {}),
    Option("networks", f"{_TASK}.Networks", default=[], canonical=set_of_objects),
    Option("endpoint_mode", "EndpointSpec.Mode", default="vip"),
    Option("publish", "EndpointSpec.Ports", ports, [], same_ports, show_ports),
    Option("placement.constraints", f"{_TASK}.Placement.Constraints", default=[], canonical=constraints),
    Option(
        "placement.spread",
        f"{_TASK}.Placement.Preferences",
        lambda names: [{"Spread": {"SpreadDescriptor": name}} for name in names],
        [],
        show=lambda found: [read(entry, "Spread.SpreadDescriptor") for entry in found],
    ),
    Option("placement.replicas_max_per_node", f"{_TASK}.Placement.MaxReplicas", default=0),
    Option("limits.cpus", f"{_TASK}.Resources.Limits.NanoCPUs", cpus, 0, show=lambda v: v / 10**9),
    Option("limits.memory", f"{_TASK}.Resources.Limits.MemoryBytes", size, 0, show=spoken_size),
    Option("limits.pids", f"{_TASK}.Resources.Limits.Pids", default=0),
    Option("reservations.cpus", f"{_TASK}.Resources.Reservations.NanoCPUs", cpus, 0, show=lambda v: v / 10**9),
    Option("reservations.memory", f"{_TASK}.Resources.Reservations.MemoryBytes", size, 0, show=spoken_size),
    Option("logging.driver", f"{_TASK}.LogDriver.Name", default=""),
    Option("logging.options", f"{_TASK}.LogDriver.Options", texts, {}),
    Option("restart_config.condition", f"{_TASK}.RestartPolicy.Condition", default="any"),
    Option("restart_config.delay", f"{_TASK}.RestartPolicy.Delay", duration, 5 * SECOND, show=spoken),
    Option("restart_config.max_attempts", f"{_TASK}.RestartPolicy.MaxAttempts", default=0),
    Option("restart_config.window", f"{_TASK}.RestartPolicy.Window", duration, 0, show=spoken),
    *_rollout("update_config", "UpdateConfig"),
    *_rollout("rollback_config", "RollbackConfig"),
)


def mode_of(spec):
    """The service's mode in the words of the option."""
    present = spec.get("Mode") or {"Replicated": {}}
    for word, (key, _count) in MODES.items():
        if key in present:
            return word
    return "replicated"


def mode_options(mode):
    """Options whose place depends on the mode."""
    key, count = MODES[mode]
    options = [Option("replicas", f"Mode.{key}.{count}", default=1)] if count else []
    if mode == "replicated-job":
        options.append(Option("max_concurrent", f"Mode.{key}.MaxConcurrent", default=1))
    return options
