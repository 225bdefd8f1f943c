"""One API for keys, leases and watches; locks and elections written once over it."""
