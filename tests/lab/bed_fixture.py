"""The fixture `bed`, by itself: in a virtual machine of `make test-kernel` there is nothing that the conftest needs."""

from __future__ import annotations

import pytest

from tests.lab.network_bed import Bed


@pytest.fixture
def bed(made: Bed) -> Bed:
    """Hosts in network namespaces without containers, for modules that say by a fixture `made` what hosts they want."""
    made.reset()
    return made
