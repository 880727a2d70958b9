"""A server that tells who it is and who asked, over HTTP and UDP on $PORT (80).

An HTTP answer is JSON: the container (its id and host name), the request's headers, the peer's address as the server
saw it, and the environment. `?sleep=SECONDS` holds the answer back, for tests of what happens meanwhile. A datagram
gets the same without headers. SIGTERM stops accepting, finishes the requests at hand and ends with code 0.
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


class InFlight:
    """Counts requests at hand, so that the end can wait for them but not for idle connections."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait_for_none(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0, seconds)


in_flight = InFlight()
stopping = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self) -> None:
        with in_flight:
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
        stopping.set()
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=serve_datagrams, daemon=True).start()
    print(f"listening on port {PORT}", flush=True)
    server.serve_forever(poll_interval=0.05)
    in_flight.wait_for_none(GRACE_SECONDS)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
