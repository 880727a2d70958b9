"""Identifiers of cluster objects: 25 characters of base 36, about 129 random bits, as Swarm's clients expect.

Clients truncate them to 12 characters for display, so ids must differ early: they are uniformly random, never counters.
"""

from __future__ import annotations

import random

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 25


def to_base36(number: int, width: int) -> str:
    """The number in base 36, lower case, padded with zeros to `width` characters."""
    digits: list[str] = []
    while number:
        number, rest = divmod(number, 36)
        digits.append(ALPHABET[rest])
    return "".join(reversed(digits)).rjust(width, "0")


def new_id(rng: random.Random) -> str:
    """A fresh object id. Pass `random.SystemRandom()` outside simulations."""
    return to_base36(rng.randrange(36**ID_LENGTH), ID_LENGTH)
