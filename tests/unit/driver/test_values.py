"""URLs, parameters, rows, scripts: what a caller hands in, and what he gets."""

import enum
import sqlite3
import subprocess
import sys

import pytest

import primacy.driver as db
from primacy import errors
from primacy.driver.exceptions import DataError, InterfaceError, ProgrammingError
from primacy.driver.parameters import parameters_of
from primacy.driver.rows import Described, Row, dict_row
from primacy.driver.scripts import statements_in
from primacy.driver.session import Results
from primacy.driver.target import Wanted, target_of
from primacy.model import Address


def test_a_url_names_hosts_database_user_and_options() -> None:
    target = target_of(
        "primacy://app:p%40ss@10.0.0.1,b:3400,[::1]:3401/shop?target=any&timeout_s=2&fresh_ms=500"
    )
    assert target.hosts == (Address("10.0.0.1", 3307), Address("b", 3400), Address("::1", 3401))
    assert (target.user, target.password, target.database) == ("app", "p@ss", "shop")
    assert (target.wanted, target.timeout_s, target.fresh_ms) == (Wanted.ANY, 2.0, 500)
    assert "p@ss" not in str(target)


def test_an_option_counts_more_than_the_url() -> None:
    target = target_of("primacy://a/?timeout_s=2&user=x", timeout_s=7, user="app")
    assert (target.timeout_s, target.user) == (7.0, "app")


BAD_URLS = {
    "mysql://a/": "not a URL of primacy://",
    "primacy:///db": "not a URL",
    "primacy://[::1/db": "not a URL",
    "primacy://a:x/": "not HOST or HOST:PORT",
    "primacy://a:70000/": "not HOST or HOST:PORT",
    "primacy://,/": "between 1 and 32 hosts",
    "primacy://a/?tiemout_s=1": "unknown options: tiemout_s",
    "primacy://a/?timeout_s=never": "timeout_s = 'never'",
    "primacy://a/?timeout_s=0": "timeout_s = '0'",
    "primacy://a/?target=leader": "target = 'leader'",
    "primacy://a/?fresh_ms=-1": "fresh_ms = '-1'",
}


@pytest.mark.parametrize(("url", "what"), BAD_URLS.items())
def test_a_wrong_url_is_refused_in_words(url: str, what: str) -> None:
    with pytest.raises(InterfaceError, match=what):
        target_of(url)


@pytest.mark.parametrize("url", ["mysql://app:secret@a/", "primacy://app:secret[@a/"])
def test_a_wrong_url_does_not_show_its_password(url: str) -> None:
    with pytest.raises(InterfaceError) as caught:
        target_of(url)
    assert "secret" not in str(caught.value)


class Colour(str, enum.Enum):  # noqa: UP042 - the older kind, whose str() is not its value.
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 3


def test_parameters_become_plain_values() -> None:
    given = (
        None,
        True,
        7,
        2.5,
        "x",
        b"y",
        bytearray(b"z"),
        memoryview(b"w"),
        Colour.RED,
        Size.LARGE,
    )
    made = parameters_of(given)
    assert made == [None, 1, 7, 2.5, "x", b"y", b"z", b"w", "red", 3]
    assert isinstance(made, list)
    assert [type(each) for each in made[8:]] == [str, int]
    assert parameters_of({"a": True}) == {"a": 1}


@pytest.mark.parametrize("given", [[object()], [[1]], "abc", 7, {"a": {}}])
def test_other_types_are_refused_by_place(given: list[object]) -> None:
    with pytest.raises(ProgrammingError):
        parameters_of(given)


def test_an_integer_that_sqlite_cannot_hold_is_refused() -> None:
    with pytest.raises(DataError, match="more than 64 bits"):
        parameters_of([2**63])


class WithDescription:
    def __init__(self, *names: str) -> None:
        results = Results()
        results.columns = list(names)
        self.description: Described | None = results.description


def test_a_row_answers_as_sqlite3s_does() -> None:
    row = Row(WithDescription("Id", "name"), (1, "x"))
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    theirs = connection.execute("SELECT 1 AS Id, 'x' AS name").fetchone()
    connection.close()
    for key in (0, 1, -1, "Id", "id", "NAME", slice(0, 2)):
        assert row[key] == theirs[key]
    assert row.keys() == theirs.keys()
    assert (len(row), list(row), tuple(row)) == (len(theirs), list(theirs), tuple(theirs))
    for missing in (2, "other"):
        for each in (row, theirs):
            with pytest.raises(IndexError):
                each[missing]
    assert row == Row(WithDescription("Id", "name"), (1, "x"))
    assert len({row, Row(WithDescription("Id", "name"), (1, "x"))}) == 1
    assert row != Row(WithDescription("id", "name"), (1, "x"))


def test_rows_can_be_dicts() -> None:
    assert dict_row(WithDescription("a", "b"), (1, 2)) == {"a": 1, "b": 2}


def test_a_script_is_cut_where_sqlite_ends_its_statements() -> None:
    script = """
        CREATE TABLE t (a TEXT DEFAULT ';'); -- the first; of four
        CREATE TRIGGER r AFTER INSERT ON t BEGIN
            INSERT INTO u VALUES (1); DELETE FROM u;
        END;
        ;
        INSERT INTO t VALUES (';;')
        ; SELECT 1
    """
    found = list(statements_in(script))
    assert [each.split()[-1] if each else "" for each in found] == ["';');", "END;", ";", "1"]
    assert len(found) == 4


def test_the_module_says_what_pep_249_asks_for() -> None:
    assert (db.apilevel, db.paramstyle) == ("2.0", "qmark")
    assert db.threadsafety == 1
    assert issubclass(db.InterfaceError, db.Error)
    for each in (db.DataError, db.OperationalError, db.IntegrityError, db.InternalError):
        assert issubclass(each, db.DatabaseError)
    assert issubclass(db.OutcomeUnknown, errors.OutcomeUnknown)
    assert issubclass(db.OutcomeUnknown, db.OperationalError)
    assert not issubclass(db.Warning, db.Error)


def test_importing_the_driver_is_quick_and_needs_msgspec_alone() -> None:
    heavy = ["apsw", "asyncio", "pydantic", "typer", "rich", "sqlite3", "uvloop"]
    program = f"import sys, primacy.driver; print([n for n in {heavy} if n in sys.modules])"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert said.stdout.strip() == "[]"


def test_a_key_can_be_made_again_from_what_the_caller_knows() -> None:
    one = db.idempotency_key("order-1", created_at_s=1_700_000_000.5)
    assert one == db.idempotency_key("order-1", created_at_s=1_700_000_000.5)
    assert db.idempotency_key() != db.idempotency_key()
    with pytest.raises(ProgrammingError, match="not an idempotency key"):
        db.idempotency_key("order 1")
