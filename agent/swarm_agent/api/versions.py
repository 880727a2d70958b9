"""API versions: which are spoken, and what older ones did not have (swarm.md §1.1, §1.3 "Version stripping")."""

from __future__ import annotations

import re
from typing import Any

from msgspec.structs import replace

from swarm_agent.model.errors import BadRequest
from swarm_agent.model.requests import InitRequest
from swarm_agent.model.specs import ContainerSpec, ServiceSpec

ApiVersion = tuple[int, int]

NEWEST: ApiVersion = (1, 51)
"""What is implemented here. Clients are told the older of this and the engine's."""

OLDEST: ApiVersion = (1, 24)

_PREFIX = re.compile(r"/v(\d{1,4})\.(\d{1,4})(/.*)")


def split_version(path: str) -> tuple[ApiVersion | None, str]:
    """`/v1.41/services` as ((1, 41), "/services"); None without a prefix."""
    match = _PREFIX.fullmatch(path)
    if match is None:
        return None, path
    return (int(match[1]), int(match[2])), match[3]


def parse_version(text: str) -> ApiVersion | None:
    """`1.41` as (1, 41); None for anything else."""
    major, dot, minor = text.partition(".")
    if not dot or not major.isdigit() or not minor.isdigit():
        return None
    return int(major), int(minor)


def show(version: ApiVersion) -> str:
    return f"{version[0]}.{version[1]}"


def check_version(asked: ApiVersion | None, newest: ApiVersion) -> ApiVersion:
    """The version to speak: the one asked for, or the newest. Raises BadRequest when it is not spoken."""
    if asked is None:
        return newest
    if asked < OLDEST:
        raise BadRequest(
            f"client version {show(asked)} is too old. Minimum supported API version is {show(OLDEST)}, "
            "please upgrade your client to a newer version"
        )
    if asked > newest:
        raise BadRequest(f"client version {show(asked)} is too new. Maximum supported API version is {show(newest)}")
    return asked


def adjust_init(request: InitRequest, version: ApiVersion) -> InitRequest:
    """Without the fields that the client's version does not have."""
    if version < (1, 39):
        request = replace(request, default_addr_pool=[], subnet_size=0)
    if version < (1, 40):
        request = replace(request, data_path_port=0)
    return request


def adjust_service(spec: ServiceSpec, version: ApiVersion) -> ServiceSpec:
    """Without the fields that the client's version does not have; networks of old clients move to the task."""
    task = spec.task_template
    if task.resources is not None:
        resources = task.resources
        if version < (1, 52):
            resources = replace(resources, swap_bytes=None, memory_swappiness=None)
        if version < (1, 41) and resources.limits is not None:
            resources = replace(resources, limits=replace(resources.limits, pids=0))
        task = replace(task, resources=resources)
    if task.container_spec is not None:
        task = replace(task, container_spec=_container(task.container_spec, version))
    if version < (1, 40) and task.placement is not None:
        task = replace(task, placement=replace(task.placement, max_replicas=0))
    if version < (1, 44) and not task.networks and spec.networks:
        task = replace(task, networks=spec.networks)
    spec = replace(spec, task_template=task, networks=[] if version < (1, 44) else spec.networks)
    if version < (1, 41):
        spec = replace(spec, mode=replace(spec.mode, replicated_job=None, global_job=None))
    return spec


def _container(spec: ContainerSpec, version: ApiVersion) -> ContainerSpec:
    changes: dict[str, Any] = {}
    if version < (1, 46):
        changes["oom_score_adj"] = 0
        changes["mounts"] = [
            replace(mount, tmpfs_options=replace(mount.tmpfs_options, options=[]))
            if mount.tmpfs_options is not None
            else mount
            for mount in spec.mounts
        ]
    if version < (1, 44):
        if spec.healthcheck is not None:
            changes["healthcheck"] = replace(spec.healthcheck, start_interval=0)
        if spec.privileges is not None:
            changes["privileges"] = replace(spec.privileges, seccomp=None, app_armor=None, no_new_privileges=False)
    if version < (1, 41):
        changes |= {"capability_add": [], "capability_drop": [], "ulimits": []}
    if version < (1, 40):
        changes["sysctls"] = {}
        changes["configs"] = [replace(config, runtime=None) for config in spec.configs]
        privileges = changes.get("privileges", spec.privileges)
        if privileges is not None and privileges.credential_spec is not None:
            credentials = replace(privileges.credential_spec, config="")
            changes["privileges"] = replace(privileges, credential_spec=credentials)
    return replace(spec, **changes) if changes else spec
