"""SQLite, replicated by primacy's own log."""
