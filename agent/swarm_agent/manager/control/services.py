"""Services: create, update, roll back, remove (swarm.md §1.3).

An update keeps the spec it replaces, so that it can be taken back, and moves the *spec version*, which tasks remember:
that, not `version`, tells the orchestrators which tasks are out of date. It clears the update status; the update
supervisor sets it when it starts to work.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from msgspec.structs import replace

from swarm_agent.model.errors import (
    BadRequest,
    FailedPrecondition,
    InvalidArgument,
    Unimplemented,
)
from swarm_agent.model.extensions import CRON
from swarm_agent.model.ids import new_id
from swarm_agent.model.objects import (
    Config,
    Endpoint,
    JobStatus,
    Network,
    Secret,
    Service,
    UpdateStatus,
    Version,
)
from swarm_agent.model.specs import NetworkAttachmentConfig, ServiceSpec
from swarm_agent.store.tx import Tx
from swarm_agent.store.view import Reader

from . import ports, service_spec
from .lookup import candidates, find
from .normalize import is_job, mode_of, normalize_service

PREDEFINED_NETWORKS = ("host", "bridge", "none")
"""Each host's own networks, which services may name; stored by name as every host has its own."""


def create_service(tx: Tx, spec: ServiceSpec, rng: random.Random, *, registry_auth: str = "") -> Service:
    """Store a new service. `registry_auth` is the client's X-Registry-Auth header, passed on to the nodes that pull.

    Raises BadRequest, InvalidArgument, NotFound (network), AlreadyExists (name), FailedPrecondition (no ingress).
    """
    spec = _resolve_networks(tx, spec)
    spec = normalize_service(spec, rng)
    service_spec.validate(spec)
    _check_networks(tx, spec)
    ports.check_conflicts(tx, spec.endpoint_spec)
    _check_ingress(tx, spec)
    _check_references(tx, spec)
    return tx.create(
        Service(
            id=new_id(rng),
            spec=spec,
            endpoint=Endpoint(),  # the allocator's; it stays so for a service without ports and VIPs
            job_status=_first_run(spec, tx.now) if is_job(spec) else None,
            scheduled_to=tx.now if CRON in spec.labels else "",
            registry_auth=registry_auth,
        )
    )


def update_service(
    tx: Tx,
    term: str,
    version: int,
    spec: ServiceSpec,
    rng: random.Random,
    *,
    rollback: str = "",
    registry_auth: str = "",
    registry_auth_from: str = "",
) -> Service:
    """Replace the spec of the service that `term` names, or with rollback="previous" swap it with the one before.

    `version` is the one that the client has read; raises OutOfSequence when it is no longer current, and otherwise
    what `create_service` raises, and Unimplemented for what Swarm does not allow to change.
    """
    if rollback not in ("", "none", "previous"):
        raise BadRequest(f"unrecognized rollback option {rollback}")
    spec = _resolve_networks(tx, spec)
    service = find(tx, Service, term)
    spec = normalize_service(spec, rng)
    auth = registry_auth or _kept_auth(service, registry_auth_from)
    service_spec.validate(spec)
    _check_networks(tx, spec)
    if spec.endpoint_spec is not None and spec.endpoint_spec != service.spec.endpoint_spec:
        ports.check_conflicts(tx, spec.endpoint_spec, service.id)
    _check_old_networks(service.spec, spec)
    _check_references(tx, spec)
    if mode_of(spec) != mode_of(service.spec):
        raise Unimplemented("service mode change is not allowed")
    if spec.name != service.spec.name:
        raise Unimplemented("renaming services is not supported")
    if rollback == "previous":
        changed = _rolled_back(service, tx.now)
    else:
        changed = replace(
            service,
            spec=spec,
            spec_version=Version(index=version),
            previous_spec=service.spec,
            previous_spec_version=service.spec_version,
            update_status=None,
        )
    _check_ingress(tx, changed.spec)
    changed = next_run(service, changed, tx.now)
    return tx.update(replace(changed, version=Version(index=version), registry_auth=auth))


def remove_service(tx: Tx, term: str) -> Service:
    """Remove the service; the orchestrators remove its tasks. Raises NotFound, BadRequest (ambiguous)."""
    service = find(tx, Service, term)
    tx.delete(Service, service.id)
    return service


