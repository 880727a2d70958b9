"""Gives the tests of this folder a lab whose hosts run this checkout's agent."""

import pytest

from tests.lab.clusterkit import with_agents
from tests.lab.labkit import Lab
from tests.lab.labkit import lab as hosts_only

__all__ = ["hosts_only"]


@pytest.fixture(scope="session")
def lab(hosts_only: Lab) -> Lab:
    """Three hosts with the agent of this checkout and all tiny images."""
    return with_agents(hosts_only)
