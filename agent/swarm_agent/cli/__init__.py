"""`swarmctl`: what an operator asks the agent on this host beyond what `docker` can. One verb a module."""
