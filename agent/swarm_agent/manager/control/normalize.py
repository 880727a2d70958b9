"""The shape in which a service spec is stored, which is the shape in which it is echoed (swarm.md §1.3 "Spec echo").

Swarm's API keeps specs in protobuf, so what a client reads back has passed through it: enums that were left out come
back as their zero value's word ("any", "pause", "stop-first", "vip", "tcp", "ingress", "default"), and nothing else is
filled in. Tools that compare specs for idempotence rest on exactly this. Words that the enums do not have are refused.
`with_defaults` is the other view, GET /services/{id}?insertDefaults=1.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any, TypeVar

from msgspec.structs import replace

from swarm_agent.model.errors import BadRequest
from swarm_agent.model.specs import (
    BindOptions,
    ConfigReference,
    ContainerSpec,
    CredentialSpec,
    DNSConfig,
    EndpointSpec,
    Mount,
    Placement,
    PortConfig,
    Replicated,
    ReplicatedJob,
    ResourceRequirements,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from swarm_agent.model.times import SECOND

from .names import random_name

T = TypeVar("T")

CONDITIONS = ("none", "on-failure", "any")
FAILURE_ACTIONS = ("pause", "continue", "rollback")
ORDERS = ("stop-first", "start-first")
PROTOCOLS = ("tcp", "udp", "sctp")
PUBLISH_MODES = ("ingress", "host")
ISOLATIONS = ("default", "process", "hyperv")
MOUNT_TYPES = ("bind", "volume", "tmpfs", "npipe", "cluster")
PROPAGATIONS = ("", "rprivate", "private", "rshared", "shared", "rslave", "slave")
SECCOMP_MODES = ("", "default", "unconfined", "custom")
APPARMOR_MODES = ("", "default", "disabled")


def normalize_service(spec: ServiceSpec, rng: random.Random) -> ServiceSpec:
    """The spec as it is stored. Raises BadRequest for words that Swarm does not know and for contradictory modes."""
    return replace(
        spec,
        name=spec.name or random_name(rng),
        task_template=_task(spec.task_template),
        mode=_mode(spec.mode),
        update_config=_update(spec.update_config),
        rollback_config=_update(spec.rollback_config),
        endpoint_spec=normalize_endpoint(spec.endpoint_spec),
        # Kept apart from the task's networks only by clients of before 1.25; api/versions.py moves theirs.
        networks=spec.networks,
    )


def _task(task: TaskSpec) -> TaskSpec:
    if task.runtime not in ("", "container"):
        raise BadRequest("unsupported runtime")
    _not_negative(task.force_update, "TaskTemplate.ForceUpdate")
    if task.container_spec is None:
        raise BadRequest("mismatched Runtime and *Spec fields")
    return replace(
        task,
        container_spec=_container(task.container_spec),
        restart_policy=_restart(task.restart_policy),
        placement=_placement(task.placement),
        runtime="container",
    )


def _container(spec: ContainerSpec) -> ContainerSpec:
    isolation = spec.isolation.lower() or "default"
    if isolation not in ISOLATIONS:
        isolation = "default"
    for reference in spec.configs:
        _config(reference)
    privileges = spec.privileges
    if privileges is not None:
        if privileges.credential_spec is not None:
            _credentials(privileges.credential_spec)
        if privileges.seccomp is not None and privileges.seccomp.mode not in SECCOMP_MODES:
            raise BadRequest("unrecognized Seccomp mode")
        if privileges.seccomp is not None and privileges.seccomp.profile and privileges.seccomp.mode != "custom":
            raise BadRequest("Seccomp.Profile is only allowed when Seccomp.Mode is custom")
        if privileges.app_armor is not None and privileges.app_armor.mode not in APPARMOR_MODES:
            raise BadRequest("unrecognized AppArmor mode")
    return replace(spec, isolation=isolation, mounts=[_mount(mount) for mount in spec.mounts])


def _config(reference: ConfigReference) -> None:
    if reference.file is None and reference.runtime is None:
        raise BadRequest("invalid Config: either File or Runtime should be set")
    if reference.file is not None and reference.runtime is not None:
        raise BadRequest("invalid Config: cannot specify both File and Runtime")


def _credentials(spec: CredentialSpec) -> None:
    given = [f'"{name}"' for name in ("config", "file", "registry") if getattr(spec, name)]
    if not given:
        raise BadRequest(
            'invalid CredentialSpec: must either provide "file", "registry", or "config" for credential spec'
        )
    if len(given) > 1:
        names = " and ".join(given) if len(given) == 2 else f"{', '.join(given[:-1])}, and {given[-1]}"
        raise BadRequest(f"invalid CredentialSpec: cannot specify both {names} credential specs")


def _mount(mount: Mount) -> Mount:
    kind = mount.type.lower()
    if kind and kind not in MOUNT_TYPES:
        raise BadRequest(f'invalid MountType: "{mount.type}"')
    options = mount.bind_options
    if options is not None:
        if options.propagation not in PROPAGATIONS:
            raise BadRequest(f'invalid MountPropagation: "{options.propagation}"')
        # Options that say nothing are dropped; if they say anything, the propagation is said as well.
        options = None if options == BindOptions() else replace(options, propagation=options.propagation or "rprivate")
    return replace(mount, type=kind or "bind", bind_options=options)


def _restart(policy: RestartPolicy | None) -> RestartPolicy | None:
    if policy is None:
        return None
    _not_negative(policy.max_attempts, "RestartPolicy.MaxAttempts")
    condition = policy.condition or "any"
    _known(condition, CONDITIONS, f'invalid RestartCondition: "{policy.condition}"')
    return replace(policy, condition=condition, max_attempts=policy.max_attempts or 0)


def _placement(placement: Placement | None) -> Placement | None:
    if placement is None:
        return None
    _not_negative(placement.max_replicas, "Placement.MaxReplicas")
    return replace(placement, preferences=[item for item in placement.preferences if item.spread is not None])


def _update(config: UpdateConfig | None) -> UpdateConfig | None:
    if config is None:
        return None
    _not_negative(config.parallelism, "UpdateConfig.Parallelism")
    action = config.failure_action or "pause"
    _known(action, FAILURE_ACTIONS, f"unrecognized update failure action {config.failure_action}")
    order = config.order or "stop-first"
    _known(order, ORDERS, f"unrecognized update order {config.order}")
    return replace(config, failure_action=action, order=order)


def normalize_endpoint(spec: EndpointSpec | None) -> EndpointSpec | None:
    """The endpoint spec as it is stored. Raises BadRequest."""
    if spec is None:
        return None
    if spec.mode not in ("", "vip", "dnsrr"):
        raise BadRequest(f'invalid resolution mode: "{spec.mode}"')
    return EndpointSpec(mode=spec.mode or "vip", ports=[_port(port) for port in spec.ports])


def _port(port: PortConfig) -> PortConfig:
    for number in (port.target_port, port.published_port):
        if not 0 <= number <= 65535:
            raise BadRequest(f"invalid port number: {number}")
    # Like protobuf's name tables, words that are not known fall back to the first one.
    protocol, mode = port.protocol.lower(), port.publish_mode.lower()
    return replace(
        port,
        protocol=protocol if protocol in PROTOCOLS else "tcp",
        publish_mode=mode if mode in PUBLISH_MODES else "ingress",
    )


def _mode(mode: ServiceMode) -> ServiceMode:
    given = [item for item in (mode.global_, mode.replicated, mode.replicated_job, mode.global_job) if item is not None]
    if len(given) > 1:
        raise BadRequest("must specify only one service mode")
    if mode.global_ is not None or mode.global_job is not None:
        return mode
    if mode.replicated_job is not None:
        concurrent = mode.replicated_job.max_concurrent
        concurrent = 1 if concurrent is None else concurrent
        total = mode.replicated_job.total_completions
        job = ReplicatedJob(max_concurrent=concurrent, total_completions=concurrent if total is None else total)
        return ServiceMode(replicated_job=job)
    replicas = mode.replicated.replicas if mode.replicated is not None else None
    return ServiceMode(replicated=Replicated(replicas=1 if replicas is None else replicas))


def _not_negative(number: int | None, where: str) -> None:
    """For fields that are unsigned in the API."""
    if number is not None and number < 0:
        raise BadRequest(f"invalid JSON: Expected a number that is not negative, got {number} - at {where}")


def _known(word: str, words: Collection[str], message: str) -> None:
    if word not in words:
        raise BadRequest(message)


# --- insertDefaults --------------------------------------------------------------------------------------------------


def with_defaults(spec: ServiceSpec) -> ServiceSpec:
    """The spec with the defaults written out that the orchestrator would apply (swarm.md §3.2)."""
    task = spec.task_template
    container = task.container_spec
    if container is not None:
        container = replace(
            container,
            stop_grace_period=_or(container.stop_grace_period, 10 * SECOND),
            dns_config=_or(container.dns_config, DNSConfig()),
        )
    restart = task.restart_policy or RestartPolicy(condition="any", max_attempts=0)
    task = replace(
        task,
        container_spec=container,
        resources=_or(task.resources, ResourceRequirements()),
        restart_policy=replace(restart, delay=_or(restart.delay, 5 * SECOND)),
        placement=_or(task.placement, Placement()),
    )
    return replace(
        spec,
        task_template=task,
        update_config=_update_defaults(spec.update_config),
        rollback_config=_update_defaults(spec.rollback_config),
    )


def _update_defaults(config: UpdateConfig | None) -> UpdateConfig:
    if config is None:
        return UpdateConfig(parallelism=1, failure_action="pause", monitor=5 * SECOND, order="stop-first")
    return replace(config, monitor=config.monitor or 5 * SECOND)


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def is_job(spec: ServiceSpec) -> bool:
    """True for services whose tasks are meant to end."""
    return spec.mode.replicated_job is not None or spec.mode.global_job is not None


def mode_of(spec: ServiceSpec) -> str:
    """The mode's word, as in the `mode` filter."""
    modes: dict[str, Any] = {
        "global": spec.mode.global_,
        "replicated-job": spec.mode.replicated_job,
        "global-job": spec.mode.global_job,
    }
    return next((word for word, value in modes.items() if value is not None), "replicated")
