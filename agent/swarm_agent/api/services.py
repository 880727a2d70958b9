"""/services of the cluster's API (swarm.md §1.3)."""

from __future__ import annotations

from msgspec.structs import replace

from swarm_agent.manager.control import services as control
from swarm_agent.manager.control.lookup import find
from swarm_agent.manager.control.normalize import mode_of, with_defaults
from swarm_agent.model.base import encode
from swarm_agent.model.objects import Service, ServiceStatus, Task
from swarm_agent.model.specs import ServiceSpec
from swarm_agent.model.states import TaskState
from swarm_agent.store.view import View

from .context import Context
from .filters import has_labels, has_prefix, is_in, parse_filters
from .message import EMPTY, Response, json_list, json_response, raw_json
from .versions import adjust_service

FILTERS = ("name", "id", "label", "mode", "runtime")


async def list_services(context: Context) -> Response:
    filters = parse_filters(context.request, FILTERS)
    with_status = context.request.version >= (1, 41) and context.request.strict_flag("status")
    view = await context.read()
    runtimes = filters.get("runtime") or ["container"]
    found = [
        service
        for service in view.all(Service)
        if has_prefix(service.spec.name, filters.get("name"))
        and has_prefix(service.id, filters.get("id"))
        and has_labels(service.spec.labels, filters.get("label"))
        and is_in(mode_of(service.spec), filters.get("mode"))
        and (service.spec.task_template.runtime or "container") in runtimes
    ]
    if not with_status:
        return context.encoded(found)
    return json_list([_with_status(context.store.encoded(item), count(view, item)) for item in found])


def _with_status(encoded: bytes, status: ServiceStatus) -> bytes:
    """Adds a member to an encoded object, which is far cheaper than to encode it anew."""
    return b'%s,"ServiceStatus":{"RunningTasks":%d,"DesiredTasks":%d,"CompletedTasks":%d}}' % (
        encoded[:-1],
        status.running_tasks,
        status.desired_tasks,
        status.completed_tasks,
    )


def count(view: View, service: Service) -> ServiceStatus:
    """How many tasks of the service run, should run, and (jobs) have completed in the present iteration."""
    mode = service.spec.mode
    tasks = view.find(Task, service_id=service.id)
    if service.job_status is not None:
        iteration = service.job_status.job_iteration.index
        tasks = [task for task in tasks if task.job_iteration is not None and task.job_iteration.index == iteration]
    states = [task.status.state for task in tasks]
    if mode.replicated is not None:
        desired = mode.replicated.replicas or 0
    elif mode.replicated_job is not None:
        desired = mode.replicated_job.max_concurrent or 0
    else:
        desired = sum([_is_desired(task) for task in tasks])
    completed = states.count(TaskState.COMPLETE) if service.job_status is not None else 0
    return ServiceStatus(
        running_tasks=states.count(TaskState.RUNNING), desired_tasks=desired, completed_tasks=completed
    )


def _is_desired(task: Task) -> bool:
    """The task of a global service or job is to run, or to complete and has not yet."""
    wanted = task.desired_state
    return wanted is TaskState.RUNNING or (wanted is TaskState.COMPLETE and task.status.state is not TaskState.COMPLETE)


async def create_service(context: Context) -> Response:
    spec = adjust_service(context.body(ServiceSpec), context.request.version)
    auth = context.request.headers.get("x-registry-auth", "")
    service = await context.update(lambda tx: control.create_service(tx, spec, context.rng, registry_auth=auth))
    return json_response({"ID": service.id, "Warnings": None}, status=201)


async def inspect_service(context: Context) -> Response:
    insert_defaults = context.request.strict_flag("insertDefaults")
    service = find(await context.read(), Service, context.term)
    if insert_defaults:
        return raw_json(encode(replace(service, spec=with_defaults(service.spec))))
    return raw_json(context.store.encoded(service))


async def update_service(context: Context) -> Response:
    request = context.request
    spec = adjust_service(context.body(ServiceSpec), request.version)
    version = request.object_version("service")
    await context.update(
        lambda tx: control.update_service(
            tx,
            context.term,
            version,
            spec,
            context.rng,
            rollback=request.query.get("rollback", ""),
            registry_auth=request.headers.get("x-registry-auth", ""),
            registry_auth_from=request.query.get("registryAuthFrom", ""),
        )
    )
    return json_response({"Warnings": None})


async def remove_service(context: Context) -> Response:
    await context.update(lambda tx: control.remove_service(tx, context.term))
    return EMPTY
