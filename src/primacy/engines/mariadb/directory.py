"""The data directory: whose it is, how it is made, how it is replaced.

Promises  A data directory without our mark, or with another node's, is FOREIGN and never touched.
          A new one becomes `data` by a rename, whole or not at all.
"""

import os
import pwd
import secrets
import shutil
import subprocess
from pathlib import Path

import msgspec

from primacy.engines.api import ServerState
from primacy.engines.mariadb.accounts import agent_user, bootstrap_sql, write_secrets
from primacy.engines.mariadb.config_file import server_config
from primacy.engines.mariadb.settings import MariaDbSettings
from primacy.engines.notes import replace_durably
from primacy.errors import Conflict, Rejected, Unavailable
from primacy.model import ORIGIN, Epoch, Incarnation, Position
from primacy.runtime.files import sync_directory

MARK_NAME = "primacy.json"
INSTALL_S = 300.0
"""A slow disk and a busy machine; it takes one second on an idle one."""
WORDS_MAX = 2000
FULL_BYTES = 8 << 20
"""With less free space the next write of the server may wait for ever."""
FREE_AGAIN_BYTES = 4 * FULL_BYTES


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Stands in every data directory that primacy made."""

    format: int = 1
    cluster: str
    node: str
    incarnation: Incarnation
    pending_gtid: str = ""
    """A clone's position, to be given to the server at its first start."""
    base_epoch: int = 0
    base_sequence: int = 0
    """Where the data of a clone or a rewind stood: the newest epoch in them, and the sequence. The
    log begins there, so the rows of the epochs up to then are in the data and not in the log."""


