"""The log of a node: binary log of a primary, relay log of a replica; one format."""
