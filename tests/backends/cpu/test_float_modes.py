"""A program that flushes denormals gets the bits of one that does not, from every thread."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from op_modules import runnable_variants
from safetensors.torch import load_file, save_file
from special_values import FINITE, Pointwise, assert_same_bits
from torch import Tensor

import mmfree_compiler as mmf

WIDTH = 23
RUNNABLE = runnable_variants()
HANG = 120  # seconds after which the child counts as hung

# ARTIFACT INPUTS OUTPUTS: calls by the main thread and by another one, on one thread and on two.
PROGRAM = """
import sys, threading
import torch
from safetensors.torch import load_file, save_file
import amx_emulation
import mmfree_compiler as mmf

def flushes():
    return bool(torch.tensor(1e-40) * 1 == 0)

def call(caller):
    assert not flushes() and torch.set_flush_denormal(True) and flushes()
    for threads in (1, 2):
        for k, y in enumerate(mmf.load(artifact, threads)(x["x"], x["y"])):
            made[f"{caller} {threads} {k}"] = y.contiguous()
        assert flushes()

amx_emulation.emulate_amx()
_, artifact, inputs, outputs = sys.argv
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


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("floats") / "pointwise.mmfree"
    example = torch.ones(3, WIDTH)
    target = f"cpu:{','.join(RUNNABLE)}"
    mmf.compile(Pointwise(), target, example_inputs=(example, example)).save(path)
    return path


@pytest.mark.parametrize("variant", RUNNABLE)
def test_denormals_are_kept(
    artifact: Path, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMFREE_VARIANT", variant)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # of amx_emulation
    inputs, outputs = tmp_path / "inputs", tmp_path / "outputs"
    x, y = small_pairs()
    save_file({"x": x, "y": y}, inputs)
    arguments = [sys.executable, "-c", PROGRAM, str(artifact), str(inputs), str(outputs)]
    child = subprocess.run(arguments, capture_output=True, text=True, timeout=HANG, check=False)
    assert child.returncode == 0, child.stderr
    made = load_file(outputs)
    expected = Pointwise()(x, y)
    for caller in ("main", "other"):
        for threads in (1, 2):
            for k, (name, b) in enumerate(zip(Pointwise.names, expected, strict=True)):
                assert_same_bits(made[f"{caller} {threads} {k}"], b, f"{name} of {caller}", x, y)
