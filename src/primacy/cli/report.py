"""`primacy report`: one archive for whoever helps, with everything but secrets.

Of the cluster: its file, status, history, decisions. Of each node that has its directory on this
host: what its agent, guard and server wrote last, the deadline page, the disk. What could not be
read is in it as a sentence, never a reason to fail.
"""

import io
import os
import platform
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from primacy.cli.format import say, say_json
from primacy.cli.kit import kit_of
from primacy.cli.options import ConfigOption, JsonOption, loaded, run_to_end
from primacy.cli.programs import said_by
from primacy.cli.redaction import Redactor, secrets_in
from primacy.cli.session import roster, singles_of, store_of
from primacy.clock import SystemClock
from primacy.cluster.control.answers import Answer, as_json
from primacy.cluster.control.past import (
    decisions_answer,
    history_answer,
    read_decisions,
    read_history,
)
from primacy.cluster.control.picture import answer_of
from primacy.cluster.control.reading import READ_WITHIN_S, read_picture
from primacy.cluster.control.wording import when
from primacy.config import Config, path_of
from primacy.errors import PrimacyError, Unavailable
from primacy.model import NodeId
from primacy.runtime.page import PageReader, boottime_ns

TAIL_BYTES = 1 << 19
"""Of each log: the last half megabyte is a bad day."""

EPOCHS_MAX, DECISIONS_MAX = 200, 200
SECRET_FILE_BYTES_MAX = 1 << 16

LOGS = ("agent.log", "guard/guard.log", "guard/server.out")
FACTS = ("guard/guard.json", "guard/guard-spec.json", "run/agent.pid", "run/router.pid")
HOST_FACTS = ("/proc/meminfo", "/proc/loadavg", "/proc/pressure/io", "/proc/pressure/cpu",
    "/proc/pressure/memory", "/etc/os-release")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Piece:
    """One file of the archive, before redaction."""

    name: str
    text: str


def report(
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write; else a name with the time."),
    ] = None,
    config: ConfigOption = None,
    is_json: JsonOption = False,
) -> None:
    """Collect what somebody who helps needs to see, without secrets, in one .tar.gz.

    Run it on the host that has the trouble: the logs are those of this host's nodes.
    """
    found, path, clock = loaded(config), path_of(config), SystemClock()
    stamp = when(clock.wall_s()).replace(" ", "T").replace(":", "")
    target = output or Path(f"primacy-report-{found.cluster.name}-{stamp}Z.tar.gz")
    pieces = [*run_to_end(of_cluster(found)), *of_host(found, path)]
    size = write(target, pieces, Redactor(secrets_of(found)))
    if is_json:
        say_json({"path": str(target), "bytes": size, "files": [each.name for each in pieces]})
    else:
        say(f"{target}: {len(pieces)} files, {size} bytes. Look through it before you send it.")


def write(target: Path, pieces: list[Piece], redactor: Redactor) -> int:
    """The archive, for its owner's eyes; returns its bytes. Raises `OSError`."""
    folder = target.name.removesuffix(".tar.gz")
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for piece in pieces:
            content = redactor.text(piece.text).encode(errors="replace")
            entry = tarfile.TarInfo(f"{folder}/{redactor.text(piece.name)}")
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return target.stat().st_size


def secrets_of(config: Config) -> set[str]:
    """Every secret that this host can know of: the cluster's, what is derived from it, and the
    content of each file that the configuration names as one or a node keeps as one."""
    known = {config.secret().hex(), *kit_of(config).secrets(config)}
    for path in _secret_files(config):
        known |= set(secrets_in(_tail(path, SECRET_FILE_BYTES_MAX)))
    return known


def _secret_files(config: Config) -> Iterator[Path]:
    tree = config.model_dump(mode="json")
    for section in tree.values():
        for key, value in section.items() if isinstance(section, dict) else ():
            if key.endswith("_file") and isinstance(value, str) and value:
                yield config.directory / value
    for node in config.members:
        yield from sorted((config.state_dir(node) / "secrets").glob("*"))


