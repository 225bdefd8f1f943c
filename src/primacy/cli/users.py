"""Lines of the users' file of the SQLite engine: who may connect, and what proves it."""

import os

from primacy.engines.sqlite.scram import SALT_BYTES, verifier_of
from primacy.errors import Rejected


def checked_user(name: str) -> str:
    if not name or any(each.isspace() or each == "#" for each in name):
        raise Rejected(f"{name!r} is no user's name", hint="Use no spaces and no #.")
    return name


def user_line(name: str, password: str) -> str:
    """Each time another one, for the same password too."""
    if not password:
        raise Rejected("the password is empty", hint="Choose one that nobody guesses.")
    return f"{checked_user(name)} {verifier_of(password, salt=os.urandom(SALT_BYTES))}"
