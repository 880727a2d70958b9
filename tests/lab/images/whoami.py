"""A server that tells who it is and who asked, over HTTP and UDP on $PORT (80).

An HTTP answer is JSON: the container (its id and host name), the request's headers, the peer's address as the server
saw it, and the environment. `?sleep=SECONDS` holds the answer back, for tests of what happens meanwhile. A datagram
gets the same without headers.

SIGTERM stops accepting, and lets every connection end by an announcement: each further answer says `Connection: close`.
It ends with code 0 when no connection is left but idle ones, and after GRACE_SECONDS anyway. With STOP=at-once in the
environment it ends at once, whatever is under way.
"""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PORT = int(os.environ.get("PORT", "80"))
GRACE_SECONDS = 8
IDLE_SECONDS = 0.5
STARTED = time.time()


def container_id() -> str:
    """The container's full id, from the path of the files that the engine mounts into it."""
    with open("/proc/self/mountinfo") as mounts:
        found = re.search(r"/containers/([0-9a-f]{64})/", mounts.read())
    return found.group(1) if found else ""


CONTAINER = container_id()


def describe(peer: tuple, local: tuple) -> dict:
    """What the server knows about itself and the one who asks."""
    plain = lambda address: address[0].removeprefix("::ffff:")  # noqa: E731
    return {
        "container": CONTAINER,
        "hostname": socket.gethostname(),
        "peer": {"address": plain(peer), "port": peer[1]},
        "local": {"address": plain(local), "port": local[1]},
        "env": dict(os.environ),
        "started": STARTED,
    }


class Connections:
    """The open connections, and when each was last heard or answered; one with a request at hand is never idle."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._quiet_since: dict[object, float] = {}

    def hold(self, connection: object) -> None:
        """It is new, or a request has come on it."""
        with self._lock:
            self._quiet_since[connection] = float("inf")

    def rest(self, connection: object) -> None:
        with self._lock:
            self._quiet_since[connection] = time.monotonic()

    def forget(self, connection: object) -> None:
        with self._lock:
            self._quiet_since.pop(connection, None)

    def in_use(self) -> bool:
        now = time.monotonic()
        with self._lock:
            return any(now - since < IDLE_SECONDS for since in self._quiet_since.values())


connections = Connections()
stopping = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        connections.rest(self)

    def finish(self) -> None:
        super().finish()
        connections.forget(self)

    def answer(self) -> None:
        connections.hold(self)
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        time.sleep(float(parse_qs(url.query).get("sleep", ["0"])[0]))
        told = describe(self.client_address, self.connection.getsockname())
        told |= {"method": self.command, "path": url.path, "headers": dict(self.headers), "received": len(body)}
        text = json.dumps(told).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if stopping.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)
        connections.rest(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, form: str, *values: object) -> None:
        print(f"{self.client_address[0]} {form % values}", flush=True)


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    request_queue_size = 512

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def serve_datagrams() -> None:
    """Answer each datagram with who we are."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", PORT))
        while True:
            payload, peer = server.recvfrom(65535)
            told = describe(peer, server.getsockname()) | {"received": len(payload)}
            server.sendto(json.dumps(told).encode(), peer)


def main() -> None:
    server = Server(("", PORT), Handler)

    def stop(*_: object) -> None:
        if os.environ.get("STOP") == "at-once":
            os._exit(0)
        stopping.set()
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=serve_datagrams, daemon=True).start()
    print(f"listening on port {PORT}", flush=True)
    server.serve_forever(poll_interval=0.05)
    end = time.monotonic() + GRACE_SECONDS
    while connections.in_use() and time.monotonic() < end:
        time.sleep(0.02)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
