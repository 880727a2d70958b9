"""What Swarm expands for each task: env values, hostname, mounts, and the payload of templated secrets and configs.

The names that a template may use are swarmkit's (template/context.go): .Service .Node .Task; payloads may also ask for
`secret "target"`, `config "target"` and `env "NAME"`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from swarm_agent.model.objects import Node, Task
from swarm_agent.model.specs import ContainerSpec, Mount

from .gotemplate import Function, TemplateError, expand


def context(task: Task, node: Node, hostname: str) -> dict[str, Any]:
    """The root value of a task's templates. `hostname` serves until the node's own description is known."""
    described = node.description
    return {
        "Service": {"ID": task.service_id, "Name": task.service_name, "Labels": task.service_labels},
        "Node": {
            "ID": task.node_id or node.id,
            "Hostname": described.hostname or hostname,
            "Platform": {"Architecture": described.platform.architecture, "OS": described.platform.os},
        },
        "Task": {"ID": task.id, "Name": task.name, "Slot": str(task.slot or task.node_id)},
    }


def expand_spec(spec: ContainerSpec, values: Mapping[str, Any]) -> ContainerSpec:
    """The spec with its templates expanded. Raises `TemplateError` saying which part failed."""
    return msgspec.structs.replace(
        spec,
        env=_labelled("env", lambda: [_expand_env(entry, values) for entry in spec.env]),
        mounts=_labelled("mounts", lambda: [_expand_mount(mount, values) for mount in spec.mounts]),
        hostname=_labelled("hostname", lambda: expand(spec.hostname, values)),
    )


def _labelled(part: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except TemplateError as error:
        raise TemplateError(f"expanding {part} failed: {error}") from None


def _expand_env(entry: str, values: Mapping[str, Any]) -> str:
    """Only the value of NAME=VALUE is a template."""
    name, equals, value = entry.partition("=")
    return name + equals + expand(value, values) if equals else entry


def _expand_mount(mount: Mount, values: Mapping[str, Any]) -> Mount:
    options = mount.volume_options
    if options is not None:
        driver = options.driver_config
        if driver is not None:
            driver = msgspec.structs.replace(
                driver, options={key: expand(value, values) for key, value in driver.options.items()}
            )
        options = msgspec.structs.replace(
            options,
            labels={key: expand(value, values) for key, value in options.labels.items()},
            driver_config=driver,
        )
    return msgspec.structs.replace(
        mount, source=expand(mount.source, values), target=expand(mount.target, values), volume_options=options
    )


def payload_functions(
    env: list[str], secrets: Mapping[str, bytes], configs: Mapping[str, bytes]
) -> dict[str, Function]:
    """The extra functions of templated secrets and configs; the mappings are keyed by the target's name."""
    variables = dict(entry.partition("=")[::2] for entry in reversed(env) if "=" in entry)  # the first of a name counts

    def lookup(kind: str, table: Mapping[str, bytes]) -> Function:
        def get(target: str) -> str:
            if target not in table:
                raise TemplateError(f"{kind} target {target} not found")
            return table[target].decode()

        return get

    def get_env(name: str) -> str:
        return variables.get(name, "")

    return {"secret": lookup("secret", secrets), "config": lookup("config", configs), "env": get_env}
