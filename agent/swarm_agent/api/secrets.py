"""/secrets and /configs of the cluster's API (swarm.md §1.6). A secret's data never leaves through here."""

from __future__ import annotations

from msgspec.structs import replace

from swarm_agent.manager.control import secrets as control
from swarm_agent.manager.control.lookup import find
from swarm_agent.model.base import encode
from swarm_agent.model.errors import BadRequest
from swarm_agent.model.objects import Config, Secret
from swarm_agent.model.specs import ConfigSpec, SecretSpec

from .context import Context
from .filters import has_labels, parse_filters
from .message import EMPTY, NO_CONTENT, Request, Response, json_list, json_response, raw_json
from .versions import show


def _redacted(secret: Secret) -> bytes:
    return encode(replace(secret, spec=replace(secret.spec, data="")))


def _wanted(obj: Secret | Config, filters: dict[str, list[str]]) -> bool:
    """Unlike with other kinds, one hit among names, name prefixes and id prefixes is enough, and names are compared
    without regard to case."""
    names, prefixes = ([value.lower() for value in filters.get(key, ())] for key in ("names", "name"))
    ids = filters.get("id", [])
    if names or prefixes or ids:
        name = obj.spec.name.lower()
        if name not in names and not name.startswith(tuple(prefixes)) and not obj.id.startswith(tuple(ids)):
            return False
    return has_labels(obj.spec.labels, filters.get("label"))


def _check_templating(request: Request, kind: str, spec: SecretSpec | ConfigSpec) -> None:
    if spec.templating is not None and request.version < (1, 37):
        raise BadRequest(f"{kind} templating is not supported on the specified API version: {show(request.version)}")


async def list_secrets(context: Context) -> Response:
    filters = dict(parse_filters(context.request, ("names", "name", "id", "label")))
    view = await context.read()
    return json_list([_redacted(secret) for secret in view.all(Secret) if _wanted(secret, filters)])


async def create_secret(context: Context) -> Response:
    spec = context.body(SecretSpec)
    _check_templating(context.request, "secret", spec)
    secret = await context.update(lambda tx: control.create_secret(tx, spec, context.rng))
    return json_response({"ID": secret.id}, status=201)


async def inspect_secret(context: Context) -> Response:
    return raw_json(_redacted(find(await context.read(), Secret, context.term)))


async def update_secret(context: Context) -> Response:
    spec = context.body(SecretSpec)
    version = context.request.object_version("secret", detailed=False)
    await context.update(lambda tx: control.update_secret(tx, context.term, version, spec))
    return EMPTY


async def remove_secret(context: Context) -> Response:
    await context.update(lambda tx: control.remove_secret(tx, context.term))
    return NO_CONTENT


async def list_configs(context: Context) -> Response:
    filters = dict(parse_filters(context.request, ("name", "id", "label")))
    view = await context.read()
    return context.encoded(config for config in view.all(Config) if _wanted(config, filters))


async def create_config(context: Context) -> Response:
    spec = context.body(ConfigSpec)
    _check_templating(context.request, "config", spec)
    config = await context.update(lambda tx: control.create_config(tx, spec, context.rng))
    return json_response({"ID": config.id}, status=201)


async def inspect_config(context: Context) -> Response:
    return raw_json(context.store.encoded(find(await context.read(), Config, context.term)))


async def update_config(context: Context) -> Response:
    spec = context.body(ConfigSpec)
    version = context.request.object_version("config", detailed=False)
    await context.update(lambda tx: control.update_config(tx, context.term, version, spec))
    return EMPTY


async def remove_config(context: Context) -> Response:
    await context.update(lambda tx: control.remove_config(tx, context.term))
    return NO_CONTENT
