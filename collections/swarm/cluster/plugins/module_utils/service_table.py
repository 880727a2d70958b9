# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of swarm_service: what it is called and means, what it accepts, and its place in a ServiceSpec.

The module's argument spec, its documentation (doc_fragments/service.py) and its plan are all made from this table.
"""

from __future__ import annotations

from ansible_collections.swarm.cluster.plugins.module_utils import service_values as sv
from ansible_collections.swarm.cluster.plugins.module_utils.fields import Field, options
from ansible_collections.swarm.cluster.plugins.module_utils.patch import unordered
from ansible_collections.swarm.cluster.plugins.module_utils.values import (
    SECOND,
    cpus,
    duration,
    size,
    spoken,
    spoken_size,
    texts,
)

_TASK = "TaskTemplate"
_BOX = "TaskTemplate.ContainerSpec"
_WHILE = "a duration such as V(10s) or V(1m30s)."


def _text(name, describe, place="", **more):
    return Field(name, describe, "str", place, **{"empty": "", **more} if place else more)


def _texts(name, describe, place="", **more):
    return Field(name, describe, "list", place, elements="str", **{"empty": [], **more} if place else more)


def _flag(name, describe, place="", **more):
    return Field(name, describe, "bool", place, **{"empty": False, **more} if place else more)


def _number(name, describe, place="", empty=0, **more):
    return Field(name, describe, "int", place, empty=empty, **more)


def _time(name, describe, place, empty=0, **more):
    return Field(name, f"{describe}, {_WHILE}", "str", place, duration, empty, show=spoken, **more)


def _pairs(name, describe, place=""):
    return Field(name, describe, "dict", place, texts, {}) if place else Field(name, describe, "dict")


def _group(name, describe, *fields):
    return Field(name, describe, "dict", fields=fields)


def _items(name, describe, place, *fields, **more):
    return Field(name, describe, "list", place, elements="dict", empty=[], fields=fields, **more)


def _rollout(name, place, describe, verb, actions):
    return _group(
        name,
        describe,
        _number("parallelism", f"How many tasks to {verb} at once; V(0) means all.", f"{place}.Parallelism", 1),
        _time("delay", "Pause between them", f"{place}.Delay"),
        _text("failure_action", "What to do when a task fails.", f"{place}.FailureAction", empty="pause",
              choices=actions),
        _time(
            "monitor", "How long a task is watched for failure", f"{place}.Monitor", 5 * SECOND,
            canonical=lambda value: value or 5 * SECOND,
        ),
        Field("max_failure_ratio", "Share of tasks that may fail.", "float", f"{place}.MaxFailureRatio", empty=0,
              canonical=float),
        _text("order", "Whether the old task stops first or the new one starts first.", f"{place}.Order",
              empty="stop-first", choices=("stop-first", "start-first")),
    )  # fmt: skip


def _files(kind, describe, where, *more):
    return _items(
        f"{kind}s",
        f"{describe}, exactly these.",
        f"{_BOX}.{kind.capitalize()}s",
        Field("name", f"Name of the {kind}.", required=True),
        Field("target", f"Name of the file in containers; by default {where}."),
        Field("uid", "Owner.", default="0"),
        Field("gid", "Group.", default="0"),
        Field("mode", "Mode in octal digits.", default="0444"),
        *more,
        canonical=sv.set_of_objects,
        show=sv.show_references(kind.capitalize()),
        no_log=False if kind == "secret" else None,
    )


_CONTAINER = (
    _text("image", "Image of its containers. Needed to create a service. An image without a tag means V(latest).",
          f"{_BOX}.Image", canonical=sv.image_name),
    _texts("command", "Replaces the image's entrypoint.", f"{_BOX}.Command"),
    _texts("args", "Replaces the image's command.", f"{_BOX}.Args"),
    Field("env", "Environment, exactly these. Put numbers and booleans in quotes.", "dict", f"{_BOX}.Env", sv.env_list,
          [], unordered),
    _text("working_dir", "Directory that the command starts in.", f"{_BOX}.Dir"),
    _text("user", "User and group, by name or number.", f"{_BOX}.User"),
    _texts("groups", "Further groups.", f"{_BOX}.Groups", canonical=unordered),
    _text("hostname", "Hostname in containers. May hold templates of Docker, such as that of the node's hostname.",
          f"{_BOX}.Hostname"),
    Field("hosts", "Further entries for C(/etc/hosts), address by name.", "dict", f"{_BOX}.Hosts", sv.hosts_list, [],
          unordered),
    _texts("dns", "Name servers.", f"{_BOX}.DNSConfig.Nameservers"),
    _texts("dns_search", "Search domains.", f"{_BOX}.DNSConfig.Search"),
    _texts("dns_options", "Options of the resolver.", f"{_BOX}.DNSConfig.Options"),
    _flag("tty", "Whether containers get a terminal.", f"{_BOX}.TTY"),
    _flag("open_stdin", "Whether containers' standard input stays open.", f"{_BOX}.OpenStdin"),
    _flag("init", "Whether an init process runs in containers.", f"{_BOX}.Init"),
    _flag("read_only", "Whether the containers' root file system is read-only.", f"{_BOX}.ReadOnly"),
    _text("stop_signal", "Signal that asks a container to stop.", f"{_BOX}.StopSignal"),
    _time("stop_grace_period", "How long a container may take to stop", f"{_BOX}.StopGracePeriod", 10 * SECOND),
    _pairs("sysctls", "Kernel parameters of containers.", f"{_BOX}.Sysctls"),
    _items("ulimits", "Limits of the containers' processes, exactly these.", f"{_BOX}.Ulimits",
           Field("name", "Which, such as V(nofile).", required=True),
           Field("soft", "The limit.", "int", required=True),
           Field("hard", "How far processes may raise it; by default as O(ulimits[].soft).", "int"),
           to_api=sv.ulimits, canonical=sv.set_of_objects),
    _number("oom_score_adj", "How willingly the kernel ends containers when memory is short, V(-1000) to V(1000).",
            f"{_BOX}.OomScoreAdj"),
    _texts("cap_add", "Capabilities to add.", f"{_BOX}.CapabilityAdd", to_api=sv.capabilities,
           canonical=sv.capabilities),
    _texts("cap_drop", "Capabilities to take away.", f"{_BOX}.CapabilityDrop", to_api=sv.capabilities,
           canonical=sv.capabilities),
    _text("isolation", "Isolation technology. Anything but V(default) is for Windows.", f"{_BOX}.Isolation",
          choices=("default", "process", "hyperv"), canonical=sv.default_word),
    _group("privileges", "What the kernel lets containers do.",
           _flag("no_new_privileges", "Whether processes can gain no privileges, not even by setuid programs.",
                 f"{_BOX}.Privileges.NoNewPrivileges"),
           Field("seccomp", "Which system calls are allowed.", "dict", f"{_BOX}.Privileges.Seccomp", sv.seccomp, {},
                 sv.deep_canonical, fields=(
                     Field("mode", "The engine's own profile, none, or that of O(privileges.seccomp.profile).",
                           choices=("default", "unconfined", "custom")),
                     Field("profile", "Text of a profile (JSON)."))),
           _text("apparmor", "Whether the engine's AppArmor profile applies.", f"{_BOX}.Privileges.AppArmor.Mode",
                 choices=("default", "disabled"), canonical=sv.default_word),
           Field("selinux", "SELinux labels.", "dict", f"{_BOX}.Privileges.SELinuxContext", sv.selinux, {},
                 sv.deep_canonical, fields=(
                     Field("disable", "Whether containers are not labelled.", "bool", default=False),
                     Field("user", "User."), Field("role", "Role."), Field("type", "Type."), Field("level", "Level."))),
           Field("credential_spec", "Where the runtime finds credentials.", "dict", f"{_BOX}.Privileges.CredentialSpec",
                 sv.credential_spec, {}, sv.deep_canonical, fields=(
                     Field("config", "Id of a config that O(configs) lists with O(configs[].runtime)."),
                     Field("file", "Name of a file."), Field("registry", "Name of a registry value (Windows).")))),
    _pairs("container_labels", "Labels of containers, exactly these.", f"{_BOX}.Labels"),
    _items(
        "mounts", "What to mount into containers, exactly these.", f"{_BOX}.Mounts",
        Field("target", "Path in the container.", required=True),
        Field("source", "Path on the host, or name of the volume."),
        Field("type", "Kind of mount.", choices=("bind", "volume", "tmpfs"), default="volume"),
        Field("readonly", "Whether containers cannot write to it.", "bool", default=False),
        Field("consistency", "Consistency that is asked for; nothing on Linux heeds it.",
              choices=("default", "consistent", "cached", "delegated")),
        Field("propagation", "Propagation of a bind mount.",
              choices=("rprivate", "private", "rshared", "shared", "rslave", "slave")),
        Field("non_recursive", "Whether mounts below the source are left out.", "bool", default=False),
        Field("create_mountpoint", "Whether a missing source is made (engines of API 1.43 and newer).", "bool",
              default=False),
        Field("read_only_non_recursive", "Whether only the mount itself is read-only, not those below it.", "bool",
              default=False),
        Field("read_only_force_recursive", "Whether a mount fails when one below it cannot be read-only.", "bool",
              default=False),
        Field("no_copy", "Whether a new volume stays empty instead of getting the image's content.", "bool",
              default=False),
        Field("subpath", "Path in the volume to mount instead of its root."),
        Field("labels", "Labels of a new volume.", "dict"),
        Field("driver_config", "Driver of a new volume.", "dict", fields=(
            Field("name", "Name of the driver."), Field("options", "Options of the driver.", "dict"))),
        Field("tmpfs_size", "Size of a tmpfs, such as V(64M)."),
        Field("tmpfs_mode", "Mode of a tmpfs in octal digits, such as V('1770')."),
        Field("tmpfs_options", "Further options of a tmpfs, V(NAME) or V(NAME=VALUE).", "list", elements="str"),
        to_api=sv.mounts, canonical=sv.same_mounts, show=sv.show_mounts,
    ),
    _files("secret", "Secrets as files in containers", "the secret's name, below C(/run/secrets)"),
    _files("config", "Configs as files in containers", "C(/) and the config's name",
           Field("runtime", "Whether the container's runtime reads it (a credential spec), not a file.",
                 "bool", default=False)),
    _group(
        "healthcheck", "How to tell whether a container is well.",
        _texts("test", "A command. One item goes to a shell, several start with V(CMD) or V(CMD-SHELL); V(NONE) alone "
               "turns the image's check off.", f"{_BOX}.Healthcheck.Test", to_api=sv.health_test),
        _time("interval", "Time between checks", f"{_BOX}.Healthcheck.Interval"),
        _time("timeout", "How long a check may take", f"{_BOX}.Healthcheck.Timeout"),
        _time("start_period", "Time in which failures do not count", f"{_BOX}.Healthcheck.StartPeriod"),
        _time("start_interval", "Time between checks within the start period", f"{_BOX}.Healthcheck.StartInterval"),
        _number("retries", "Failures in a row that make a container unhealthy.", f"{_BOX}.Healthcheck.Retries"),
    ),
)  # fmt: skip

_PLACEMENT = (
    _items(
        "networks", "Networks to attach to, exactly these.", f"{_TASK}.Networks",
        Field("name", "Name or id of the network.", required=True),
        Field("aliases", "Further names of the service on it.", "list", elements="str"),
        Field("driver_opts", "Options for the network's driver.", "dict"),
        to_api=sv.networks, canonical=sv.set_of_objects,
    ),
    _text("endpoint_mode", "V(vip) gives the service one address, V(dnsrr) answers with all tasks'.",
          "EndpointSpec.Mode", empty="vip", choices=("vip", "dnsrr")),
    _items(
        "publish", "Ports to publish, exactly these.", "EndpointSpec.Ports",
        Field("target_port", "Port in containers.", "int", required=True),
        Field("published_port", "Port on hosts. Left out, the cluster chooses one from 30000-32767.", "int"),
        Field("protocol", "Protocol.", choices=("tcp", "udp", "sctp"), default="tcp"),
        Field("mode", "V(ingress) publishes on every host, V(host) only where a task runs.",
              choices=("ingress", "host"), default="ingress"),
        Field("name", "Name of the port, for SRV records."),
        to_api=sv.ports, canonical=sv.same_ports, show=sv.show_ports,
    ),
    _group(
        "placement", "Where tasks may run.",
        _texts("constraints", "Conditions such as V(node.labels.disk == ssd).", f"{_TASK}.Placement.Constraints",
               canonical=sv.constraints),
        _texts("spread", "Node attributes to spread evenly over, such as V(node.labels.rack).",
               f"{_TASK}.Placement.Preferences", to_api=sv.spreads, show=sv.show_spreads),
        _number("replicas_max_per_node", "Highest number of tasks on one node; V(0) means no limit.",
                f"{_TASK}.Placement.MaxReplicas"),
        _texts("platforms", "Platforms that the image runs on, such as V(linux/x86_64).",
               f"{_TASK}.Placement.Platforms", to_api=sv.platforms, canonical=sv.set_of_objects),
    ),
    _group(
        "limits", "What a task may use at most.",
        Field("cpus", "Processors.", "float", f"{_TASK}.Resources.Limits.NanoCPUs", cpus, 0, show=lambda v: v / 10**9),
        Field("memory", "Memory, such as V(512M).", "str", f"{_TASK}.Resources.Limits.MemoryBytes", size, 0,
              show=spoken_size),
        _number("pids", "Number of processes; V(0) means no limit.", f"{_TASK}.Resources.Limits.Pids"),
        Field("swap", "Swap, such as V(512M); V(-1) means no limit (engines of API 1.52 and newer).", "str",
              f"{_TASK}.Resources.SwapBytes", lambda text: -1 if str(text) == "-1" else size(text)),
        _number("memory_swappiness", "How willingly memory is swapped out, from V(0) to V(100) (API 1.52 and newer).",
                f"{_TASK}.Resources.MemorySwappiness", None),
    ),
    _group(
        "reservations", "What a node must have free for a task.",
        Field("cpus", "Processors.", "float", f"{_TASK}.Resources.Reservations.NanoCPUs", cpus, 0,
              show=lambda v: v / 10**9),
        Field("memory", "Memory, such as V(512M).", "str", f"{_TASK}.Resources.Reservations.MemoryBytes", size, 0,
              show=spoken_size),
        Field("generic", "Resources of your own kinds, such as V({gpu: 2}): a number, or names of single ones.", "dict",
              f"{_TASK}.Resources.Reservations.GenericResources", sv.generic_resources, [], sv.set_of_objects),
    ),
)  # fmt: skip

_CONDUCT = (
    _group(
        "logging", "Where containers' output goes.",
        _text("driver", "Name of the log driver.", f"{_TASK}.LogDriver.Name"),
        _pairs("options", "Options of the driver.", f"{_TASK}.LogDriver.Options"),
    ),
    _group(
        "restart_config", "When ended tasks are replaced.",
        _text("condition", "When.", f"{_TASK}.RestartPolicy.Condition", empty="any",
              choices=("none", "on-failure", "any")),
        _time("delay", "Pause before", f"{_TASK}.RestartPolicy.Delay", 5 * SECOND),
        _number("max_attempts", "How often; V(0) means without end.", f"{_TASK}.RestartPolicy.MaxAttempts"),
        _time("window", "Time in which O(restart_config.max_attempts) counts", f"{_TASK}.RestartPolicy.Window"),
    ),
    _rollout("update_config", "UpdateConfig", "How changes roll out.", "update", ("pause", "continue", "rollback")),
    _rollout("rollback_config", "RollbackConfig", "How a rollback goes.", "roll back", ("pause", "continue")),
    _pairs("labels", "Labels of the service, exactly these (besides those that O(devices), O(privileged), O(shm_size), "
           "O(runtime) and O(gpus) stand for).", "Labels"),
    # Docker Swarm has no fields for these; they are kept as labels, see `service_values.with_label_options`.
    Field("devices", "Devices of the host, such as V(/dev/fuse) or V(/dev/sda:/dev/xvda:r), exactly these.",
          "list", elements="str"),
    Field("privileged", "Whether containers get all capabilities and devices.", "bool"),
    Field("shm_size", "Size of containers' C(/dev/shm), such as V(64m)."),
    Field("runtime", "Runtime of the engine that runs the containers, such as V(nvidia)."),
    Field("gpus", "GPUs for each container, V(all), a number, or V(device=ID,ID)."),
)  # fmt: skip

_COUNT = (
    Field("mode", "How many tasks there are. Fixed once a service exists; V(replicated) when it is created without.",
          choices=tuple(sv.MODES)),
    Field("replicas", "Number of tasks; of a V(replicated-job), of completions. Left out, it stays as it is, so that "
          "scaling by others is not undone.", "int"),
    Field("max_concurrent", "Of a V(replicated-job), how many tasks run at once.", "int"),
)  # fmt: skip

FIELDS = (*_CONTAINER, *_COUNT, *_PLACEMENT, *_CONDUCT)
OPTIONS = options(FIELDS)
