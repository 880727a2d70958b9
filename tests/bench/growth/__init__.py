"""How cost grows with nodes and tasks: the real leader, real sessions over TLS, workers that only pretend to run.

    sudo .venv/bin/python -m tests.bench.growth [--nodes 100 300 1000] [--tasks 10 30] [--out docs/growth.md]

`leader.py` is a process with everything a leading manager has: the log on disk, the store, all control loops, the
management plane. `workers.py` is another, with one real session client a node, each with a certificate that it got for
a join token. What is left out is what every node does for itself: engines, gossip, the data plane.
"""