def _rolled_back(service: Service, now: str) -> Service:
    if service.previous_spec is None:
        raise FailedPrecondition(f"service {service.id} does not have a previous spec")
    return replace(
        service,
        spec=service.previous_spec,
        spec_version=service.previous_spec_version or Version(),
        previous_spec=service.spec,
        previous_spec_version=service.spec_version,
        update_status=UpdateStatus(state="rollback_started", message="manually requested rollback", started_at=now),
    )


def _first_run(spec: ServiceSpec, now: str) -> JobStatus:
    """A job's run counter at the start: a scheduled one has not run yet."""
    return JobStatus() if CRON in spec.labels else JobStatus(last_execution=now)


def next_run(old: Service, new: Service, now: str) -> Service:
    """What an update means for a job: it runs once more. A scheduled one does so only when it is forced; otherwise the
    change waits for its time, and a new schedule counts from now."""
    if old.job_status is None:
        return new
    iteration = old.job_status.job_iteration.index
    scheduled = CRON in new.spec.labels
    if scheduled and old.spec.labels.get(CRON) != new.spec.labels[CRON]:
        new = replace(new, scheduled_to=now)
    if scheduled and old.spec.task_template.force_update == new.spec.task_template.force_update:
        return new
    job = JobStatus(job_iteration=Version(index=iteration + 1), last_execution=now)
    return replace(new, job_status=job, released=iteration + 1 if scheduled else -1)


def _kept_auth(service: Service, source: str) -> str:
    """The credentials stay when the client sends none. They are kept once per service, not once per spec."""
    if source == "previous-spec":
        if service.previous_spec is None:
            raise BadRequest("service does not have a previous spec")
    elif source not in ("", "spec"):
        raise BadRequest("unsupported registryAuthFrom value")
    return service.registry_auth


# --- references to other objects -------------------------------------------------------------------------------------


def _resolve_networks(view: Reader, spec: ServiceSpec) -> ServiceSpec:
    """Names of networks become ids, as services keep them. Raises NotFound."""
    resolved = [_resolve(view, network) for network in spec.task_template.networks]
    return replace(spec, task_template=replace(spec.task_template, networks=resolved))


def _resolve(view: Reader, config: NetworkAttachmentConfig) -> NetworkAttachmentConfig:
    if not candidates(view, Network, config.target) and config.target in PREDEFINED_NETWORKS:
        return config
    return replace(config, target=find(view, Network, config.target).id)


def unknown_networks(view: Reader, spec: ServiceSpec) -> list[str]:
    """Networks named in the spec that the cluster does not have; a host's own one among them is refused by the API."""
    return [
        network.target
        for network in spec.task_template.networks
        if network.target not in PREDEFINED_NETWORKS and not candidates(view, Network, network.target)
    ]


def _check_networks(view: Reader, spec: ServiceSpec) -> None:
    for config in spec.task_template.networks:
        network = view.get(Network, config.target)
        if network is not None and network.spec.ingress:
            raise InvalidArgument(f'Service cannot be explicitly attached to the ingress network "{network.spec.name}"')


def _check_old_networks(old: ServiceSpec, new: ServiceSpec) -> None:
    """Networks at the top of the spec (before API 1.25) cannot change unless those of the task do."""
    if new.networks != old.networks and new.task_template.networks == old.task_template.networks:
        raise Unimplemented("networks must be migrated to TaskSpec before being changed")


def _check_ingress(view: Reader, spec: ServiceSpec) -> None:
    if ports.needs_ingress(spec.endpoint_spec) and not any(item.spec.ingress for item in view.all(Network)):
        raise FailedPrecondition("service needs ingress network, but no ingress network is present")


def _check_references(view: Reader, spec: ServiceSpec) -> None:
    container = spec.task_template.container_spec
    if container is None:
        return
    secrets = (
        ref.secret_name for ref in container.secrets if not _named(view.get(Secret, ref.secret_id), ref.secret_name)
    )
    _refuse_missing("secret", secrets)
    configs = (
        ref.config_name for ref in container.configs if not _named(view.get(Config, ref.config_id), ref.config_name)
    )
    _refuse_missing("config", configs)


def _named(obj: Secret | Config | None, name: str) -> bool:
    return obj is not None and obj.spec.name == name


def _refuse_missing(kind: str, names: Iterable[str]) -> None:
    missing = list(names)
    if missing:
        raise InvalidArgument(f"{kind}{'s' if len(missing) > 1 else ''} not found: {', '.join(missing)}")
