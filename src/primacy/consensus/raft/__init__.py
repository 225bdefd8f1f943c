"""Raft: one leader a term, one log, majorities decide."""
