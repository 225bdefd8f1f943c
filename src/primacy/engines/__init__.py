"""One contract for databases: observe, clone, follow, seal, promote, fence."""
