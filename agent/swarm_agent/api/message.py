"""Requests and responses of the cluster's API, free of sockets.

The same `Request` is served on the front door's unix socket and, forwarded by a follower, on the leader's management
plane; so it is a plain struct that msgpack can carry (`encode_request`, `decode_response`, …).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

from swarm_agent.model.errors import BadRequest, ClusterError

JSON = "application/json"
_FALSE = ("", "0", "no", "false", "none")
_PARSE_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_PARSE_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`path` is decoded and without the version prefix. `version` is the API version that the client speaks."""

    method: str
    path: str
    query: dict[str, str] = {}
    headers: dict[str, str] = {}  # lower-case names
    body: bytes = b""
    version: tuple[int, int] = (1, 51)

    def flag(self, name: str) -> bool:
        """A query parameter read loosely, as the engine reads `force`: anything but 0, no, false, none is true."""
        return self.query.get(name, "").strip().lower() not in _FALSE

    def strict_flag(self, name: str, *, detailed: bool = True) -> bool:
        """A query parameter read strictly, as Go's ParseBool. Raises BadRequest, in some calls without Go's reason."""
        value = self.query.get(name, "")
        if not value or value in _PARSE_FALSE:
            return False
        if value in _PARSE_TRUE:
            return True
        reason = f': strconv.ParseBool: parsing "{value}": invalid syntax' if detailed else ""
        raise BadRequest(f"invalid value for {name}: {value}{reason}")

    def object_version(self, kind: str, *, detailed: bool = True) -> int:
        """The required `version` parameter of an update. Raises BadRequest with Swarm's texts."""
        value = self.query.get("version", "")
        if value.isascii() and value.isdigit() and int(value) < 2**64:
            return int(value)
        if not detailed:
            raise BadRequest(f"invalid {kind} version")
        reason = "value out of range" if value.isascii() and value.isdigit() else "invalid syntax"
        raise BadRequest(f"invalid {kind} version '{value}': strconv.ParseUint: parsing \"{value}\": {reason}")


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. `content_type` is left out of answers without a body."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that goes on. `parts` may be empty; it is closed when the client leaves."""

    parts: AsyncGenerator[bytes, None]
    content_type: str = JSON


def parse_query(text: str) -> dict[str, str]:
    """Query parameters; of repeated ones the first counts, as in Go's Get."""
    return {key: values[0] for key, values in parse_qs(text, keep_blank_values=True).items()}


def decode_path(text: str) -> str:
    return unquote(text)


def json_response(value: Any, status: int = 200) -> Response:
    """The value as JSON. Structs are given as they are, so use `model.base.encode` for stored objects."""
    return Response(status=status, body=msgspec.json.encode(value) + b"\n")


def raw_json(body: bytes, status: int = 200) -> Response:
    """JSON that is encoded already."""
    return Response(status=status, body=body + b"\n")


def json_list(items: list[bytes]) -> Response:
    """A list of objects that are encoded already."""
    return Response(body=b"[" + b",".join(items) + b"]\n")


def error_response(status: int, message: str) -> Response:
    """An error as Docker's clients expect it; the CLI reads the JSON only under exactly this content type."""
    return Response(status=status, body=msgspec.json.encode({"message": message}) + b"\n")


def error_of(error: ClusterError) -> Response:
    return error_response(error.status, str(error))


EMPTY = Response()
NO_CONTENT = Response(status=204)

_encoder = msgspec.msgpack.Encoder()
_request_decoder = msgspec.msgpack.Decoder(Request)
_response_decoder = msgspec.msgpack.Decoder(Response)


def encode_request(request: Request) -> bytes:
    """For the way from a follower to the leader."""
    return _encoder.encode(request)


def decode_request(data: bytes) -> Request:
    """Raises msgspec.ValidationError on anything else."""
    return _request_decoder.decode(data)


def encode_response(response: Response) -> bytes:
    """For the way back."""
    return _encoder.encode(response)


def decode_response(data: bytes) -> Response:
    """Raises msgspec.ValidationError on anything else."""
    return _response_decoder.decode(data)
