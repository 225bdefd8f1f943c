"""`primacy sql` against a real server."""

import contextlib
import json
import os
import pty
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.sqlite.serving import Served

from primacy.cli.main import exit_code_of
from primacy.engines.sqlite.scram import proof_of, signature_for, verifiers_in

pytestmark = pytest.mark.integration

SETUP = """
    CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT, b, twice AS (id * 2) STORED);
    CREATE TABLE "odd ""name" (x);
    CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
    CREATE INDEX i ON t (a);
    CREATE TABLE log (what);
    CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a); END;
    CREATE VIEW v AS SELECT a FROM t;
    CREATE VIRTUAL TABLE f USING fts5(words);
    INSERT INTO t (a, b) VALUES ('it''s', NULL), ('x', x'00ff'), ('a' || char(0) || 'b', 1.5);
    INSERT INTO t (a, b) VALUES ('big', 9e999), ('gone', -7);
    DELETE FROM t WHERE a = 'gone';
    INSERT INTO "odd ""name" VALUES (1);
    INSERT INTO w VALUES ('k', 'v');
    INSERT INTO f VALUES ('some words');
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served")) as served:
        with closing(served.connect()) as setup:
            setup.executescript(SETUP)
        yield served


def said(
    server: Served, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0
) -> tuple[str, str]:
    assert exit_code_of(["sql", server.url, *arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_rows_are_a_table_or_one_json_object_each(
    server: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    query = "SELECT id, a, b FROM t WHERE id < 3 ORDER BY id"
    out, _ = said(server, capsys, "-c", query)
    assert [line.split() for line in out.splitlines()] == [
        ["id", "a", "b"],
        ["1", "it's", "NULL"],
        ["2", "x", "x'00ff'"],
    ]
    out, _ = said(server, capsys, "--json", "-c", query)
    assert [json.loads(line) for line in out.splitlines()] == [
        {"id": 1, "a": "it's", "b": None},
        {"id": 2, "a": "x", "b": "x'00ff'"},
    ]


def test_changes_are_counted_and_commands_run_in_order(
    server: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = said(
        server,
        capsys,
        *("-c", "CREATE TABLE c (x)"),
        *("-c", "INSERT INTO c VALUES (1), (2); DELETE FROM c WHERE x = 1"),
        *("-c", "DROP TABLE c"),
    )
    assert out.splitlines()[:2] == ["2 rows changed", "1 row changed"]


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["-c", "SELEC 1"], 2, "syntax error"),
        (["-c", ".nothing"], 2, "is no command"),
        (["-c", "SELECT 1", "--password-file", "/nowhere"], 1, "/nowhere"),
    ],
)
def test_what_fails_is_one_sentence_and_an_exit_code(
    arguments: list[str],
    code: int,
    what: str,
    server: Served,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, err = said(server, capsys, *arguments, code=code)
    assert what in err
    assert "Traceback" not in err


def test_a_wrong_url_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(["sql", "mysql://a/", "-c", "SELECT 1"]) == 2
    assert "not a URL of primacy://" in capsys.readouterr().err


def test_tables_and_schema_are_shown(server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(server, capsys, "-c", ".tables")
    assert {"t", "v", "w", 'odd "name'} <= set(out.splitlines())
    out, _ = said(server, capsys, "-c", ".schema t")
    assert out.startswith("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT")
    assert "CREATE INDEX i ON t (a);" in out
    out, _ = said(server, capsys, "-c", ".server")
    assert out == "a\n"
    out, _ = said(server, capsys, "-c", ".help")
    assert ".dump" in out


def test_a_dump_makes_the_same_database_again(
    server: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = said(server, capsys, "-c", ".dump")
    made = sqlite3.connect(":memory:")
    made.executescript(out)
    with closing(server.connect()) as ours:
        for table in ("t", '"odd ""name"', "w", "log", "v", "sqlite_sequence"):
            query = f"SELECT * FROM {table} ORDER BY 1"
            assert made.execute(query).fetchall() == ours.execute(query).fetchall(), table
        schema = (
            "SELECT type, name FROM sqlite_schema WHERE name NOT LIKE '_primacy%' "
            "AND name NOT LIKE 'sqlite_stat%' ORDER BY 1, 2"
        )
        assert made.execute(schema).fetchall() == ours.execute(schema).fetchall()
        assert "\n".join(ours.iterdump()) + "\n" == out
    assert made.execute("SELECT count(*) FROM f WHERE f MATCH 'words'").fetchone() == (1,)
    made.close()
    out, _ = said(server, capsys, "-c", ".dump w")
    assert 'INSERT INTO "w" ("k", "v") VALUES (\'k\', \'v\');' in out
    assert "odd" not in out


def test_a_script_on_stdin_stops_at_its_first_error(server: Served) -> None:
    script = "SELECT 1 AS one; SELECT * FROM nowhere; SELECT 2 AS two;"
    done = subprocess.run(
        [sys.executable, "-m", "primacy.cli.main", "sql", server.url],
        input=script,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "no such table: nowhere" in done.stderr
    assert ("one" in done.stdout, "two" in done.stdout) == (True, False)


def test_a_new_user_is_a_line_for_the_users_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    arguments = ["sql", "--new-user", "app", "--password-file", str(tmp_path / "password")]
    assert exit_code_of(arguments) == 0
    verifier = verifiers_in(capsys.readouterr().out, source="users")["app"]
    proof, expected = proof_of(
        "s3cret", salt=verifier.salt, iterations=verifier.iterations, said=b"said"
    )
    assert signature_for(verifier, proof, said=b"said") == expected


def test_a_person_types_statements_over_lines_and_finds_them_again(
    server: Served, tmp_path: Path
) -> None:
    typed = (
        "SELECT 40 +\n2 AS n;\nBEGIN;\nROLLBACK;\nSELECT missing;\n"
        ".json on\nSELECT 7 AS n;\n.quit\n"
    )
    code, out = typed_into_a_shell(server, typed, home=tmp_path)
    assert code == 0, out
    assert "primacy sql, connected to a" in out
    assert "42" in out.split()
    assert "primacy*> " in out
    assert "no such column: missing" in out
    assert '{"n": 7}' in out
    assert "2 AS n;" in (tmp_path / ".primacy_sql_history").read_text()


def test_whoever_has_no_home_has_a_shell_without_a_history(server: Served, tmp_path: Path) -> None:
    code, out = typed_into_a_shell(server, "SELECT 6 * 7;\n.quit\n", home=tmp_path / "missing")
    assert code == 0, out
    assert "42" in out.split()
    assert "note: what was typed is not kept" in out


def typed_into_a_shell(server: Served, typed: str, *, home: Path) -> tuple[int, str]:
    """Exit code, and all that stood on the terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "primacy.cli.main", "sql", server.url],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "HOME": str(home), "TERM": "dumb"},
    ) as shell:
        os.close(theirs)
        os.write(ours, typed.encode())
        out = read_to_end(ours)
    return shell.returncode, out


def read_to_end(terminal: int) -> str:
    said = b""
    with os.fdopen(terminal, "rb", buffering=0) as file, contextlib.suppress(OSError):
        while data := file.read(4096):  # At its end Linux says EIO.
            said += data
    return said.decode()