# ---- what the cluster says


async def of_cluster(config: Config) -> list[Piece]:
    """Status, history and decisions, each or the reason why it is not there."""
    who = roster(config)
    async with store_of(config) as store, singles_of(config) as singles:
        picture = await read_picture(who, store, singles, clock=SystemClock())
        pieces = [_shown("status.json", answer_of(picture))]
        if not picture.has_majority:
            return [*pieces, Piece("history.txt", "the store has no majority: nothing to read")]
        try:
            past = await read_history(store, limit=EPOCHS_MAX)
            decisions = await read_decisions(store, who, last=DECISIONS_MAX)
        except PrimacyError as error:
            return [*pieces, Piece("history.txt", f"not read within {READ_WITHIN_S} s: {error}")]
        pieces.append(_shown("history.json", history_answer(past)))
        pieces.append(_shown("decisions.json", decisions_answer(decisions)))
        return pieces


def _shown(name: str, answer: Answer) -> Piece:
    return Piece(name, msgspec.json.format(msgspec.json.encode(as_json(answer)), indent=2).decode())


# ---- what this host says


def of_host(config: Config, path: Path) -> list[Piece]:
    pieces = [
        Piece("primacy.toml", _tail(path, TAIL_BYTES)),
        Piece("versions.txt", _versions(config)),
    ]
    pieces += [Piece(f"host{name}", _tail(Path(name), TAIL_BYTES)) for name in HOST_FACTS]
    for node in config.members:
        directory = config.state_dir(node)
        if directory.is_dir():
            pieces += _of_node(config, node, directory)
    return pieces


def _of_node(config: Config, node: NodeId, directory: Path) -> Iterator[Piece]:
    for name in (*LOGS, *kit_of(config).log_files, *FACTS):
        if (directory / name).exists():
            yield Piece(f"{node}/{name}", _tail(directory / name, TAIL_BYTES))
    unit = f"primacy-{config.cluster.name}-{node}"
    yield Piece(f"{node}/journal.txt", said_by("journalctl", "--no-pager", "-n", "5000",
        "-u", unit, "-u", f"{unit}-guard"))  # fmt: skip
    yield Piece(f"{node}/disk.txt", _disk(directory))
    if node in config.data_nodes:
        yield Piece(f"{node}/page.txt", _page(kit_of(config).page(config, node)))


def _versions(config: Config) -> str:
    lines = [
        f"primacy {version('primacy')}",
        f"python {platform.python_version()}",
        f"kernel {platform.release()} {platform.machine()}",
        *kit_of(config).versions(config),
    ]
    return "\n".join(lines) + "\n"


def _disk(directory: Path) -> str:
    usage = shutil.disk_usage(directory)
    lines = [f"total {usage.total}", f"used {usage.used}", f"free {usage.free}", ""]
    for entry in sorted(directory.iterdir()):
        lines.append(f"{entry.name}{'/' if entry.is_dir() else f' {entry.stat().st_size}'}")
    return "\n".join(lines) + "\n"


def _page(path: Path) -> str:
    """As the guard left it, and how long its deadline is from now."""
    try:
        reader = PageReader(path)
    except Unavailable as error:
        return f"{error.what}\n"
    try:
        page = reader.read()
    finally:
        reader.close()
    left_s = (page.deadline_ns - boottime_ns()) / 1e9 if page.deadline_ns else None
    return f"{page}\ndeadline in {left_s} s\n"


def _tail(path: Path, bytes_max: int) -> str:
    """The end of a file, or why it could not be read."""
    try:
        with path.open("rb") as file:
            beyond = path.stat().st_size - bytes_max
            if beyond > 0:
                file.seek(beyond)
            return file.read(bytes_max).decode(errors="replace")
    except OSError as error:
        return f"not read: {error.strerror}\n"
