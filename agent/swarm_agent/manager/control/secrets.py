"""Secrets and configs: create, relabel, remove (swarm.md §1.6). They differ in a few limits and in what is shown."""

from __future__ import annotations

import base64
import binascii
import hmac
import random
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec.structs import replace

from swarm_agent.model.errors import BadRequest, InvalidArgument, UnknownError
from swarm_agent.model.ids import new_id
from swarm_agent.model.objects import Config, Secret, Service, Version
from swarm_agent.model.specs import ConfigSpec, SecretSpec
from swarm_agent.store.tx import Tx

from .lookup import find
from .names import validate_object_name

S = TypeVar("S", Secret, Config)


@dataclass(frozen=True, slots=True)
class _Limits:
    largest: int
    text: str


_SECRET = _Limits(500 * 1024 - 1, "secret data must be larger than 0 and less than 512000 bytes")
_CONFIG = _Limits(1000 * 1024 - 1, "config data must be larger than 0 and less than 1024000 bytes")


def create_secret(tx: Tx, spec: SecretSpec, rng: random.Random) -> Secret:
    """Raises InvalidArgument for name and size, BadRequest for data that is not base64, AlreadyExists."""
    validate_object_name(spec.name)
    if spec.driver is not None:
        if not spec.driver.name:
            raise InvalidArgument("secret driver must have a name")
        # There are no secret drivers here, and Swarm says of one that it cannot find:
        raise UnknownError(f'plugin "{spec.driver.name}" not found')
    _check_size(_decode(spec.data), _SECRET)
    return tx.create(Secret(id=new_id(rng), spec=spec))


def create_config(tx: Tx, spec: ConfigSpec, rng: random.Random) -> Config:
    """Raises InvalidArgument for name and size, BadRequest for data that is not base64, AlreadyExists."""
    validate_object_name(spec.name)
    _check_size(_decode(spec.data), _CONFIG)
    return tx.create(Config(id=new_id(rng), spec=spec))


def update_secret(tx: Tx, term: str, version: int, spec: SecretSpec) -> Secret:
    """Replace the labels; nothing else may change. Raises InvalidArgument, OutOfSequence, NotFound."""
    return _relabel(tx, Secret, term, version, spec)


def update_config(tx: Tx, term: str, version: int, spec: ConfigSpec) -> Config:
    """Replace the labels; nothing else may change. Raises InvalidArgument, OutOfSequence, NotFound."""
    return _relabel(tx, Config, term, version, spec)


def remove_secret(tx: Tx, term: str) -> Secret:
    """Raises InvalidArgument while a service refers to it, NotFound."""
    return _remove(tx, Secret, term)


def remove_config(tx: Tx, term: str) -> Config:
    """Raises InvalidArgument while a service refers to it, NotFound."""
    return _remove(tx, Config, term)


def _relabel(tx: Tx, kind: type[S], term: str, version: int, spec: Any) -> S:
    obj = find(tx, kind, term)
    changed_data = bool(spec.data) and not hmac.compare_digest(_decode(spec.data), _decode(obj.spec.data))
    if spec.name != obj.spec.name or changed_data:
        raise InvalidArgument("only updates to Labels are allowed")
    changed: Any = replace(obj, spec=replace(obj.spec, labels=spec.labels), version=Version(index=version))
    return tx.update(changed)  # type: ignore[no-any-return]


def _remove(tx: Tx, kind: type[S], term: str) -> S:
    obj = find(tx, kind, term)
    users = [service.spec.name for service in tx.all(Service) if obj.id in _references(kind, service)]
    if users:
        raise InvalidArgument(
            f"{kind.KIND} '{obj.spec.name}' is in use by the following service{'s' if len(users) > 1 else ''}: "
            f"{', '.join(users)}"
        )
    tx.delete(kind, obj.id)
    return obj


def _references(kind: type[Any], service: Service) -> set[str]:
    container = service.spec.task_template.container_spec
    if container is None:
        return set()
    if kind is Secret:
        return {ref.secret_id for ref in container.secrets}
    return {ref.config_id for ref in container.configs}


def _decode(data: str) -> bytes:
    # Clients pad and some use the URL alphabet (Go's JSON takes only the standard one; docker-py sends that).
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("invalid JSON: illegal base64 data in Data") from None


def _check_size(data: bytes, limits: _Limits) -> None:
    if not 1 <= len(data) <= limits.largest:
        raise InvalidArgument(limits.text)
