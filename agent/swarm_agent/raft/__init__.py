"""Raft: a log that a majority of managers holds, in the same order, on disk.

core.py decides and does no I/O; wal.py and snapshots.py keep it on disk; driver.py ties both to an event loop and a
transport.
"""
