"""How long the main job takes here: the whole run, the same command again, and --help.

    .venv/bin/python tests/bench/bench_run_all.py [REPEATS]

Prints the median and the range of whole processes. Run it on an idle machine; it passes and fails
nothing.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

COMMAND = [sys.executable, "-m", "branchdiag"]


def seconds(arguments: list[str], cwd: str) -> float:
    """Wall-clock seconds of one call, from start to exit."""
    began = time.perf_counter()
    subprocess.run([*COMMAND, *arguments], cwd=cwd, check=True, capture_output=True)
    return time.perf_counter() - began


def show(name: str, values: list[float]) -> None:
    """One line: median (least to most)."""
    middle, least, most = statistics.median(values), min(values), max(values)
    print(f"{name:<24} {middle:6.2f} s  ({least:.2f} to {most:.2f})")


def main() -> None:
    """Measure each command `REPEATS` times."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    whole, again, usage = [], [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cwd:
            whole.append(seconds(["run-all", "--progress=none"], cwd))
            again.append(seconds(["run-all", "--progress=none"], cwd))
            usage.append(seconds(["--help"], cwd))
    show("run-all, bundled model", whole)
    show("the same again", again)
    show("--help", usage)


if __name__ == "__main__":
    main()
