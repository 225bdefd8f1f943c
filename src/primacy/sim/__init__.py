"""The world, from one seed."""
