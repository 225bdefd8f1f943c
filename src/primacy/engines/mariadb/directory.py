"""MariaDB's data directory: how an empty one is made, and what its mark remembers.

Promises  As `engines/directory.py`: FOREIGN data are never touched, and a new directory becomes
          `data` by a rename, whole or not at all.
"""

import os
import pwd
import subprocess
from pathlib import Path

import msgspec

from primacy.engines.api import ServerState
from primacy.engines.directory import DataDirectory, Mark, new_incarnation
from primacy.engines.mariadb.accounts import agent_user, bootstrap_sql, write_secrets
from primacy.engines.mariadb.config_file import server_config
from primacy.engines.mariadb.settings import MariaDbSettings
from primacy.engines.notes import replace_durably
from primacy.errors import Rejected, Unavailable
from primacy.model import ORIGIN, Epoch, Position

INSTALL_S = 300.0
"""A slow disk and a busy machine; it takes one second on an idle one."""
WORDS_MAX = 2000


class ServerMark(Mark, frozen=True, kw_only=True):
    """What the server itself does not know of its data."""

    pending_gtid: str = ""
    """A clone's position, to be given to the server at its first start."""
    base_epoch: int = 0
    base_sequence: int = 0
    """Where the data of a clone or a rewind stood: the newest epoch in them, and the sequence. The
    log begins there, so the rows of the epochs up to then are in the data and not in the log."""


class Directory(DataDirectory[ServerMark]):
    """The files of one node. The methods block: they belong into a thread."""

    def __init__(self, settings: MariaDbSettings) -> None:
        super().__init__(
            settings.layout,
            cluster=settings.cluster,
            node=settings.node,
            engine="mariadb",
            marks=ServerMark,
        )
        self._settings = settings
        self._files = settings.layout

    @property
    def unix_user(self) -> str | None:
        """Whom the server must be made to run as; None: as the agent."""
        return self._settings.unix_user if os.geteuid() == 0 else None

    def prepare(self) -> None:
        """Folders, secrets and the option file, as this version of primacy wants them."""
        layout = self._files
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
        self.check_is(ServerState.ABSENT)
        self.prepare()
        incoming = self.clear_incoming()
        script = self._files.secrets / "bootstrap.sql"
        sql = bootstrap_sql(self._settings.cluster_secret, self._settings.peers)
        replace_durably(script, sql.encode())
        try:
            self._install(incoming, script)
        finally:
            script.unlink()
        self.adopt_incoming()

    def adopt_incoming(self, *, pending_gtid: str = "") -> None:
        """`incoming` becomes `data` with a new incarnation; what was there goes aside."""
        mark = ServerMark(
            cluster=self._settings.cluster,
            node=self._settings.node,
            incarnation=new_incarnation(),
            pending_gtid=pending_gtid,
        )
        self.adopt(mark)

    def hand_over(self, incoming: Path) -> None:
        if self.unix_user is None:
            return
        account = pwd.getpwnam(self.unix_user)
        os.chown(incoming, account.pw_uid, account.pw_gid)
        for folder, names, files in os.walk(incoming):
            for name in (*names, *files):
                os.chown(Path(folder) / name, account.pw_uid, account.pw_gid)

    @property
    def base(self) -> Position:
        """Where this clone's log begins; ORIGIN for data that were made here."""
        mark = self.mark()
        return Position(Epoch(mark.base_epoch), mark.base_sequence) if mark else ORIGIN

    @property
    def is_clone_pending(self) -> bool:
        """These data are a clone's, and no server knows yet at which transaction they stand."""
        mark = self.mark()
        return mark is not None and bool(mark.pending_gtid)

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
            self.replace_mark(new)

    def last_words(self) -> str:
        """The errors at the end of the server's own log."""
        try:
            text = self._files.server_log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return "it wrote no log"
        errors = [line for line in text[-WORDS_MAX * 4 :].splitlines() if "[ERROR]" in line]
        return " / ".join(errors[-3:]) or "its log names no error"

    def _install(self, incoming: Path, script: Path) -> None:
        user = self.unix_user
        if user is not None:
            self._give(incoming)
        argv = [
            self._settings.programs.install,
            "--no-defaults",
            f"--datadir={incoming}",
            f"--tmpdir={self._files.temporary}",
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
