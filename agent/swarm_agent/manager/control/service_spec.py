"""What can be said of a service spec without looking at the cluster (swarm.md §1.3 "Validation")."""

from __future__ import annotations

import re

from swarm_agent.manager import constraints
from swarm_agent.model import extensions
from swarm_agent.model.errors import InvalidArgument, UnknownError
from swarm_agent.model.specs import (
    ContainerSpec,
    EndpointSpec,
    HealthConfig,
    Placement,
    ResourceRequirements,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)

from .names import validate_name
from .normalize import is_job

MILLISECOND = 1_000_000
MIN_NANO_CPUS = 1_000_000
MIN_MEMORY = 4 * 1024 * 1024
MAX_INT64 = 2**63 - 1

_HOST = r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"  # fmt: skip  # noqa: E501
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:{_HOST}/)?{_PATH_PART}(?:/{_PATH_PART})*"
    r"(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)
_IMAGE_ID = re.compile(r"[a-f0-9]{64}")
MAX_IMAGE = 1024


def validate(spec: ServiceSpec) -> None:
    """Check a normalized spec. Raises InvalidArgument, or UnknownError for constraints, with Swarm's texts."""
    validate_name(spec.name)
    _extensions(spec)
    _task(spec.task_template)
    _mode(spec.mode)
    if is_job(spec):
        if spec.update_config is not None:
            raise InvalidArgument("Jobs may not have an update config")
    else:
        _update(spec.update_config)
    _endpoint(spec.endpoint_spec)


def _extensions(spec: ServiceSpec) -> None:
    try:
        extensions.check(spec.labels, job=is_job(spec))
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


def _task(task: TaskSpec) -> None:
    _resources(task.resources)
    _restart(task.restart_policy)
    _placement(task.placement)
    container = task.container_spec
    if container is None:
        raise InvalidArgument("TaskSpec: missing runtime")
    _secrets(container)
    _configs(container)
    _container(container)


def _resources(resources: ResourceRequirements | None) -> None:
    if resources is None:
        return
    for part in (resources.limits, resources.reservations):
        if part is None:
            continue
        if part.nano_cpus and part.nano_cpus < MIN_NANO_CPUS:
            raise InvalidArgument(f"invalid cpu value {part.nano_cpus / 1e9:g}: Must be at least 0.001")
        if part.memory_bytes and part.memory_bytes < MIN_MEMORY:
            raise InvalidArgument(f"invalid memory value {part.memory_bytes}: Must be at least 4MiB")


def _restart(policy: RestartPolicy | None) -> None:
    if policy is None:
        return
    if (policy.delay or 0) < 0:
        raise InvalidArgument("TaskSpec: restart-delay cannot be negative")
    if (policy.window or 0) < 0:
        raise InvalidArgument("TaskSpec: restart-window cannot be negative")


def _placement(placement: Placement | None) -> None:
    if placement is None:
        return
    try:
        constraints.parse(placement.constraints)
    except constraints.ConstraintError as error:
        raise UnknownError(str(error)) from None


def _update(config: UpdateConfig | None) -> None:
    if config is None:
        return
    if config.delay < 0:
        raise InvalidArgument("TaskSpec: update-delay cannot be negative")
    if config.monitor < 0:
        raise InvalidArgument("TaskSpec: update-monitor cannot be negative")
    if not 0 <= config.max_failure_ratio <= 1:
        raise InvalidArgument("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1")


def _mode(mode: ServiceMode) -> None:
    if mode.replicated is not None and not 0 <= (mode.replicated.replicas or 0) <= MAX_INT64:
        raise InvalidArgument("Number of replicas must be non-negative")
    if mode.replicated_job is not None:
        if not 0 <= (mode.replicated_job.max_concurrent or 0) <= MAX_INT64:
            raise InvalidArgument("Maximum concurrent jobs must not be negative")
        if not 0 <= (mode.replicated_job.total_completions or 0) <= MAX_INT64:
            raise InvalidArgument("Total completed jobs must not be negative")


def _container(container: ContainerSpec) -> None:
    if not container.image:
        raise InvalidArgument("ContainerSpec: image reference must be provided")
    if not valid_image(container.image):
        raise InvalidArgument(f'ContainerSpec: "{container.image}" is not a valid repository/tag')
    targets = set()
    for mount in container.mounts:
        if mount.target in targets:
            raise InvalidArgument(f"ContainerSpec: duplicate mount point: {mount.target}")
        targets.add(mount.target)
    _health(container.healthcheck)


def valid_image(image: str) -> bool:
    """True for a name that an image may have: [HOST[:PORT]/]PATH[:TAG][@DIGEST], and not a bare image id."""
    return len(image) <= MAX_IMAGE and _IMAGE.fullmatch(image) is not None and not _IMAGE_ID.fullmatch(image)


def _health(health: HealthConfig | None) -> None:
    if health is None:
        return
    for name, value in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if value and value < MILLISECOND:
            raise InvalidArgument(f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms")
    if health.retries < 0:
        raise InvalidArgument("ContainerSpec: Retries in HealthConfig cannot be negative")


def _secrets(container: ContainerSpec) -> None:
    targets: dict[str, str] = {}
    for ref in container.secrets:
        if not ref.secret_id or not ref.secret_name:
            raise InvalidArgument("malformed secret reference")
        if ref.file is None:
            raise InvalidArgument("malformed secret reference, no target provided")
        _target("secret", ref.file.name, ref.secret_name, targets)


def _configs(container: ContainerSpec) -> None:
    targets: dict[str, str] = {}
    runtime = set()
    for ref in container.configs:
        if not ref.config_id or not ref.config_name:
            raise InvalidArgument("malformed config reference")
        if ref.file is not None:
            _target("config", ref.file.name, ref.config_name, targets)
        else:
            runtime.add(ref.config_id)
    credentials = container.privileges.credential_spec if container.privileges is not None else None
    if credentials is not None and credentials.config and credentials.config not in runtime:
        raise InvalidArgument(
            f"CredentialSpec references config '{credentials.config}', but that config isn't in config references "
            "with RuntimeTarget"
        )


def _target(kind: str, file: str, name: str, targets: dict[str, str]) -> None:
    if not file:
        raise InvalidArgument(f"malformed file {kind} reference, invalid target file name provided")
    if file in targets:
        raise InvalidArgument(f"{kind} references '{targets[file]}' and '{name}' have a conflicting target: '{file}'")
    targets[file] = name


def _endpoint(spec: EndpointSpec | None) -> None:
    if spec is None:
        return
    published = set()
    for port in spec.ports:
        if spec.mode == "dnsrr" and port.publish_mode == "ingress":
            raise InvalidArgument("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
        if not port.published_port:
            continue
        key = (port.published_port, port.protocol)
        if key in published:
            raise InvalidArgument("EndpointSpec: duplicate published ports provided")
        published.add(key)
