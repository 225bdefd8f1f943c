"""The SQLite server: one process, one writer, many readers.

python -m primacy.engines.sqlite.server SPEC.json

door (asyncio) --> session --> readers (threads): snapshots
                      |
                      +------> pipeline (one thread): execute, log, sync, acknowledge, commit
"""
