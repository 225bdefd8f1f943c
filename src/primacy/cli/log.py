"""`primacy log`: the files of a node's log, verified, listed, searched. Nothing is changed.

Does not  Say what a payload holds, but for changes of a SQLite database (`dump --sql`).
"""

from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from primacy.cli.format import Json, console, say, say_json, table
from primacy.cli.options import JsonOption
from primacy.engines.sqlite.storage.images import DATA
from primacy.engines.sqlite.storage.readable import sql_of
from primacy.errors import Corrupt, Rejected
from primacy.replication.gtid import GtidSet
from primacy.replication.log import inspecting
from primacy.replication.log.inspecting import FileReport, Found, Report, commit_time

app = typer.Typer(help="A node's log: is it sound, what does it hold, where is a transaction.")

FILE_COLUMNS = ("file", "bytes", "records", "begins behind", "ends at", "state")
DirectoryArgument = Annotated[
    Path,
    typer.Argument(help="The node's state directory, or `data/log` in it.", show_default=False),
]


@app.command(name="verify")
def verify_command(*, directory: DirectoryArgument, is_json: JsonOption = False) -> None:
    """Read every byte: checksums, the chain, the files' order. Exits 2 if one is wrong."""
    report = inspecting.verify(inspecting.log_directory(directory))
    if is_json:
        say_json(report_json(report))
    else:
        console().print(table(FILE_COLUMNS, [_file_row(each) for each in report.files]))
        say(f"{report.records} records, {report.gtids or 'no GTIDs'}, end {report.end}")
    if report.damage is not None:
        raise Corrupt(
            report.damage, hint="Keep a copy of the directory, and clone this node again."
        )


@app.command(name="dump")
def dump_command(  # noqa: PLR0913  # The options of one command.
    *,
    directory: DirectoryArgument,
    after: Annotated[int, typer.Option(min=0, help="Only what follows this index.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many.", show_default="all")
    ] = None,
    file: Annotated[str | None, typer.Option(help="Only this file.")] = None,
    payload: Annotated[bool, typer.Option("--payload", help="Payloads, too, in hex.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="As SQL, what each one did.")] = False,
    is_json: JsonOption = False,
) -> None:
    """Every record, in order. With --json one object on each line."""
    found = inspecting.records(inspecting.log_directory(directory), after=after, file=file)
    for each in islice(found, limit):
        lines = list(sql_of(each.payload)) if sql and each.header.kind in DATA else []
        if is_json:
            told: dict[str, Json] = {"sql": list[Json](lines)} if sql else {}
            say_json({**record_json(each, has_payload=payload), **told}, is_compact=True)
        else:
            say(f"{'-- ' if sql else ''}{record_line(each)}")
            for line in lines:
                say(line)
            if payload:
                say(f"{'-- ' if sql else ''}    {each.payload.hex()}")


@app.command(name="find")
def find_command(
    *,
    directory: DirectoryArgument,
    gtid: Annotated[str | None, typer.Option(help="Such as b@3:101.")] = None,
    index: Annotated[int | None, typer.Option(min=1, help="A record's number.")] = None,
    time: Annotated[
        str | None, typer.Option(help="The first at or after it: 2026-11-26T12:00:00, in UTC.")
    ] = None,
    place: Annotated[
        str | None, typer.Option(help="FILE:OFFSET, as errors name them.", metavar="FILE:OFFSET")
    ] = None,
    is_json: JsonOption = False,
) -> None:
    """One record, by GTID, index, time, or file and offset: all its names and where it stands."""
    where = inspecting.log_directory(directory)
    match gtid, index, time, place:
        case str(), None, None, None:
            found = inspecting.find_gtid(where, GtidSet.parse(gtid))
        case None, int(), None, None:
            found = inspecting.find_index(where, index)
        case None, None, str(), None:
            found = inspecting.find_time(where, _microseconds(time))
        case None, None, None, str():
            found = inspecting.find_place(where, *_place(place))
        case _:
            raise Rejected(
                "say what to find in exactly one way",
                hint="Give one of --gtid, --index, --time, --place.",
            )
    if is_json:
        say_json(record_json(found, has_payload=False))
    else:
        say(record_line(found))


def record_line(found: Found) -> str:
    header = found.header
    return (
        f"{found.gtid} {header.kind.name} {commit_time(header)} {header.payload_bytes} bytes, "
        f"point {header.point}, schema {header.schema_hash:016x}, {found.file}:{found.offset}"
    )


def record_json(found: Found, *, has_payload: bool) -> dict[str, Json]:
    header = found.header
    payload: dict[str, Json] = {"payload": found.payload.hex()} if has_payload else {}
    return {
        "gtid": str(found.gtid),
        "epoch": header.epoch,
        "index": header.index,
        "chain": f"{header.chain:016x}",
        "kind": header.kind.name,
        "committed_at": commit_time(header),
        "commit_time_us": header.commit_time_us,
        "schema_hash": f"{header.schema_hash:016x}",
        "payload_bytes": header.payload_bytes,
        "file": found.file,
        "offset": found.offset,
        **payload,
    }


def report_json(report: Report) -> dict[str, Json]:
    made: dict[str, Json] = msgspec.to_builtins(report)
    return {**made, "is_sound": report.damage is None}


def _file_row(report: FileReport) -> list[str]:
    """In the order of `FILE_COLUMNS`."""
    state = "sound"
    if report.damage is not None:
        state = f"DAMAGED: {report.damage}"
    elif report.torn_bytes:
        state = f"sound up to a torn tail of {report.torn_bytes} bytes at {report.end_offset}"
    sizes = (str(report.size_bytes), str(report.records))
    return [report.file, *sizes, report.before, report.end, state]


def _microseconds(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise Rejected(
            f"--time {text!r} is no time", hint="Write it such as 2026-11-26T12:00:00, in UTC."
        ) from error
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def _place(text: str) -> tuple[str, int]:
    file, colon, offset = text.rpartition(":")
    if not colon or not (offset.isascii() and offset.isdigit()) or len(offset) > 18:
        raise Rejected(
            f"--place {text!r} is no place",
            hint="Write it such as log-000000000001.bin:4711.",
        )
    return Path(file).name, int(offset)
