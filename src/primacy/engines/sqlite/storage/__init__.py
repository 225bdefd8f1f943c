"""The database file of one node: a transaction becomes a change, and a change becomes rows.

Start at `writer.py` (the primary's side), then `applier.py` (the replica's).
"""
