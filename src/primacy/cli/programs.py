"""What a program of this host says of itself, for a report."""

import shutil
import subprocess

from primacy.engines.process import SEARCH_PATH

PROGRAM_WITHIN_S = 10.0
OUTPUT_BYTES_MAX = 1 << 19


def said_by(program: str, *arguments: str) -> str:
    """A program's output, or why there is none."""
    found = shutil.which(program, path=SEARCH_PATH)
    if found is None:
        return f"{program} is not installed\n"
    try:
        done = subprocess.run(
            [found, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROGRAM_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program}: {error}\n"
    return (done.stdout + done.stderr)[-OUTPUT_BYTES_MAX:].decode(errors="replace")
