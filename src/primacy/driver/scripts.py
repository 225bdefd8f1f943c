"""A script as its statements, by SQLite's own rule for where one ends."""

from collections.abc import Iterator

from primacy.engines.sqlite.keywords import is_blank


def statements_in(script: str) -> Iterator[str]:
    """Each without what is around it. The last one may lack its semicolon."""
    begin = 0
    at = script.find(";")
    while at >= 0:
        if is_complete(script[begin : at + 1]):
            statement = script[begin : at + 1].strip()
            if not is_blank(statement):
                yield statement
            begin = at + 1
        at = script.find(";", at + 1)
    rest = script[begin:].strip()
    if not is_blank(rest):
        yield rest


def is_complete(text: str) -> bool:
    """Whether a statement ends here: not inside a string, a comment or a trigger."""
    from sqlite3 import complete_statement  # Not at import: most programs run no scripts.

    return complete_statement(text)
