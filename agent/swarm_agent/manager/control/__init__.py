"""What users may change, and how Swarm answers when they may not.

Each function takes a store transaction and a request, checks the request against the state that the transaction sees,
writes, and returns the new object; every refusal is a `ClusterError` with Swarm's text and status (reference:
swarmkit's manager/controlapi, swarm.md §1.3-1.7). No I/O, no clock (`tx.now`), randomness handed in: so a change can
be evaluated again when its batch is full, and tested without a server.

A spec goes through three steps: `normalize` (the shape in which it is stored and echoed), `service_spec.validate`
(what can be said of the spec alone), and the function of the kind (what needs the state).
"""
