"""Names: which are accepted, and names for services that were given none."""

from __future__ import annotations

import random
import re

from swarm_agent.model.errors import InvalidArgument

_DNS_NAME = re.compile(r"[a-zA-Z0-9](?:[-_a-zA-Z0-9]*[a-zA-Z0-9])?")
_OBJECT_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-_.]*[a-zA-Z0-9])?")
MAX_DNS_NAME = 63
MAX_OBJECT_NAME = 64

ADJECTIVES = """
    amber autumn brave bright brisk calm candid cheerful clever coastal copper cosy crisp curious daring deft
    eager early earnest easy fair faithful fearless fleet fond frank fresh gallant gentle glad golden graceful
    grand happy hardy honest hopeful humble jolly joyful keen kind lively loyal lucid lucky mellow merry mild
    mindful modest neat nimble noble patient placid plucky polite proud prudent quick quiet radiant ready
    rustic serene sharp silent silver simple sincere sober steady sturdy subtle sunny swift tender thankful
    tidy tranquil trusty upbeat valiant vivid warm wise witty zesty
""".split()  # noqa: SIM905
SURNAMES = """
    abel ampere archimedes babbage banach bohr boole bose cantor carnot cauchy chandra cori coulomb curie
    dijkstra dirac easley einstein elion euclid euler faraday fermat fermi fourier franklin galois gauss
    germain goldberg hamilton hawking hertz hilbert hopper hypatia jemison johnson joule kepler khorana
    kovalevskaya lagrange lamarr lamport laplace leibniz liskov lovelace mayer maxwell mcclintock meitner
    mendel mirzakhani moser newton nobel noether ohm pascal pasteur payne perlman planck poincare raman ride
    ritchie rubin sagan shannon tesla thompson turing villani volta wiles wilson wozniak wu yalow yonath
""".split()  # noqa: SIM905


def validate_name(name: str) -> None:
    """Names of services and networks: one DNS label, in which `_` is allowed too. Raises InvalidArgument."""
    if not name:
        raise InvalidArgument("meta: name must be provided")
    if not _DNS_NAME.fullmatch(name):
        raise InvalidArgument("name must be valid as a DNS name component")
    if len(name) > MAX_DNS_NAME:
        raise InvalidArgument("name must be 63 characters or fewer")


def validate_object_name(name: str) -> None:
    """Names of secrets and configs. Raises InvalidArgument."""
    if not name:
        raise InvalidArgument("name must be provided")
    if len(name) > MAX_OBJECT_NAME or not _OBJECT_NAME.fullmatch(name):
        raise InvalidArgument(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be "
            "[a-zA-Z0-9]"
        )


def random_name(rng: random.Random) -> str:
    """adjective_surname, for services that were created without a name."""
    return f"{rng.choice(ADJECTIVES)}_{rng.choice(SURNAMES)}"
