"""The pull protocol: a replica asks for the log behind its own end, and says how far it got."""
