"""Unix sockets whose path may be longer than the 107 bytes that the kernel takes."""

import os
import socket
from pathlib import Path


def connect(sock: socket.socket, path: Path) -> None:
    """Through the directory, so that only the name counts. Raises `OSError`."""
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
