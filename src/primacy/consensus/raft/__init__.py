"""Raft as one pure machine, split by question: who leads, what is agreed, what may be read."""
