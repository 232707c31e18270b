"""A program that flushes denormals gets the bits of one that does not, from every thread."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

import torch
from op_modules import distinct, runnable_variants
from safetensors.torch import load_file, save_file
from special_values import FINITE, Pointwise, assert_same_bits
from torch import Tensor

import mmfree_compiler as mmf

WIDTH = 37  # as in test_cpu_special_values.py, which compiles the same kernels
VARIANTS = distinct(runnable_variants())
HANG = 120  # seconds after which the child counts as hung

# ARTIFACT INPUTS OUTPUTS VARIANTS: calls by the main thread and by another one, on one thread and
# on two.
PROGRAM = """
import os, sys, threading
import torch
from safetensors.torch import load_file, save_file
import mmfree_compiler as mmf

def flushes():
    return bool(torch.tensor(1e-40) * 1 == 0)

def call(caller):
    assert not flushes() and torch.set_flush_denormal(True) and flushes()
    for variant in variants:
        os.environ["MMFREE_VARIANT"] = variant
        for threads in (1, 2):
            for k, y in enumerate(mmf.load(artifact, threads)(x["x"], x["y"])):
                made[f"{variant} {caller} {threads} {k}"] = y.contiguous()
            assert flushes()

_, artifact, inputs, outputs, *variants = sys.argv
x, made = load_file(inputs), {}
other = threading.Thread(target=call, args=("other",))
other.start()
other.join()
call("main")
torch.set_flush_denormal(False)
save_file(made, outputs)
"""


def small_pairs() -> tuple[Tensor, Tensor]:
    """Pairs of finite values and of denormals of every size: the ops read and make denormals."""
    denormals = 2.0 ** torch.arange(-149, -125)
    values = torch.cat([FINITE, denormals, -denormals])
    x, y = torch.cartesian_prod(values, values).T
    count = len(x) // WIDTH * WIDTH
    return x[:count].view(-1, WIDTH).clone(), y[:count].view(-1, WIDTH).clone()


def test_denormals_are_kept(tmp_path: Path) -> None:
    path, inputs, outputs = (tmp_path / name for name in ("pointwise.mmfree", "inputs", "outputs"))
    x, y = small_pairs()
    save_file({"x": x, "y": y}, inputs)
    target = f"cpu:{','.join(VARIANTS)}"
    mmf.compile(Pointwise(), target, example_inputs=(x[:4], y[:4])).save(path)
    arguments = [sys.executable, "-c", PROGRAM, *map(str, (path, inputs, outputs)), *VARIANTS]
    child = subprocess.run(arguments, capture_output=True, text=True, timeout=HANG, check=False)
    assert child.returncode == 0, child.stderr
    made = load_file(outputs)
    expected = dict(zip(Pointwise.names, Pointwise()(x, y), strict=True))
    for variant, caller, threads in product(VARIANTS, ("main", "other"), (1, 2)):
        for k, (name, b) in enumerate(expected.items()):
            found = made[f"{variant} {caller} {threads} {k}"]
            assert_same_bits(found, b, f"{name} of {caller} on {variant}", x, y)
