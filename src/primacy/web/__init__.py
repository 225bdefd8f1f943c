"""The agent's HTTP API: what the cluster is, what it should do, and metrics."""