class Directory:
    """The files of one node. The methods block: they belong into a thread."""

    def __init__(self, settings: MariaDbSettings) -> None:
        self._settings = settings
        self._layout = settings.layout
        self._mark: Mark | None = None
        self._is_full = False

    @property
    def unix_user(self) -> str | None:
        """Whom the server must be made to run as; None: as the agent."""
        return self._settings.unix_user if os.geteuid() == 0 else None

    def state(self) -> tuple[ServerState, str]:
        """ABSENT, FOREIGN or STOPPED, with the reason in words."""
        data = self._layout.data
        if not data.exists() or not any(data.iterdir()):
            return ServerState.ABSENT, "no data directory yet"
        mark = self.mark()
        own = (self._settings.cluster, self._settings.node)
        if mark is None:
            return ServerState.FOREIGN, f"{data} has data and no mark of primacy"
        if (mark.cluster, mark.node) != own:
            whose = f"node {mark.node} of cluster {mark.cluster}"
            return ServerState.FOREIGN, f"{data} belongs to {whose}"
        return ServerState.STOPPED, ""

    def is_full(self) -> bool:
        """From a disk with almost no space until it has some again, for whom the server runs as."""
        places = [each for each in (self._layout.root, self._layout.data) if each.exists()]
        free_bytes = min((_free_bytes(each) for each in places), default=FREE_AGAIN_BYTES)
        self._is_full = free_bytes < (FREE_AGAIN_BYTES if self._is_full else FULL_BYTES)
        return self._is_full

    def mark(self) -> Mark | None:
        """None where there is no mark, or one that cannot be read."""
        if self._mark is None:
            try:
                content = (self._layout.data / MARK_NAME).read_bytes()
                self._mark = msgspec.json.decode(content, type=Mark)
            except (OSError, msgspec.DecodeError, msgspec.ValidationError):
                return None
        return self._mark

    def prepare(self) -> None:
        """Folders, secrets and the option file, as this version of primacy wants them."""
        layout = self._layout
        layout.root.mkdir(parents=True, exist_ok=True)
        write_secrets(layout.secrets, self._settings.cluster_secret, self._settings.node)
        layout.guard.mkdir(mode=0o700, exist_ok=True)
        layout.run.mkdir(exist_ok=True)
        self._give(layout.run)
        layout.temporary.mkdir(mode=0o700, exist_ok=True)
        self._give(layout.temporary)
        if not layout.server_log.exists():
            layout.server_log.touch(mode=0o640)
        self._give(layout.server_log)
        content = server_config(self._settings).encode()
        if not layout.config_file.exists() or layout.config_file.read_bytes() != content:
            replace_durably(layout.config_file, content, mode=0o644)

    def make_empty(self) -> None:
        """ABSENT -> STOPPED."""
        self._only(ServerState.ABSENT)
        self.prepare()
        incoming = self.clear_incoming()
        script = self._layout.secrets / "bootstrap.sql"
        sql = bootstrap_sql(self._settings.cluster_secret, self._settings.peers)
        replace_durably(script, sql.encode())
        try:
            self._install(incoming, script)
        finally:
            script.unlink()
        self.adopt_incoming()

    def clear_incoming(self) -> Path:
        """An empty folder beside `data`."""
        incoming = self._layout.incoming
        if incoming.exists():
            shutil.rmtree(incoming)
        incoming.mkdir(mode=0o700, parents=True)
        return incoming

    def adopt_incoming(self, *, pending_gtid: str = "") -> None:
        """`incoming` becomes `data` with a new incarnation; what was there goes aside."""
        layout = self._layout
        mark = Mark(
            cluster=self._settings.cluster,
            node=self._settings.node,
            incarnation=Incarnation(secrets.token_hex(16)),
            pending_gtid=pending_gtid,
        )
        replace_durably(layout.incoming / MARK_NAME, msgspec.json.encode(mark), mode=0o644)
        self._give_all(layout.incoming)
        if layout.data.exists() and any(layout.data.iterdir()):
            self._only(ServerState.STOPPED)
            if layout.old_data.exists():
                shutil.rmtree(layout.old_data)
            layout.data.rename(layout.old_data)
        elif layout.data.exists():
            layout.data.rmdir()
        layout.incoming.rename(layout.data)
        sync_directory(layout.root)
        self._mark = None

    @property
    def base(self) -> Position:
        """Where this clone's log begins; ORIGIN for data that were made here."""
        mark = self.mark()
        return Position(Epoch(mark.base_epoch), mark.base_sequence) if mark else ORIGIN

    def forget_pending_gtid(self, base: Position) -> None:
        """The server has taken it, and its log begins after `base`."""
        mark = self.mark()
        if mark is not None and mark.pending_gtid:
            self.note_base(base)

    def note_base(self, base: Position) -> None:
        """The data stand there, and the log begins after it."""
        mark = self.mark()
        if mark is not None:
            new = msgspec.structs.replace(
                mark, pending_gtid="", base_epoch=base.epoch, base_sequence=base.sequence
            )
            replace_durably(self._layout.data / MARK_NAME, msgspec.json.encode(new), mode=0o644)
            self._mark = new

    def restore_old(self) -> None:
        """After a crash between the two renames of `adopt_incoming`: the old data stand again."""
        layout = self._layout
        if layout.old_data.exists() and not layout.data.exists():
            layout.old_data.rename(layout.data)
            sync_directory(layout.root)
            self._mark = None

    @property
    def has_old_data(self) -> bool:
        return self._layout.old_data.exists()

    def forget_old(self) -> None:
        if self._layout.old_data.exists():
            shutil.rmtree(self._layout.old_data)

    def last_words(self) -> str:
        """The errors at the end of the server's own log."""
        try:
            text = self._layout.server_log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return "it wrote no log"
        errors = [line for line in text[-WORDS_MAX * 4 :].splitlines() if "[ERROR]" in line]
        return " / ".join(errors[-3:]) or "its log names no error"

    def _only(self, wanted: ServerState) -> None:
        state, why = self.state()
        if state is ServerState.FOREIGN:
            raise Rejected(why, hint="primacy never touches it. Move it, or name another folder.")
        if state is not wanted:
            raise Conflict(
                f"{self._layout.data} is {state.name}, not {wanted.name}", hint="Observe again."
            )

    def _install(self, incoming: Path, script: Path) -> None:
        user = self.unix_user
        if user is not None:
            self._give(incoming)
        argv = [
            self._settings.programs.install,
            "--no-defaults",
            f"--datadir={incoming}",
            f"--tmpdir={self._layout.temporary}",
            "--auth-root-authentication-method=socket",
            f"--auth-root-socket-user={agent_user()}",
            "--skip-test-db",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=16M",
            f"--extra-file={script}",
        ]
        if user is not None:
            argv.append(f"--user={user}")
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
        except FileNotFoundError as error:
            raise Rejected(
                "mariadb-install-db is not installed", hint="Install mariadb-server."
            ) from error
        except subprocess.TimeoutExpired as error:
            raise Unavailable(
                f"mariadb-install-db took longer than {INSTALL_S:.0f} s", hint="Try again."
            ) from error
        if done.returncode != 0:
            words = (done.stdout + done.stderr)[-WORDS_MAX:].strip()
            raise Rejected(
                f"mariadb-install-db failed with code {done.returncode}: {words}",
                hint=f"May {user or agent_user()} enter and write {incoming}?",
            )

    def _give(self, path: Path) -> None:
        """To the user that the server runs as."""
        if self.unix_user is not None:
            account = pwd.getpwnam(self.unix_user)
            os.chown(path, account.pw_uid, account.pw_gid)

    def _give_all(self, top: Path) -> None:
        if self.unix_user is None:
            return
        account = pwd.getpwnam(self.unix_user)
        os.chown(top, account.pw_uid, account.pw_gid)
        for folder, names, files in os.walk(top):
            for name in (*names, *files):
                os.chown(Path(folder) / name, account.pw_uid, account.pw_gid)


def _free_bytes(place: Path) -> int:
    stat = os.statvfs(place)
    return stat.f_bavail * stat.f_frsize
