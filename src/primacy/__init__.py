"""One primary at a time, and no acknowledged write lost."""
