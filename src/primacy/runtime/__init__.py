"""Machines meet sockets, disks and clocks here, and nowhere else."""
