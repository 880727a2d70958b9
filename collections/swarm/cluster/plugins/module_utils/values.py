# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How people write durations, sizes and processors, and what the API wants: nanoseconds, bytes, billionths."""

from __future__ import annotations

import re

SECOND = 10**9
UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
SIZES = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def duration(text):
    """Nanoseconds of "1m30s", "500ms", "0" or "10" (seconds). Raises ValueError."""
    text = str(text).strip().replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return int(float(text) * SECOND)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration; write 10s, 1m30s, 500ms or 90d")
    return sum(round(float(number) * UNITS[unit]) for number, unit in parts)


def spoken(nanoseconds):
    """A duration as people write it: 90s is 1m30s."""
    rest, words = int(nanoseconds or 0), []
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        count, rest = divmod(rest, UNITS[unit])
        if count:
            words.append(f"{count}{unit}")
    return "".join(words) or "0s"


def size(text):
    """Bytes of "512M", "1.5GiB" or "1048576"; units are powers of 1024 as in Docker. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?[Bb])?", str(text).strip(), re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not a size; write 512M or 1G")
    return int(float(match.group(1)) * SIZES[match.group(2).upper()])


def spoken_size(count):
    """A size as people write it."""
    count = int(count or 0)
    for unit in "TGMK":
        if count and count % SIZES[unit] == 0:
            return f"{count // SIZES[unit]}{unit}"
    return str(count)


def cpus(value):
    """Billionths of a processor."""
    return round(float(value) * 10**9)


def text_of(value):
    """A value of env or labels as text. Raises ValueError for booleans: YAML's `on` and `yes` are rarely meant so."""
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is a boolean; write it in quotes to say which text is meant")
    return "" if value is None else str(value)


def texts(values):
    """A dict with all values as text."""
    return {str(key): text_of(value) for key, value in (values or {}).items()}
