"""Heads of requests, and where bodies end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_agent.api.http1 import Framing, ProtocolError, chunk_size, framing, parse_head


def head(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode() + b"\r\n\r\n"


def test_a_head_is_read() -> None:
    parsed = parse_head(head("POST /v1.41/build?t=a HTTP/1.1\nHost: docker\nX-Meta-Thing:  a b \nX-Two: 1\nX-Two: 2"))
    assert (parsed.method, parsed.target, parsed.minor) == ("POST", "/v1.41/build?t=a", 1)
    assert parsed.get("x-meta-thing") == "a b"
    assert parsed.tokens("x-two") == {"1", "2"}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("GET /x", 400),
        ("GET  /x HTTP/1.1", 400),
        ("GET /x HTTP/1.1 ", 400),
        ("G(T /x HTTP/1.1", 400),
        ("GET /a b HTTP/1.1", 400),
        ("GET /x HTTP/2.0", 505),
        ("PRI * HTTP/2.0", 505),
        ("GET /x HTTP/1.1\nno colon", 400),
        ("GET /x HTTP/1.1\nA: b\n folded", 400),
        ("GET /x HTTP/1.1\nA : b", 400),
        ("GET /x HTTP/1.1\nA: b\0c", 400),
        ("", 400),
    ],
)
def test_malformed_heads_are_refused(text: str, status: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_head(head(text))
    assert caught.value.status == status


def test_only_the_connection_header_changes_on_the_way_to_the_engine() -> None:
    raw = head("GET /x HTTP/1.1\nHost: a\nconnection: keep-alive\nX-Odd:  spaces kept \nKeep-Alive: 5")
    expected = head("GET /x HTTP/1.1\nHost: a\nX-Odd:  spaces kept \nConnection: close")
    assert parse_head(raw).forward() == expected


@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, upgrade"])
def test_an_upgrade_goes_to_the_engine_as_it_came(connection: str) -> None:
    raw = head(f"POST /exec/1/start HTTP/1.1\nConnection: {connection}\nUpgrade: tcp")
    assert parse_head(raw).forward() == raw


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("GET / HTTP/1.1", True),
        ("GET / HTTP/1.1\nConnection: close", False),
        ("GET / HTTP/1.0", False),
        ("GET / HTTP/1.0\nConnection: Keep-Alive", True),
    ],
)
def test_who_keeps_the_connection(text: str, keep: bool) -> None:
    assert parse_head(head(text)).keep_alive is keep


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("", Framing()),
        ("Content-Length: 12", Framing(length=12)),
        ("Content-Length: 12\nContent-Length: 12", Framing(length=12)),
        ("Transfer-Encoding: Chunked", Framing(chunked=True)),
    ],
)
def test_where_a_body_ends(headers: str, expected: Framing) -> None:
    assert framing(parse_head(head(f"POST / HTTP/1.1\n{headers}".strip()))) == expected


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 1\nContent-Length: 2",
        "Content-Length: 1\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\nTransfer-Encoding: chunked",
        "Content-Length: -1",
        "Content-Length: +1",
        "Content-Length: 1_0",
        "Content-Length: ٣",
        "Content-Length: 9999999999999999999",
    ],
)
def test_no_guessing_where_a_body_ends(headers: str) -> None:
    with pytest.raises(ProtocolError):
        framing(parse_head(head(f"POST / HTTP/1.1\n{headers}")))


def test_chunk_sizes() -> None:
    assert [chunk_size(line) for line in (b"0", b"fF", b"10;name=value", b"a ")] == [0, 255, 16, 10]
    for line in (b"", b"-1", b"0x1", b"g", b"1" * 17):
        with pytest.raises(ProtocolError):
            chunk_size(line)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_parser_fail_otherwise(data: bytes) -> None:
    try:
        framing(parse_head(data + b"\r\n\r\n"))
    except ProtocolError:
        pass
