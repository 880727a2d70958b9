"""How structs become JSON in the shape of the Engine API, and back.

Go drops fields marked `omitempty` when they are empty and keeps the others, and clients compare the result literally
(reference/swarm.md §1.9). Here: a field with a plain default is dropped while it has that default; a field made with
`always(...)` is emitted even when empty. Go reads `null` as the zero value, so `decode` removes nulls first.
Fields of stored objects whose JSON name starts with "_" are internal: stored and replicated, never shown to clients
(`public` drops them; only top-level fields may be internal).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from .errors import BadRequest

T = TypeVar("T")

MIN_INT64, MAX_INT64 = -(2**63), 2**63 - 1

_ACRONYMS = {
    "id": "ID", "ids": "IDs", "cpus": "CPUs", "url": "URL", "dns": "DNS", "tls": "TLS", "ca": "CA", "cas": "CAs",
    "tty": "TTY", "uid": "UID", "gid": "GID", "ip": "IP", "ips": "IPs", "pid": "PID", "os": "OS", "csi": "CSI",
    "ipam": "IPAM", "ipv4": "IPv4", "ipv6": "IPv6", "selinux": "SELinux",
}  # fmt: skip


def api_name(field: str) -> str:
    """The Engine API's name of a Python field: `node_id` → `NodeID`; a leading underscore stays (internal field)."""
    prefix = "_" if field.startswith("_") else ""
    return prefix + "".join(_ACRONYMS.get(word, word.capitalize()) for word in field.strip("_").split("_"))


class Object(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=api_name):
    """Base of every struct that appears in the API or the store."""


def always(factory: Callable[[], Any]) -> Any:
    """A field that is emitted even when empty. `factory` makes the empty value."""
    if factory in (list, dict, set):
        kind = factory
        return msgspec.field(default_factory=lambda: kind())
    return msgspec.field(default_factory=factory)


def strip_nulls(value: Any) -> Any:
    """The JSON value without null members and entries, as Go's decoder would see it.

    Raises BadRequest for integers that Go's clients could not read back.
    """
    if isinstance(value, dict):
        return {key: strip_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [strip_nulls(item) for item in value if item is not None]
    if isinstance(value, int) and not MIN_INT64 <= value <= MAX_INT64:
        raise BadRequest(f"invalid JSON: number {value} is out of range")
    return value


def decode(kind: type[T], body: bytes) -> T:
    """Read a client's JSON. Unknown fields are ignored and nulls are zero values, as in Go.

    Raises `BadRequest` that names the field at fault.
    """
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise BadRequest(f"invalid JSON: {error}") from None
    try:
        return msgspec.convert(strip_nulls(value), kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"invalid JSON: {_go_path(str(error))}") from None


def _go_path(message: str) -> str:
    return re.sub(r"at `\$\.?(.*)`", r"at \1", message)


_stored_encoder = msgspec.json.Encoder()
_internal_cache: dict[type, dict[str, Any]] = {}


def _internal_defaults(kind: type[msgspec.Struct]) -> dict[str, Any]:
    found = _internal_cache.get(kind)
    if found is None:
        found = {}
        for field in msgspec.structs.fields(kind):
            if field.encode_name.startswith("_"):
                if field.default_factory is not msgspec.NODEFAULT:
                    found[field.name] = field.default_factory()
                else:
                    found[field.name] = field.default
        _internal_cache[kind] = found
    return found


def public(obj: T) -> T:
    """The object without its internal fields."""
    defaults = _internal_defaults(type(obj))  # type: ignore[arg-type]
    return msgspec.structs.replace(obj, **defaults) if defaults else obj  # type: ignore[type-var]


def encode(obj: Any) -> bytes:
    """The object's JSON for clients, internal fields left out (of the object itself; nested ones have none)."""
    return _stored_encoder.encode(public(obj) if isinstance(obj, msgspec.Struct) else obj)


def encode_stored(obj: msgspec.Struct) -> bytes:
    """The object's JSON for log and snapshot, internal fields included."""
    return _stored_encoder.encode(obj)
