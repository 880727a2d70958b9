"""The replicated object store: what users declared and what the leader decided.

`Store` (store.py) is the door. Reads go through a `View`, writes through `Store.update(fn)`; what makes a write durable
and equal on all managers is a `Proposer`, in production the raft driver.
"""
