"""Whatever the OpenAPI document allows or forbids is sent, and no answer is a surprise."""

import subprocess
import sys
from pathlib import Path

from tests.integration.web.conftest import TOKEN, serving
from tests.integration.web.obeying import cluster_that_obeys

SETTINGS = Path(__file__).with_name("schemathesis.toml")
COMMAND = "from schemathesis.cli import schemathesis; schemathesis()"


def surprises(url: str, *, token: str, phases: str, examples: int, folder: Path) -> str:
    """What schemathesis has to say; empty where all is well. It stops at nothing, and keeps what it
    remembers in `folder`."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            COMMAND,
            f"--config-file={SETTINGS}",
            "run",
            f"{url}/openapi.json",
            "--checks=all",
            f"--phases={phases}",
            f"--max-examples={examples}",
            f"--header=Authorization: Bearer {token}",
            "--continue-on-failure",
            "--seed=1",
            "--no-color",
        ],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=folder,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_api_answers_as_its_document_says(tmp_path: Path) -> None:
    with serving(tmp_path, token=TOKEN) as served, cluster_that_obeys(served.store):
        said = surprises(
            served.url,
            token=TOKEN,
            phases="examples,coverage,fuzzing",
            examples=10,
            folder=tmp_path,
        )
        assert not said, said
        assert "api-failed" not in served.names()
