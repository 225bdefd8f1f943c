"""The Raft-backed store that needs no other service."""
