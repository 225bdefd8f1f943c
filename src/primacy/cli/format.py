"""Values into text: tables for people, JSON for programs. The one place that prints."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from primacy.cluster.control.wording import Json as Json
from primacy.cluster.control.wording import seconds as seconds
from primacy.cluster.control.wording import steps as steps
from primacy.cluster.control.wording import when as when

if TYPE_CHECKING:  # The long-lived processes print no tables, and are to start at once.
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 180
"""Columns where the output is no terminal: wide enough that a row stays a line."""


def console() -> "Console":
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> "Table":
    """All cells are text and shown as they are: no markup is read from data."""
    from rich.table import Table

    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(_escaped(cell) for cell in row))
    return made


def say(text: str) -> None:
    """One line, or several, for people."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def say_json(value: Json, *, is_compact: bool = False) -> None:
    """One object. Compact: on one line, for streams of objects."""
    text = json.dumps(value) if is_compact else json.dumps(value, indent=2)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """To stderr, so that a program that reads stdout never meets it."""
    sys.stderr.write(f"primacy: {text}\n")
    sys.stderr.flush()


def complain_json(value: Json) -> None:
    """One object on one line, to stderr."""
    sys.stderr.write(f"{json.dumps(value)}\n")
    sys.stderr.flush()


def _escaped(cell: str) -> str:
    return cell.replace("[", r"\[")
