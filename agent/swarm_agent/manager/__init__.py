"""What managers run: control (what users may change) and, on the leader, the loops that make it so."""
