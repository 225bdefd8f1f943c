"""What the commands do differently for each engine: one module for each, behind `cli/kit.py`."""
