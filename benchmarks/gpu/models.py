"""Artifacts of the published shapes with random weights, made without a checkpoint.

A module whose weights are all one number is compiled, unchecked, and what it has for weights is
then replaced by random ones. The compiled file without them is small (gzip): `python -m
benchmarks.gpu.models FOLDER --target cuda:sm_90` makes it on a machine with the compiler, for one
that has only a GPU.
"""

from __future__ import annotations

import gzip
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks import command
from benchmarks.shapes import Shape
from mmfree_compiler import backends
from mmfree_compiler.artifact import WEIGHTS, Artifact, TensorEntry, read_artifact
from mmfree_compiler.backends.cpu.layouts import LAYOUTS
from mmfree_compiler.backends.cuda.layouts import QUARTERS
from mmfree_compiler.target import Target

_PACK = {QUARTERS.name: QUARTERS.pack} | {name: layout.pack for name, layout in LAYOUTS.items()}


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write SHAPE-KIND.mmfree.gz.")],
    shapes: Annotated[str, typer.Option(help="Some of 370M, 1.3B, 2.7B.")] = "370M,1.3B,2.7B",
    target: Annotated[str, typer.Option(help="A target, such as cuda:sm_90.")] = "cuda:sm_90",
) -> None:
    """Compile without weights, for `python -m benchmarks.gpu --compiled FOLDER` elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    for shape in map(Shape.of, shapes.split(",")):
        path = blank_path(shape, target.partition(":")[0], folder)
        seconds = compile_blank(shape, target, path)
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {seconds:.0f} s")


def blank_path(shape: Shape, kind: str, folder: Path) -> Path:
    """The file of a shape without weights."""
    return folder / f"{shape.name}-{kind}.mmfree.gz"


def artifact_path(shape: Shape, kind: str, folder: Path) -> Path:
    """The compiled model that is measured."""
    return folder / f"{shape.name}-{kind}.mmfree"


def prepare(shape: Shape, kind: str, folder: Path, compiled: Path | None) -> dict[str, float]:
    """Write `artifact_path`; returns seconds by stage.

    It is made from a file of `main` in the folder `compiled`, if given, or compiled for this
    machine.
    """
    seconds = {}
    blank = blank_path(shape, kind, compiled or folder)
    if compiled is None:
        target = Target(kind, str(backends.get(kind).here()))
        seconds["compile"] = compile_blank(shape, target, blank)
    started = time.perf_counter()
    fill(blank, artifact_path(shape, kind, folder))
    return seconds | {"weights": time.perf_counter() - started}


def compile_blank(shape: Shape, target: str | Target, path: Path) -> float:
    """Compile a shape, and write the file without weights; returns seconds."""
    import mmfree_compiler as mmf

    started = time.perf_counter()
    write_blank(mmf.compile(uniform(shape.name), target, check=False).artifact, path)
    return time.perf_counter() - started


def write_blank(artifact: Artifact, path: Path) -> None:
    """Write an artifact with zeros in place of its matrices."""
    plain, weights = path.with_suffix(""), artifact.members[WEIGHTS].copy()
    for entry in _drawn(artifact):
        weights[entry.offset : entry.offset + entry.nbytes] = 0
    artifact.rebuilt({WEIGHTS: weights}).save(plain)
    with plain.open("rb") as source, gzip.open(path, "wb", compresslevel=1) as file:
        shutil.copyfileobj(source, file)
    plain.unlink()


def uniform(name: str) -> Any:
    """A MatMulFreeLM in which every matrix is one number that takes no memory."""
    import torch
    from torch import nn

    from mmfree_compiler.models import MatMulFreeLM
    from mmfree_compiler.models.config import SHAPES

    with torch.device("meta"):
        model = MatMulFreeLM(SHAPES[name])
    for path, parameter in list(model.named_parameters()):
        value = 1.0 if parameter.dim() == 1 else 0.02
        same = torch.full((), value, dtype=torch.bfloat16).expand(parameter.shape)
        owner, _, field = path.rpartition(".")
        setattr(model.get_submodule(owner), field, nn.Parameter(same, requires_grad=False))
    return model.eval()


def fill(blank: Path, path: Path) -> None:
    """Write the model of a file without weights with random ones."""
    plain = path.with_suffix(".blank")
    with gzip.open(blank) as source, plain.open("wb") as file:
        shutil.copyfileobj(source, file)
    artifact = read_artifact(plain)
    weights = artifact.members[WEIGHTS].copy()
    made: dict[tuple[str, tuple[int, ...]], NDArray[np.uint8]] = {}
    for entry in _drawn(artifact):
        key = entry.layout, entry.shape
        if key not in made:
            made[key] = _random(entry)
        parts = weights[entry.offset : entry.offset + entry.nbytes].reshape(entry.count, -1)
        parts[:] = made[key]
    artifact.rebuilt({WEIGHTS: weights}).save(path)
    plain.unlink()


def _drawn(artifact: Artifact) -> Iterator[TensorEntry]:
    """The constants that take nearly all of the memory."""
    entries = artifact.entry.tensors.values()
    return (entry for entry in entries if entry.role in ("ternary", "table"))


def _random(entry: TensorEntry) -> NDArray[np.uint8]:
    """The bytes of one part of a constant."""
    random = np.random.default_rng(0)
    if entry.role == "ternary":
        codes = random.integers(-1, 2, entry.shape, np.int8)
        return _PACK[entry.layout](codes).reshape(-1)
    assert entry.dtype == "bfloat16"  # that of _uniform: the upper half of a float32
    values = random.standard_normal(entry.shape, np.float32)
    upper: NDArray[np.uint16] = (values.view(np.uint32) >> 16).astype(np.uint16)
    return upper.view(np.uint8).reshape(-1)


if __name__ == "__main__":
    command.run(main)
