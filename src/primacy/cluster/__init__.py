"""The agent beside each database: one pure brain, and thin hands."""
