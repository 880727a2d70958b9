"""Gives the tests of this folder the `lab` fixture, and the report of how long playbooks took."""

from tests.lab.conftest import lab, pytest_terminal_summary

__all__ = ["lab", "pytest_terminal_summary"]
