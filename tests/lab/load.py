"""A load of HTTP requests that accounts for every single one: standard library only, so that it runs in containers too.

    python3 load.py [--keep-alive] [--connections 4] [--pause 0.002] http://HOST:PORT/PATH [URL...]

Asks until standard input ends, then prints one JSON object: `answered`, `failed` (how many requests, by reason),
`first_failures` (seconds since the start and reason of some of them), `by` (answers of each container).
A request fails when it gets no complete answer with status 200: refused, reset, closed early, 15 s of silence. Without
keep-alive each has a connection of its own. With it a connection is used until the server says `Connection: close`;
an end of a connection that the server did not announce fails the request that was sent on it, even where a browser
would quietly send it again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from urllib.parse import urlsplit

PATIENCE = 15.0  # seconds; a busy machine is slow, which is no loss


class Load:
    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.answered = 0
        self.failed: Counter[str] = Counter()
        self.first_failures: list[tuple[float, str]] = []
        self.by: Counter[str] = Counter()
        self.over = asyncio.Event()
        self._began = time.monotonic()

    async def ask(self, url: str, keep: bool) -> None:
        """One client, one request after another."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        end = "keep-alive" if keep else "close"
        request = (
            f"GET {parts.path or '/'}?{parts.query} HTTP/1.1\r\nHost: {host}\r\nConnection: {end}\r\n\r\n".encode()
        )
        link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self.over.is_set():
            began = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    if link is None:
                        step = "connect"
                        link = await asyncio.open_connection(host, port)
                    step = "answer"
                    link[1].write(request)
                    container, more = await read_answer(link[0])
                self.answered += 1
                self.by[container] += 1
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self._fail(began, f"{step}: {type(error).__name__} {error}"[:80], url)
                more = False
            if link is not None and not (keep and more):
                link[1].close()
                link = None
            await asyncio.sleep(self.pause)
        if link is not None:
            link[1].close()

    def _fail(self, began: float, reason: str, url: str) -> None:
        self.failed[reason] += 1
        if len(self.first_failures) < 20:
            self.first_failures.append((round(began - self._began, 3), f"{reason} {url}"))

    def report(self) -> str:
        return json.dumps(
            {
                "answered": self.answered,
                "failed": dict(self.failed),
                "first_failures": self.first_failures,
                "by": dict(self.by),
            }
        )


async def read_answer(reader: asyncio.StreamReader) -> tuple[str, bool]:
    """The container that answered, and whether the connection may be used again. Raises ValueError, EOFError."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    if head[0].split()[1] != "200":
        raise ValueError(head[0])
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = json.loads(await reader.readexactly(int(fields["content-length"])))
    return body["container"][:12], fields.get("connection", "").lower() != "close"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep-alive", action="store_true")
    parser.add_argument("--connections", type=int, default=4, help="for each URL")
    parser.add_argument("--pause", type=float, default=0.002, help="seconds between two requests of one client")
    parser.add_argument("urls", nargs="+")
    options = parser.parse_args()
    load = Load(options.pause)
    asking = [asyncio.create_task(load.ask(url, options.keep_alive)) for url in options.urls * options.connections]
    print("started", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    load.over.set()
    await asyncio.gather(*asking)
    print(load.report(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
