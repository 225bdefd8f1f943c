"""The faults of the demo: what bad days do to processes, networks, disks and whole clusters.

    stage.py      what a fault may touch, and what it waits for
    primary.py    the primary's processes
    others.py     replicas, winners and the store's leader
    network.py    what one host hears of another
    disks.py      full
    cluster.py    everything at once
    catalogue.py  all of them by name; which can happen here; which are drawn by chance

Each fault is a function of the stage and the node that is primary when it begins. It ends when all
that it broke is repaired, whatever became of it meanwhile.
"""
