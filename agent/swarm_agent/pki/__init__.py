"""The cluster's own certificates: root, node certificates with the role in them, join tokens, TLS contexts."""
