"""/tasks of the cluster's API (swarm.md §1.4). Tasks are only read here; the orchestrators make and end them."""

from __future__ import annotations

from collections.abc import Iterable

from swarm_agent.manager.control.lookup import find
from swarm_agent.manager.tasks import is_dirty
from swarm_agent.model.objects import Node, Service, Task
from swarm_agent.model.states import TaskState
from swarm_agent.store.view import View

from .context import Context
from .filters import Filters, check_words, has_labels, has_prefix, is_in, parse_filters
from .message import Response, raw_json

FILTERS = ("name", "id", "label", "service", "node", "desired-state", "runtime", "_up-to-date")
_STATES = frozenset(state.value for state in TaskState)


async def list_tasks(context: Context) -> Response:
    filters = parse_filters(context.request, FILTERS)
    view = await context.read()
    services = [find(view, Service, term).id for term in filters.get("service", ())]
    nodes = [find(view, Node, term).id for term in filters.get("node", ())]
    desired = check_words("desired-state", filters.get("desired-state"), _STATES)
    up_to_date = bool(filters.get("_up-to-date"))
    return context.encoded(
        task
        for task in _candidates(view, services, nodes)
        if is_in(task.service_id, services)
        and is_in(task.node_id, nodes)
        and is_in(task.desired_state, desired)
        and _matches(task, filters)
        and (not up_to_date or _is_up_to_date(view, task))
    )


def _candidates(view: View, services: list[str], nodes: list[str]) -> Iterable[Task]:
    """Tasks by the narrowest index; the filters themselves are applied to them afterwards."""
    if services:
        return [task for id_ in dict.fromkeys(services) for task in view.find(Task, service_id=id_)]
    if nodes:
        return [task for id_ in dict.fromkeys(nodes) for task in view.find(Task, node_id=id_)]
    return view.all(Task)


def _matches(task: Task, filters: Filters) -> bool:
    # Without a runtime filter Swarm lists container tasks and those that say nothing.
    runtime = task.spec.runtime or "container"
    return (
        has_prefix(task.name, filters.get("name"))
        and has_prefix(task.id, filters.get("id"))
        and has_labels(task.service_labels, filters.get("label"))
        and runtime in (filters.get("runtime") or ["container"])
    )


def _is_up_to_date(view: View, task: Task) -> bool:
    """The task is of its service's present spec: what progress displays wait for."""
    service = view.get(Service, task.service_id)
    return service is not None and not is_dirty(service, task, view.get(Node, task.node_id))


async def inspect_task(context: Context) -> Response:
    task = find(await context.read(), Task, context.term)
    return raw_json(context.store.encoded(task))
