"""How long ``import tinygrad_rnn`` takes beside ``import numpy``.

Run it by hand: ``python tests/benchmarks/bench_import.py [rounds]``. Both are imported in fresh interpreters, in turn, with their
bytecode cached; the least time of each counts, measured inside the interpreter around the import statement.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

PROGRAM = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def main(rounds: int = 20) -> float:
    """Print both times and their ratio; return the ratio."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def seconds(module: str) -> float:
            command = [sys.executable, "-c", PROGRAM.format(module)]
            return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)

        seconds("tinygrad_rnn")  # compiles
        pairs = [(seconds("numpy"), seconds("tinygrad_rnn")) for _ in range(rounds)]
    numpy, ours = (min(times) for times in zip(*pairs, strict=True))
    print(f"import numpy {numpy * 1e3:.1f} ms, import tinygrad_rnn {ours * 1e3:.1f} ms, ratio {ours / numpy:.2f}")
    return ours / numpy


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
