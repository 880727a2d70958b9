"""Gives the tests of this folder the `lab` fixture."""

from tests.lab.labkit import lab

__all__ = ["lab"]
