"""MariaDB: the server replicates by itself; primacy decides who may write."""
