"""Whatever command line a document shows is one that this version takes."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import typer

from primacy.cli.main import application

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
IN_LINE = re.compile(r"`(primacy [a-z][^`]*)`")
MADE = re.compile(r"(?:`|^)make ([a-z][a-z-]*)(?=[ `\n])", re.MULTILINE)
AT_START = re.compile(r"^\s*(primacy [a-z][^\n]*)", re.MULTILINE)


def test_every_command_line_of_a_document_is_taken() -> None:
    root = typer.main.get_command(application())
    shown = [(path, line) for path in DOCUMENTS for line in lines_of(path.read_text())]
    assert len(shown) > 50
    wrong = [
        f"{path.relative_to(ROOT)}: {line}: {problem}"
        for path, line in shown
        for words in alternatives(line)
        if (problem := problem_of(root, words))
    ]
    assert not wrong, "\n".join(["", *wrong])


def test_every_target_of_make_that_a_document_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [(path, name) for path in DOCUMENTS for name in MADE.findall(path.read_text())]
    assert len(named) > 20
    wrong = [
        f"{path.relative_to(ROOT)}: make {name}" for path, name in named if name not in targets
    ]
    assert not wrong, "\n".join(["", *wrong])


def lines_of(text: str) -> Iterator[str]:
    for block in FENCED.findall(text):
        yield from AT_START.findall(block.replace("\\\n", " "))
    for line in IN_LINE.findall(FENCED.sub("", text)):
        yield line.replace("\n", " ")


def alternatives(line: str) -> Iterator[list[str]]:
    """`log verify|dump` is two; what follows `--` or `#` is another's."""
    words = itertools.takewhile(lambda word: word.strip("-#"), line.split()[1:])
    for choice in itertools.product(*(word.split("|") for word in words)):
        yield list(choice)


def problem_of(command: object, words: list[str]) -> str:
    """Empty: there is such a command, and it has these options."""
    commands = getattr(command, "commands", {})
    if words and words[0] in commands:
        return problem_of(commands[words[0]], words[1:])
    if commands and words and not words[0].startswith("-"):
        return f"no command {words[0]}"
    known = {name for each in getattr(command, "params", []) for name in each.opts}
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    return f"no option {', '.join(sorted(given - known))}" if given - known else ""
