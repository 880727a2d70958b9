"""Cluster objects in the shape of the Engine API, and what all parts share: ids, states, errors, wire messages."""
