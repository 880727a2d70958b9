"""From a question to an answer, by the zones that the asker sees. Pure.

`View.lookup` tells what there is; None means: not a name of the cluster, ask the resolvers outside. A short name is
looked for in the asker's zones in order and the first that has it answers; NAME.NETWORK asks one zone. Addresses inside
a cluster network are never asked of others: nobody outside can know them.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

from .wire import (
    AAAA,
    ANY,
    IN,
    NOERROR,
    NXDOMAIN,
    PTR,
    REFUSED,
    SRV,
    A,
    Answer,
    Question,
    denial,
    make_answer,
    name_bytes,
    record,
)
from .zones import Found, Zone

TTL = 2  # seconds: what askers may remember; asking again costs a tenth of a millisecond
DENIAL_TTL = 1  # and of a name that is not there: a service may come at any moment

ADDRESS_TYPES = {4: A, 16: AAAA}
REVERSE = ((".in-addr.arpa", 4), (".ip6.arpa", 32))


class View:
    """The zones that an asker sees. With `qualified`, only names with their network count (the host's own door)."""

    def __init__(self, zones: tuple[Zone, ...], *, qualified: bool = False) -> None:
        self.zones = zones
        self._by_name = {zone.name: zone for zone in zones}
        self._unqualified = () if qualified else zones

    def answer(self, question: Question, limit: int) -> Answer | None:
        """The answer, or None when the resolvers outside must be asked."""
        if question.rcode:
            return make_answer(question, limit, rcode=question.rcode)
        if question.qclass not in (IN, ANY):
            return make_answer(question, limit, rcode=REFUSED)
        found = self.lookup(question.name) if question.name else None
        if found is None:
            return None
        records = list(self._records(question.qtype, found))
        if not records:
            rcode = NXDOMAIN if found.empty else NOERROR
            return make_answer(question, limit, rcode=rcode, authoritative=True, authority=[denial(DENIAL_TTL)])
        return make_answer(
            question,
            limit,
            authoritative=True,
            answers=records,
            additional=list(self._glue(found)) if question.qtype in (SRV, ANY) else (),
        )

    def lookup(self, name: str) -> Found | None:
        """What is known of a name (lower case, without the last dot); None when it is not the cluster's."""
        for ending, count in REVERSE:
            if name.endswith(ending):
                return self._reverse(name.removesuffix(ending), count)
        denied = None
        for found in self._places(name):
            if not found.empty:
                return found
            denied = found
        return denied

    def _places(self, name: str) -> Iterator[Found]:
        """All that is known of a name, best first."""
        for zone in self._unqualified:
            if (found := zone.get(name)) is not None:
                yield found
        # A network's name may have dots, and so may an alias: every way to divide the name is tried.
        at = name.find(".")
        while at >= 0:
            named = self._by_name.get(name[at + 1 :])
            if named is not None and (found := named.get(name[:at])) is not None:
                yield found
            at = name.find(".", at + 1)

    def _reverse(self, name: str, count: int) -> Found | None:
        address = _reversed_address(name, count)
        if address is None:
            return None
        inside = [zone for zone in self.zones if zone.contains(address)]
        known = [found for zone in inside if (found := zone.get(address)) is not None]
        return known[0] if known else Found() if inside else None

    def _records(self, qtype: int, found: Found) -> Iterator[bytes]:
        for address in found.addresses:
            if qtype in (ADDRESS_TYPES[len(address)], ANY):
                yield record(ADDRESS_TYPES[len(address)], TTL, address)
        if qtype in (PTR, ANY):
            for name in found.names:
                yield record(PTR, TTL, name_bytes(name))
        if qtype in (SRV, ANY):
            for service in found.services:
                yield record(SRV, TTL, struct.pack(">HHH", 0, 1, service.port) + name_bytes(service.target))

    def _glue(self, found: Found) -> Iterator[bytes]:
        """Addresses of what SRV records point at, so that nobody must ask again."""
        for target in dict.fromkeys(service.target for service in found.services):
            at = self.lookup(target)
            for address in at.addresses if at is not None else ():
                yield record(ADDRESS_TYPES[len(address)], TTL, address, name_bytes(target))


def _reversed_address(name: str, count: int) -> bytes | None:
    parts = name.split(".")[::-1]
    if len(parts) != count:
        return None
    text = ".".join(parts) if count == 4 else ":".join("".join(parts[at : at + 4]) for at in range(0, 32, 4))
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        return None
