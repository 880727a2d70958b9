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
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

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


_HIDDEN = frozenset(
    [
        "ca_key",
        "next_ca_key",
        "signing_ca_key",
        "unlock_key",
        "gossip_keys",
        "data",
        "secret",
        "token",
        "join_token",
        "registry_auth",
    ]
)


def discreet(obj: msgspec.Struct, hidden: frozenset[str] = _HIDDEN) -> str:
    """The `repr` of a struct that may hold keys, tokens or secrets, without these: it may end up in a log."""
    shown = []
    for field in obj.__struct_fields__:
        value = getattr(obj, field)
        shown.append(f"{field}=…" if field in hidden and value else f"{field}={value!r}")
    return f"{type(obj).__name__}({', '.join(shown)})"


class Object(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=api_name, gc=False):
    """Base of every struct that appears in the API or the store.

    Immutable and built from the inside out, so it cannot be part of a cycle: the garbage collector need not look at it
    (`gc=False`). With 100,000 stored objects that halves its pauses.
    """

    def __repr__(self) -> str:
        return discreet(self)


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
        return {
            key: item if isinstance(item, str) else strip_nulls(item)  # most are, and a call for each costs
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [strip_nulls(item) for item in value if item is not None]
    if isinstance(value, int) and not MIN_INT64 <= value <= MAX_INT64:
        raise BadRequest(f"invalid JSON: number {value} is out of range")
    return value


def fold_names(value: Any, kind: Any) -> Any:
    """The JSON value with the API's own spelling of field names. Go reads names without regard to case, and clients
    rely on it: docker-py writes {"Mode": {"replicated": ...}}. An exact name wins over others.
    """
    shape = _shape(kind)
    return value if shape is None else shape.fold(value)


class _Shape:
    """Where in a value of some type there are field names: what is asked of the type once, not for each request."""

    __slots__ = ("_exact", "_item", "_names")

    def __init__(self) -> None:
        self._names: dict[str, tuple[str, _Shape | None]] = {}  # of a struct, by lower-case name
        self._exact: dict[str, _Shape | None] = {}  # the same by exact name
        self._item: _Shape | None = None  # of a list's items or a map's values

    def of_struct(self, kind: type[msgspec.Struct]) -> None:
        for item in msgspec.structs.fields(kind):
            inner = _shape(item.type)
            self._names[item.encode_name.lower()] = (item.encode_name, inner)
            self._exact[item.encode_name] = inner

    def of_items(self, item: _Shape) -> None:
        self._item = item

    def fold(self, value: Any) -> Any:
        if isinstance(value, dict):
            if self._item is not None:
                return {key: self._item.fold(item) for key, item in value.items()}
            if self._exact.keys() >= value.keys():  # nearly always; the rest is for those who spell otherwise
                return {
                    key: item if (inner := self._exact[key]) is None else inner.fold(item)
                    for key, item in value.items()
                }
            return self._respell(value)
        if isinstance(value, list) and self._item is not None:
            return [self._item.fold(item) for item in value]
        return value

    def _respell(self, value: dict[str, Any]) -> dict[str, Any]:
        known = {key: self._names[key.lower()] for key in value if key.lower() in self._names}
        folded = {key: item for key, item in value.items() if key not in known}
        for exact in (False, True):
            for key, (name, inner) in known.items():
                if (key == name) is exact:
                    folded[name] = value[key] if inner is None else inner.fold(value[key])
        return folded


_shapes: dict[Any, _Shape | None] = {}


def _shape(kind: Any) -> _Shape | None:
    """The shape of a type; None when there are no field names in it."""
    if kind in _shapes:
        return _shapes[kind]
    if get_origin(kind) in (Union, UnionType):
        found = next((shape for part in get_args(kind) if (shape := _shape(part)) is not None), None)
        _shapes[kind] = found
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        found = _shapes[kind] = _Shape()  # first, as a struct may contain itself
        found.of_struct(kind)
    else:
        item = _shape(get_args(kind)[-1]) if get_origin(kind) in (list, dict) else None
        found = _Shape() if item is not None else None
        if found is not None and item is not None:
            found.of_items(item)
        _shapes[kind] = found
    return found


TOO_DEEP = "invalid JSON: it is nested too deeply"


def read_json(body: bytes | str) -> Any:
    """Any JSON document of a client. Raises BadRequest."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise BadRequest(f"invalid JSON: {error}") from None
    except RecursionError:
        raise BadRequest(TOO_DEEP) from None


def decode(kind: type[T], body: bytes) -> T:
    """Read a client's JSON. Unknown fields are ignored, nulls are zero values and case does not matter, as in Go.

    Raises `BadRequest` that names the field at fault.
    """
    value = read_json(body)
    if value is None:
        value = {}
    try:
        return msgspec.convert(fold_names(strip_nulls(value), kind), kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"invalid JSON: {_go_path(str(error))}") from None
    except RecursionError:
        raise BadRequest(TOO_DEEP) from None


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
