"""Connections that another process has opened, cut from outside.

A program that waits for a host which says nothing, with a timeout of its own that is too long, is
woken by shutting its socket down: it sees a connection that has ended, or one that could not be
made. Nothing is closed: the descriptor stays the program's own.

Source    pidfd_getfd(2), proc(5). Linux 5.6; the permission is that of ptrace(2): root has it
          (CAP_SYS_PTRACE), others for processes of their own user unless a security module says no.
Does not  Touch connections that others have opened to the process.
"""

import ctypes
import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from primacy.model import Address
from primacy.runtime.processes import Watched

_LIBC = ctypes.CDLL(None, use_errno=True)
_PIDFD_GETFD = 438
"""One number on every architecture that Python's Linux wheels know."""
_WAITING_STATES = (0x01, 0x02, 0x04, 0x05, 0x08)
"""ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT: somebody may wait for an answer."""
_LOCAL, _REMOTE, _STATE, _INODE = 1, 2, 3, 9
"""Columns of /proc/PID/net/tcp."""


class TcpSocket(NamedTuple):
    """One line of the kernel's list."""

    local_port: int
    host: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int
    state: int
    inode: int


def cut_outgoing(process: Watched, to: Address, *, own_port: int) -> int:
    """Shut down each connection of `process` to that address. Returns how many; 0 where it has
    none, or has exited. Milliseconds, so not for the event loop.

    `own_port` is where the process listens: a connection there was opened by the other side. Where
    `to` is a name and no number, every host counts that is connected to at that port: a name may
    have been looked up differently then.

    `OSError` where the kernel or its policy does not let one process do that to another.
    """
    try:
        wanted = {each.inode for each in _sockets(process.name.pid) if _is_to(each, to, own_port)}
        return sum(_shut(process, number, wanted) for number in _descriptors(process, wanted))
    except (FileNotFoundError, ProcessLookupError):
        return 0  # It has exited meanwhile.


def _is_to(found: TcpSocket, to: Address, own_port: int) -> bool:
    if found.state not in _WAITING_STATES or found.local_port == own_port or found.port != to.port:
        return False
    try:
        return found.host == ipaddress.ip_address(to.host)
    except ValueError:
        return True  # A name.


def _sockets(pid: int) -> Iterator[TcpSocket]:
    """Of the network namespace of that process, whosever they are."""
    for name in ("tcp", "tcp6"):
        try:
            text = Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii")
        except FileNotFoundError:
            continue  # A kernel without IPv6.
        yield from (parsed(line) for line in text.splitlines()[1:])


def parsed(line: str) -> TcpSocket:
    """One line of /proc/PID/net/tcp or tcp6."""
    columns = line.split()
    _, local_port = columns[_LOCAL].split(":")
    host, port = columns[_REMOTE].split(":")
    words = (int(host[start : start + 8], 16) for start in range(0, len(host), 8))
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return TcpSocket(
        local_port=int(local_port, 16),
        host=_host(packed),
        port=int(port, 16),
        state=int(columns[_STATE], 16),
        inode=int(columns[_INODE]),
    )


def _host(packed: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(packed)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _descriptors(process: Watched, inodes: set[int]) -> Iterator[int]:
    """Which of the process's descriptors are these sockets."""
    if not inodes:
        return
    links = {f"socket:[{inode}]" for inode in inodes}
    folder = f"/proc/{process.name.pid}/fd"
    for name in os.listdir(folder):  # noqa: PTH208 -- a server has hundreds of them
        try:
            is_wanted = os.readlink(f"{folder}/{name}") in links  # noqa: PTH115 -- as above
        except FileNotFoundError:
            continue  # Closed meanwhile.
        if is_wanted:
            yield int(name)


def _shut(process: Watched, number: int, inodes: set[int]) -> bool:
    copy = _LIBC.syscall(_PIDFD_GETFD, process.fileno(), number, 0)
    if copy < 0:
        error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        if isinstance(error, ProcessLookupError) or error.errno == errno.EBADF:
            return False
        raise error
    if os.fstat(copy).st_ino not in inodes:  # Closed, and the number given again.
        os.close(copy)
        return False
    with socket.socket(fileno=copy) as found:
        try:
            found.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False  # It has ended by itself.
    return True
