"""Those who want to know when leadership or the members change. One that fails is logged and harms nobody else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from .messages import Membership

log = logging.getLogger(__name__)

L = TypeVar("L")


class Listeners:
    """The listeners of one node. `leads`: what was last told about leadership."""

    __slots__ = ("_leadership", "_membership", "leads")

    def __init__(self) -> None:
        self.leads = False
        self._leadership: list[Callable[[bool], None]] = []
        self._membership: list[Callable[[Membership], None]] = []

    def on_leadership(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """Tell this one of every change, and at once if the node leads now. What is returned ends that."""
        self._leadership.append(callback)
        if self.leads:
            callback(True)
        return lambda: _without(self._leadership, callback)

    def on_membership(self, callback: Callable[[Membership], None], now: Membership) -> Callable[[], None]:
        """Tell this one of every committed change, and at once what is known now. What is returned ends that."""
        self._membership.append(callback)
        callback(now)
        return lambda: _without(self._membership, callback)

    def tell_leadership(self, leads: bool) -> None:
        """The node begins or ceases to lead."""
        self.leads = leads
        for callback in tuple(self._leadership):
            try:
                callback(leads)
            except Exception:
                log.exception("a listener to raft leadership failed")

    def tell_membership(self, membership: Membership) -> None:
        """A membership was committed."""
        for callback in tuple(self._membership):
            try:
                callback(membership)
            except Exception:
                log.exception("a listener to raft membership failed")


def _without(listeners: list[Callable[[L], None]], callback: Callable[[L], None]) -> None:
    if callback in listeners:
        listeners.remove(callback)
