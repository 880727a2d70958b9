"""Join tokens: `SWMTKN-1-DIGEST-SECRET`, as Swarm writes them. Those of version 2, `SWMTKN-2-FIPS-DIGEST-SECRET`, are
read too; FIPS is 1 where only hosts in FIPS mode may join.

DIGEST is the SHA-256 of the root certificate in base 36, padded to 50 characters: the joining node checks by it that it
talks to the right cluster, before it shows SECRET (16 random bytes, base 36, padded to 25). The token says nothing of
the role; the managers know which secret is the workers' and which the managers'.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass

from swarm_agent.model.errors import BadRequest
from swarm_agent.model.ids import ALPHABET, to_base36

PREFIX = "SWMTKN"
DIGEST_LENGTH = 50
SECRET_LENGTH = 25

_TOKEN = re.compile(
    rf"{PREFIX}-(1|2-(?P<fips>[01]))-(?P<digest>[{ALPHABET}]{{{DIGEST_LENGTH}}})-(?P<secret>[{ALPHABET}]{{{SECRET_LENGTH}}})"
)


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A parsed token. `digest` is the expected SHA-256 of the root certificate (PEM text)."""

    digest: bytes
    secret: str

    def matches(self, root_pem: str) -> bool:
        """True when this token belongs to the cluster with that root."""
        return root_digest(root_pem) == self.digest


def root_digest(root_pem: str) -> bytes:
    """SHA-256 over the root's PEM text, white space at its ends aside."""
    return hashlib.sha256(root_pem.strip().encode()).digest()


def new_token(root_pem: str, rng: random.Random) -> str:
    """A fresh token for the cluster with that root."""
    digest = to_base36(int.from_bytes(root_digest(root_pem), "big"), DIGEST_LENGTH)
    secret = to_base36(rng.getrandbits(128), SECRET_LENGTH)
    return f"{PREFIX}-1-{digest}-{secret}"


def parse_token(text: str) -> JoinToken:
    """Raises BadRequest, in Swarm's words, on what is no token and on one that only hosts in FIPS mode may use."""
    found = _TOKEN.fullmatch(text.strip())
    number = int(found["digest"], 36) if found is not None else 0
    if found is None or number >= 1 << 256:
        raise BadRequest("invalid join token")
    if found["fips"] == "1":
        raise BadRequest("node is not FIPS-enabled but cluster requires FIPS")
    return JoinToken(number.to_bytes(32, "big"), found["secret"])
