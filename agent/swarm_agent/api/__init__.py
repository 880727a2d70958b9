"""The Engine API front door: Docker's clients talk to it as if it were the engine in swarm mode.

`frontdoor` accepts connections, reads each request's head (`http1`) and asks `routes` whose it is. The engine's own go
to the engine byte for byte (`splice`); the cluster's go to `LocalApi` (local.py: this host's part, merged answers),
which hands what concerns the cluster's state to `ClusterApi` (cluster.py) here or on the leader.
"""
