"""HTTP/1.1 requests as far as the front door must understand them: the head, and where the body ends.

Pure: bytes in, values out. The head's own bytes are kept, because a request for the engine is passed on as it came,
only with `Connection: close` in place of the client's Connection header (`Head.forward`): the connection is the
engine's from then on, so the client has to open another for its next request, which we get to see first.

Strict where leniency lets two readers disagree on where a request ends (RFC 9112 §6.3, §11.2): a request with both
Content-Length and Transfer-Encoding, or with two lengths, is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from http import HTTPStatus

MAX_HEAD = 256 * 1024
"""Bytes of a request's head. Generous: `docker build` sends the credentials of all registries in one header."""

MAX_BODY = 8 * 1024 * 1024
"""Bytes of a body that we read ourselves. The largest config is 1.4 MB in base64; a log entry holds 1.5 MiB."""

MAX_CHUNK_LINE = 4096

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VERSION = re.compile(rb"HTTP/(\d)\.(\d)")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_HEX = re.compile(rb"[0-9a-fA-F]{1,15}")


class ProtocolError(Exception):
    """The client's bytes are not an acceptable request; it is answered with `status` and the connection is closed."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head. `headers` has lower-case names; repeated ones are in order."""

    method: str
    target: str
    minor: int  # of HTTP/1.x
    headers: tuple[tuple[str, str], ...]
    raw: bytes = field(repr=False)

    def get(self, name: str, default: str = "") -> str:
        """The first header of this name (lower case)."""
        return next((value for key, value in self.headers if key == name), default)

    def tokens(self, name: str) -> set[str]:
        """The comma-separated words of all headers of this name, in lower case."""
        values = ",".join(value for key, value in self.headers if key == name)
        return {word.strip().lower() for word in values.split(",") if word.strip()}

    @property
    def is_upgrade(self) -> bool:
        """The client wants to speak something else after this request (attach, exec, BuildKit)."""
        return "upgrade" in self.tokens("connection") and bool(self.get("upgrade"))

    @property
    def keep_alive(self) -> bool:
        """The client expects the connection to stay open after the response."""
        tokens = self.tokens("connection")
        if self.minor == 0:
            return "keep-alive" in tokens
        return "close" not in tokens

    @property
    def expects_continue(self) -> bool:
        return self.minor > 0 and "100-continue" in self.tokens("expect")

    def forward(self) -> bytes:
        """The head for the engine: unchanged for an upgrade, else with `Connection: close` as the only such header."""
        if self.is_upgrade:
            return self.raw
        lines = self.raw[: -len(b"\r\n\r\n")].split(b"\r\n")
        kept = [line for line in lines[1:] if not line.lower().startswith((b"connection:", b"keep-alive:"))]
        return b"\r\n".join([lines[0], *kept, b"Connection: close", b"", b""])


def parse_head(raw: bytes) -> Head:
    """A head including the empty line that ends it. Raises ProtocolError."""
    lines = raw[: -len(b"\r\n\r\n")].split(b"\r\n")
    parts = lines[0].split(b" ")
    if len(parts) != 3:
        raise ProtocolError(400, "malformed request line")
    method, target, version = parts
    match = _VERSION.fullmatch(version)
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target) or match is None:
        raise ProtocolError(400, "malformed request line")
    if match[1] != b"1":
        raise ProtocolError(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    headers = tuple(_header(line) for line in lines[1:])
    return Head(method.decode(), target.decode("latin-1"), int(match[2]), headers, raw)


def _header(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    # Also refuses folded lines (they begin with white space) and white space before the colon.
    if not colon or not _TOKEN.fullmatch(name) or b"\r" in value or b"\n" in value or b"\0" in value:
        raise ProtocolError(400, "malformed header line")
    return name.decode().lower(), value.strip(b" \t").decode("latin-1")


@dataclass(frozen=True, slots=True)
class Framing:
    """How long a body is: `length` bytes, or chunked."""

    length: int = 0
    chunked: bool = False


def framing(head: Head) -> Framing:
    """Where the request's body ends. Raises ProtocolError when that is not certain."""
    encodings = [value for key, value in head.headers if key == "transfer-encoding"]
    lengths = {value for key, value in head.headers if key == "content-length"}
    if encodings:
        if lengths:
            raise ProtocolError(400, "a request has either a Content-Length or a Transfer-Encoding")
        if ",".join(encodings).strip().lower() != "chunked":
            raise ProtocolError(501, "unsupported transfer encoding")
        return Framing(chunked=True)
    if not lengths:
        return Framing()
    if len(lengths) > 1:
        raise ProtocolError(400, "contradicting Content-Length headers")
    text = lengths.pop()
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ProtocolError(400, "malformed Content-Length")
    return Framing(length=int(text))


def chunk_size(line: bytes) -> int:
    """The size in a chunk's first line, without its CRLF; extensions are ignored. Raises ProtocolError."""
    text = line.partition(b";")[0].strip(b" \t")
    if not _HEX.fullmatch(text):
        raise ProtocolError(400, "malformed chunk")
    return int(text, 16)


def response_head(status: int, headers: list[tuple[str, str]]) -> bytes:
    """The head of a response."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Status"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace")
