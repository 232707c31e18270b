"""Whether the CUDA target works on this machine's GPU: `python -m benchmarks.gpu_check`.

It runs the tests that are skipped without a GPU: the driver, the device library compiled, and whole
models against the reference, bit by bit. It ends with the status of pytest. Tests that interpret
whole models are left out: they say nothing of the GPU.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.processes import ROOT

TESTS = ("tests/backends/cuda", "tests/conformance/test_model_bits.py")


def main() -> int:
    chosen = "(cuda or reference) and not language_model"
    command = [sys.executable, "-m", "pytest", "-rs", *TESTS, "-k", chosen]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
