"""The agent: one program on every host, manager or worker as the cluster decides."""
