"""The system's own programs, as the demo runs them: ip, nft, mount, umount."""

import subprocess
from collections.abc import Sequence

from primacy.errors import Unavailable

SEARCH_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
WITHIN_S = 20.0


def run(argv: Sequence[str], *, given: str = "") -> str:
    """What it printed; `given` is its input. Blocks. `Unavailable` with its own words."""
    try:
        done = tried(argv, given=given)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{' '.join(argv)}: no end in {WITHIN_S:.0f} s", hint="Retry.") from error
    if done.returncode != 0:
        raise Unavailable(
            f"{' '.join(argv)}: {done.stderr.strip()}",
            hint="Run it by hand: the system refuses it. It needs root.",
        )
    return done.stdout


def tried(argv: Sequence[str], *, given: str = "") -> "subprocess.CompletedProcess[str]":
    """Whatever came of it."""
    return subprocess.run(
        argv,
        input=given,
        env={"PATH": SEARCH_PATH},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
