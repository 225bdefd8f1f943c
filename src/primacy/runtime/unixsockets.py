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


def listener(path: Path) -> socket.socket:
    """Bound, of mode 0600 from its first moment; what stood there is replaced. Raises `OSError`."""
    path.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(sock.fileno(), 0o600)  # Before it has a name: the file gets this mode.
        sock.bind(f"/proc/self/fd/{folder}/{path.name}")
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock
