"""One host's life in a cluster: outside, joining, member, manager; and the wires between the parts of the agent."""
