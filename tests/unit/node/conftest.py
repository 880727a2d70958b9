"""Fixtures of the node's tests."""

from tests.unit.node.two_managers import two

__all__ = ["two"]
