"""Whether the CUDA target works on this machine's GPU: `python -m benchmarks.gpu_check`.

It runs the tests that are skipped without a GPU: the driver, the device library compiled, whole
models against the reference, bit by bit, tensors of torch, the times of kernels. Arguments go to
pytest, such as `-k times_of_the_demo -s`, which shows them, and it ends with the status of that.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.processes import ROOT

TESTS = ("tests/backends/cuda", "tests/conformance")


def main() -> int:
    command = [sys.executable, "-m", "pytest", "-rs", "-m", "gpu", *TESTS, *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
