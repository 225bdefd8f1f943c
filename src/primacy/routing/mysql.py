"""The one thing that a router says in MariaDB's own protocol: the error packet of a refusal.

Sent in place of the server's greeting, as the server itself does when it has too many
connections; every driver shows its text. Layout in docs/protocols/router.md.
Source: MariaDB's protocol, ERR_Packet: 3 bytes length, sequence 0, 0xFF, code, '#', SQL state.
"""

from primacy.routing.words import Refusal

MESSAGE_BYTES_MAX = 480
"""The servers cut theirs at 512 bytes, and some drivers keep no more."""


_CODES = {
    Refusal.NO_DATABASE: (1053, b"08S01"),  # ER_SERVER_SHUTDOWN. Never sent for a statement.
    Refusal.TOO_MANY: (1040, b"08004"),  # ER_CON_COUNT_ERROR
}
"""Code and SQL state. Both are connection errors (class 08), which pools retry."""


def error_packet(refusal: Refusal, message: str) -> bytes:
    code, sql_state = _CODES[refusal]
    text = message.encode()[:MESSAGE_BYTES_MAX].decode(errors="ignore").encode()
    payload = b"\xff" + code.to_bytes(2, "little") + b"#" + sql_state + text
    return len(payload).to_bytes(3, "little") + b"\x00" + payload
