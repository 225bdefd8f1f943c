"""The login proves a password without sending it."""

import base64

import pytest

from primacy.engines.sqlite.scram import (
    ITERATIONS_MAX,
    proof_of,
    signature_for,
    unknown_user,
    verifier_of,
    verifiers_in,
)
from primacy.errors import Rejected

SALT = b"0123456789abcdef"
SAID = b"all that was said before"
VERIFIER = verifier_of("secret", salt=SALT)


def prove(password: str, said: bytes = SAID) -> tuple[bytes, bytes]:
    return proof_of(password, salt=SALT, iterations=VERIFIER.iterations, said=said)


def test_each_end_proves_the_password_to_the_other() -> None:
    proof, expected = prove("secret")
    assert signature_for(VERIFIER, proof, said=SAID) == expected


def test_a_wrong_password_proves_nothing() -> None:
    proof, _ = prove("Secret")
    assert signature_for(VERIFIER, proof, said=SAID) is None


def test_a_proof_that_was_overheard_is_worth_nothing_in_another_login() -> None:
    proof, _ = prove("secret")
    assert signature_for(VERIFIER, proof, said=b"another nonce") is None


@pytest.mark.parametrize("proof", [b"", b"short", b"x" * 33])
def test_a_proof_of_another_length_is_wrong(proof: bytes) -> None:
    assert signature_for(VERIFIER, proof, said=SAID) is None


def test_the_file_of_users_holds_what_was_made() -> None:
    text = f"# who may connect\n\napp {VERIFIER}  # the shop\n"
    assert verifiers_in(text, source="users") == {"app": VERIFIER}


def test_the_sums_are_those_of_rfc_7677() -> None:
    """Its example, section 3."""
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    said = (
        f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        f"c=biws,r={nonce}"
    ).encode()
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    proof, signature = proof_of("pencil", salt=salt, iterations=4096, said=said)
    assert base64.b64encode(proof) == b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.mark.parametrize(
    "line",
    ["app", "app secret", f"app {VERIFIER} more", "app SCRAM-SHA-256$4096:!$!:!"],
)
def test_a_line_that_is_none_is_refused_with_its_number(line: str) -> None:
    with pytest.raises(Rejected, match="users, line 2"):
        verifiers_in(f"# first\n{line}\n", source="users")


def test_an_unknown_user_looks_like_a_known_one() -> None:
    made = unknown_user("nobody", secret=b"s")
    assert made == unknown_user("nobody", secret=b"s")
    assert len(made.salt) == len(SALT)
    assert made.iterations == VERIFIER.iterations
    proof, _ = proof_of("", salt=made.salt, iterations=made.iterations, said=SAID)
    assert signature_for(made, proof, said=SAID) is None


def test_a_server_cannot_make_a_client_work_for_ever() -> None:
    with pytest.raises(Rejected, match="iterations"):
        proof_of("secret", salt=SALT, iterations=ITERATIONS_MAX + 1, said=SAID)
