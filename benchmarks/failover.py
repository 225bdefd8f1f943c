"""Write outage per fault on real servers: median, p90, worst, and where the time went.

    .venv/bin/python benchmarks/failover.py --rounds 10 [--engine sqlite] [--profile fast] [--json]

Runs `primacy demo` and reads its account. The floor of the same run is what the engine itself
needed: the seconds of promotion and opening on the winner. The machine's load is printed, since on
a busy machine the scheduler decides.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def account(results: list[dict[str, object]], fault: str) -> dict[str, object]:
    """One fault's figures over all rounds."""
    of_fault = [each for each in results if each["fault"] == fault]
    outages = [float(str(each["outage_s"])) for each in of_fault]
    steps: dict[str, list[float]] = {}
    for each in of_fault:
        told = each["steps"]
        if isinstance(told, dict):
            for step, taken_s in told.items():
                steps.setdefault(step, []).append(float(taken_s))
    floor_s = sum(statistics.median(steps.get(step, [0.0])) for step in ("promotion", "opening"))
    median_s = statistics.median(outages)
    return {
        "fault": fault,
        "rounds": len(outages),
        "median_s": round(median_s, 3),
        "p90_s": round(percentile(outages, 0.9), 3),
        "worst_s": round(max(outages), 3),
        "lost": sum(int(str(each["lost"])) for each in of_fault),
        "late": sum(int(str(each["late"])) for each in of_fault),
        "healthy": all(each["healthy"] for each in of_fault),
        "steps_s": {step: round(statistics.median(taken), 3) for step, taken in steps.items()},
        "ratio_to_engine_floor": round(median_s / floor_s, 1) if floor_s else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--profile", default="default", choices=("default", "fast"))
    parser.add_argument("--engine", default="sqlite", choices=("sqlite", "mariadb"))
    parser.add_argument("--fault", default="all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    command = [sys.executable, "-m", "primacy.cli.main", "demo", "--json"]
    command += ["--rounds", str(options.rounds), "--profile", options.profile]
    command += ["--fault", options.fault, "--engine", options.engine]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout.strip():
        sys.stderr.write("the demo gave no account; its timeline is above\n")
        return 1
    told = json.loads(done.stdout)
    faults = list(dict.fromkeys(each["fault"] for each in told["results"]))
    rows = [account(told["results"], fault) for fault in faults]
    load = [round(each, 2) for each in os.getloadavg()]
    if options.json:
        print(
            json.dumps(
                {
                    "engine": options.engine,
                    "profile": options.profile,
                    "load": load,
                    "rows": rows,
                    "ok": told["ok"],
                }
            )
        )
    else:
        print(f"{options.engine}, profile {options.profile}, load {load}, ok {told['ok']}")
        for row in rows:
            print(" ".join(f"{key}={value}" for key, value in row.items()))
    return 0 if told["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
