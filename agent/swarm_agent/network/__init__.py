"""The data plane of a host: overlay networks, service VIPs and the ingress mesh.

tables.py   what the cluster knows (networks, hosts, endpoint rows): the input
plan.py     tables → plan: everything this host's kernel and engine should hold, as values
state.py    the vocabulary of plans: links, forwarding entries, routes, rules, chains
frontends.py, iptables.py, ipvs.py, choice.py    ports and VIPs, and the two balancers behind them
diff.py     what is there + plan → operations
netlink.py, ipvs_netlink.py, xtables.py, conntrack.py, engine.py    read what is there, carry operations out
manager.py  the driver: new tables in, applied generations out; looks after the plan and repairs it

How packets travel is told in docs/networking.md.
"""

from .manager import NetworkManager
from .tables import NetworkTables, NetworkUnavailable, own_peer_rows

__all__ = ["NetworkManager", "NetworkTables", "NetworkUnavailable", "own_peer_rows"]
