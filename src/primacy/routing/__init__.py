"""The clients' door: which connection goes where."""
