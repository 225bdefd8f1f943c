"""What the first word of a statement says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from primacy.engines.sqlite.keywords import Control, control_of, first_word, is_blank

WORDS = {
    "select 1": "SELECT",
    "  \n\tInsert into t": "INSERT",
    "-- a comment\nUPDATE t": "UPDATE",
    "/* one */ /* two */delete from t": "DELETE",
    ";;VALUES(1)": "VALUES",
    "\ufeffSELECT": "SELECT",
    "-- nothing": "",
    "/* not closed": "",
    "": "",
    "(SELECT 1)": "",
}

CONTROLS = {
    "BEGIN": (Control.BEGIN, ""),
    "begin immediate transaction;": (Control.BEGIN, ""),
    "COMMIT": (Control.COMMIT, ""),
    "END TRANSACTION": (Control.COMMIT, ""),
    "ROLLBACK": (Control.ROLLBACK, ""),
    "ROLLBACK TRANSACTION;": (Control.ROLLBACK, ""),
    "rollback to x": (Control.ROLLBACK_TO, "x"),
    "ROLLBACK TRANSACTION TO SAVEPOINT x;": (Control.ROLLBACK_TO, "x"),
    "SAVEPOINT x": (Control.SAVEPOINT, "x"),
    'SAVEPOINT "a b"': (Control.SAVEPOINT, "a b"),
    "SAVEPOINT/**/x--y": (Control.SAVEPOINT, "x"),
    "RELEASE SAVEPOINT [a b];": (Control.RELEASE, "a b"),
    "RELEASE x": (Control.RELEASE, "x"),
    "RELEASE savepoint": (Control.RELEASE, "savepoint"),
    "SELECT 'BEGIN'": None,
    "REINDEX": None,
}


@pytest.mark.parametrize(("sql", "word"), WORDS.items())
def test_the_first_word_is_found_behind_spaces_and_comments(sql: str, word: str) -> None:
    assert first_word(sql) == word


@pytest.mark.parametrize("sql", ["", " ;; -- nothing\n;", "/* not closed", "\ufeff"])
def test_spaces_comments_and_empty_statements_are_nothing(sql: str) -> None:
    assert is_blank(sql)


@pytest.mark.parametrize("sql", ["(SELECT 1)", "123", "-- a duck\n🦆", "/* one */ 'x'", "SELECT 1"])
def test_what_begins_with_no_word_is_something_all_the_same(sql: str) -> None:
    assert not is_blank(sql)


@pytest.mark.parametrize(("sql", "control"), CONTROLS.items())
def test_statements_about_transactions_are_recognised(
    sql: str, control: tuple[Control, str] | None
) -> None:
    assert control_of(sql) == control


@given(st.text(alphabet="SAVEPOINTROLBCK-/*;\"'[]` \nx"))
def test_any_text_has_an_answer(sql: str) -> None:
    control_of(sql)
    assert first_word(sql) == first_word(sql).upper()
