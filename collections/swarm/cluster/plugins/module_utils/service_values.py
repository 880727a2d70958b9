# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How values of swarm_service's options stand in a ServiceSpec, and when two of them mean the same.

Traps: an UpdateConfig that is there but names no parallelism means "all at once", one that is not there means one by
one, so a new one starts from Swarm's defaults (BLANKS); a published port 0 means "choose one"; images are echoed with
the digest that a client resolved; servers leave out what is empty, and write "default" or "rprivate" where nothing was
said.
"""

from __future__ import annotations

import re

from ansible_collections.swarm.cluster.plugins.module_utils.patch import Option, read, unordered
from ansible_collections.swarm.cluster.plugins.module_utils.values import size, text_of, texts

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
            **({"Name": port["name"]} if port["name"] else {}),
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
                port.get("Name") or "",
            )
            for port in found or []
        ]
    )


def show_ports(found):
    """Published ports for people."""
    return [f"{published or 'any'}:{target}/{protocol} {mode}"
            for protocol, target, published, mode, _name in same_ports(found)]  # fmt: skip


def mounts(wanted):
    """Mounts."""
    return [_mount(mount) for mount in wanted]


def _mount(mount):
    driver = mount["driver_config"] or {}
    bind = {
        "Propagation": mount["propagation"],
        "NonRecursive": mount["non_recursive"],
        "CreateMountpoint": mount["create_mountpoint"],
        "ReadOnlyNonRecursive": mount["read_only_non_recursive"],
        "ReadOnlyForceRecursive": mount["read_only_force_recursive"],
    }
    volume = {
        "NoCopy": mount["no_copy"],
        "Labels": texts(mount["labels"]),
        "Subpath": mount["subpath"],
        "DriverConfig": without_empty({"Name": driver.get("name"), "Options": texts(driver.get("options"))}),
    }
    tmpfs = {
        "SizeBytes": size(mount["tmpfs_size"]) if mount["tmpfs_size"] else 0,
        "Mode": octal(mount["tmpfs_mode"]) if mount["tmpfs_mode"] else 0,
        "Options": [option.split("=", 1) for option in mount["tmpfs_options"] or []],
    }
    return without_empty(
        {
            "Type": mount["type"],
            "Source": mount["source"],
            "Target": mount["target"],
            "ReadOnly": mount["readonly"],
            "Consistency": mount["consistency"],
            "BindOptions": without_empty(bind),
            "VolumeOptions": without_empty(volume),
            "TmpfsOptions": without_empty(tmpfs),
        }
    )


def same_mounts(found):
    """Mounts by meaning: a bind mount's propagation is rprivate when nothing is said, a type left out is bind."""
    plain = []
    for mount in found or []:
        entry = dict(mount, Type=mount.get("Type") or "bind")
        bind = {key: value for key, value in (entry.get("BindOptions") or {}).items() if value != "rprivate"}
        plain.append(dict(entry, BindOptions=bind))
    return set_of_objects(plain)


def show_mounts(found):
    """Mounts for people."""
    return sorted(
        f"{mount.get('Type', 'bind')} {mount.get('Source', '')}:{mount.get('Target')}" for mount in found or []
    )


def octal(text):
    """A file mode in octal digits as a number. Raises ValueError."""
    try:
        return int(str(text), 8)
    except ValueError:
        raise ValueError(f"{text!r} is not a mode; write it in octal digits and quotes, such as '0444'") from None


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


def ulimits(wanted):
    """Limits of processes: what is given once is both the soft and the hard one."""
    return [
        {
            "Name": entry["name"],
            "Soft": entry["soft"],
            "Hard": entry["soft"] if entry["hard"] is None else entry["hard"],
        }
        for entry in wanted
    ]


def generic_resources(wanted):
    """Resources of kinds of your own, such as graphics cards: a number, or the name of one of them."""
    result = []
    for kind, value in sorted(wanted.items()):
        for item in value if isinstance(value, list) else [value]:
            counted = str(item).isdigit()
            key = "DiscreteResourceSpec" if counted else "NamedResourceSpec"
            result.append({key: {"Kind": kind, "Value": int(item) if counted else str(item)}})
    return result


def spreads(names):
    """Placement preferences."""
    return [{"Spread": {"SpreadDescriptor": name}} for name in names]


def show_spreads(found):
    """Placement preferences for people."""
    return [read(entry, "Spread.SpreadDescriptor") for entry in found or []]


def platforms(names):
    """Platforms, written linux/amd64."""
    pairs = [name.partition("/") for name in names]
    return [{"OS": system, "Architecture": architecture} for system, _slash, architecture in pairs]


def networks(wanted):
    """Networks, once their names are ids (the module looks them up)."""
    return [
        without_empty(
            {"Target": entry["name"], "Aliases": entry["aliases"] or [], "DriverOpts": texts(entry["driver_opts"])}
        )
        for entry in wanted
    ]


def show_references(kind):
    """For the diff of secrets and configs: which one, and the file it becomes."""

    def show(found):
        return sorted(
            f"{entry.get(kind + 'Name')} at {read(entry, 'File.Name') or 'the runtime'}" for entry in found or []
        )

    return show


def credential_spec(given):
    """Where the runtime finds credentials: exactly one of config, file, registry."""
    return without_empty({"Config": given["config"], "File": given["file"], "Registry": given["registry"]})


def selinux(given):
    """SELinux labels of the container."""
    words = {"User": "user", "Role": "role", "Type": "type", "Level": "level", "Disable": "disable"}
    return without_empty({key: given[name] for key, name in words.items()})


def seccomp(given):
    """The seccomp profile; the text of an own one makes the mode custom."""
    return without_empty({"Mode": "custom" if given["profile"] else given["mode"], "Profile": given["profile"]})


def default_word(word):
    """Servers write "default" where nothing was said."""
    return "" if word == "default" else word or ""


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


LABEL_OPTIONS = {name: f"swarm.task.{name}" for name in ("devices", "privileged", "shm_size", "runtime", "gpus")}


def with_label_options(params, found):
    """Parameters in which the options that stand for labels are among the labels. `found`: the service's labels, which
    stay where the user gives none. An option that is given empty takes its label away."""
    given = {LABEL_OPTIONS[name]: params[name] for name in LABEL_OPTIONS if params.get(name) is not None}
    if not given:
        return params
    kept = found if params["labels"] is None else params["labels"]
    labels = {name: text for name, text in kept.items() if name not in given}
    for name, value in given.items():
        if value is True:
            labels[name] = "true"
        elif value:
            labels[name] = ",".join(value) if isinstance(value, list) else value
    return dict(params, labels=labels)
