"""Times and durations as the Engine API writes them."""

from __future__ import annotations

import datetime
import functools
import time

SECOND = 1_000_000_000


def rfc3339(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC with nine decimals, as Go prints them (trailing zeros kept)."""
    seconds, rest = divmod(ns, SECOND)
    return f"{_to_seconds(seconds)}.{rest:09d}Z"


@functools.lru_cache(maxsize=16)  # a manager writes thousands of times within one second
def _to_seconds(seconds: int) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%S}"


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch. Raises ValueError on anything that is not RFC 3339."""
    head, _, tail = text.partition(".")
    if not tail:
        return int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()) * SECOND
    digits = ""
    for char in tail:
        if not char.isdigit():
            break
        digits += char
    zone = tail[len(digits) :].replace("Z", "+00:00") or "+00:00"
    whole = int(datetime.datetime.fromisoformat(head + zone).timestamp())
    return whole * SECOND + int(digits[:9].ljust(9, "0"))


def now() -> str:
    """The present wall-clock time as RFC 3339. For drivers; cores get times as arguments."""
    return rfc3339(time.time_ns())
