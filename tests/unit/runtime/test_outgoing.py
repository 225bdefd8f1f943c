"""The kernel's list of TCP sockets, read."""

import ipaddress
import sys

import pytest

from primacy.runtime.outgoing import parsed

QUEUES = "00000000:00000000 00:00000000 00000000"


@pytest.mark.skipif(sys.byteorder != "little", reason="addresses are in the host's byte order")
@pytest.mark.parametrize(
    ("local", "remote", "host"),
    [
        ("0100007F:1F90", "0A01A8C0:0CEA", "192.168.1.10"),
        ("0" * 24 + "01000000:1F90", "B80D0120" + "0" * 16 + "0A000000:0CEA", "2001:db8::a"),
        ("0" * 32 + ":1F90", "0000000000000000FFFF00000A01A8C0:0CEA", "192.168.1.10"),
    ],
    ids=["IPv4", "IPv6", "IPv4 in IPv6"],
)
def test_a_line_names_both_ends(local: str, remote: str, host: str) -> None:
    found = parsed(f"   3: {local} {remote} 02 {QUEUES}   104        0 3321005 1 ffff 20 4 0 10 -1")
    assert found.host == ipaddress.ip_address(host)
    assert (found.local_port, found.port, found.state, found.inode) == (8080, 3306, 2, 3321005)
