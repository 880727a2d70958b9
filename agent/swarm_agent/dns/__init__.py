"""Names of services and tasks: zones made from the gossiped rows, and a server on this host's own network addresses.

`zones` and `answers` are pure (rows → names → packets); `forward` asks the host's resolvers for all other names;
`server` holds the sockets; `service` is what the node starts and feeds.
"""
