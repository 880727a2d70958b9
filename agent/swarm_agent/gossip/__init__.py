"""Gossip: who is alive (SWIM with Lifeguard), and each node's endpoint rows on every other. See docs/gossip.md."""

from .config import Config
from .driver import GossipNode
from .types import GossipError, Member, Row, RowTooLarge, State, Version

__all__ = ["Config", "GossipError", "GossipNode", "Member", "Row", "RowTooLarge", "State", "Version"]
