"""One TCP server and three ways to measure the way to it. Standard library only: it runs in containers and on hosts.

    python3 speed.py serve PORT
    python3 speed.py stream ADDRESS PORT [SECONDS]     Gbit/s of one connection that only sends
    python3 speed.py connect ADDRESS PORT [SECONDS]    new connections per second, one after another, each answered once
    python3 speed.py latency ADDRESS PORT [SECONDS]    median microseconds for a byte there and back

The first byte of a connection says what it is for.
"""

import socket
import statistics
import sys
import threading
import time

CHUNK = 1 << 18


def serve(port: int) -> None:
    listener = socket.create_server(("", port), backlog=512)
    print("ready", flush=True)
    while True:
        link, _ = listener.accept()
        threading.Thread(target=attend, args=(link,), daemon=True).start()


def attend(link: socket.socket) -> None:
    with link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        purpose = link.recv(1)
        if purpose == b"s":
            buffer = bytearray(CHUNK)
            while link.recv_into(buffer):
                pass
            link.sendall(b".")
        elif purpose == b"c":
            link.sendall(b".")
        else:
            while data := link.recv(1):
                link.sendall(data)


def opened(target: tuple, purpose: bytes) -> socket.socket:
    link = socket.create_connection(target, timeout=10)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.sendall(purpose)
    return link


def stream(target: tuple, seconds: float) -> float:
    """Counts until the last byte is read at the other end."""
    data, sent = bytes(CHUNK), 0
    with opened(target, b"s") as link:
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            sent += link.send(data)
        link.shutdown(socket.SHUT_WR)
        link.recv(1)
        return 8 * sent / (time.perf_counter() - began) / 1e9


def connect(target: tuple, seconds: float) -> float:
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        with opened(target, b"c") as link:
            if link.recv(1) != b".":
                raise OSError("no answer")
        count += 1
    return count / (time.perf_counter() - began)


def latency(target: tuple, seconds: float) -> float:
    taken = []
    with opened(target, b"p") as link:
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            link.sendall(b"x")
            link.recv(1)
            taken.append(time.perf_counter() - began)
    return 1e6 * statistics.median(taken)


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    if verb == "serve":
        serve(int(rest[0]))
    else:
        measure = {"stream": stream, "connect": connect, "latency": latency}[verb]
        print(measure((rest[0], int(rest[1])), float(rest[2]) if len(rest) > 2 else 2.0))
