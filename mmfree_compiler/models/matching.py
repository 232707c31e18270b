"""Matching the tensors that a checkpoint stores with those of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.notes import Note
from mmfree_compiler.parallel import each
from mmfree_compiler.wording import few

HEAD, EMBEDDING = "lm_head.weight", "model.embeddings.weight"
HEAD_NORM = "lm_head.norm.weight"  # every checkpoint has it, also one whose head is tied
# The dtypes that weights may have, as config.json calls them.
FLOATS: dict[torch.dtype, str] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}
T = TypeVar("T")


class Described(Protocol):
    """What is known of a tensor before its values are read."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...


def without_prefix(stored: dict[str, T]) -> tuple[dict[str, T], tuple[Note, ...]]:
    """The tensors by their own names: wrappers such as DataParallel put `module.` before all."""
    ends = [name for name in stored if name.endswith(HEAD_NORM)]
    prefix = ends[0].removesuffix(HEAD_NORM) if ends else ""
    if not prefix or not all(name.startswith(prefix) for name in stored):
        return stored, ()
    note = Note("load", "tensors", f"all names begin with {few([prefix])}, which is left out")
    return {name.removeprefix(prefix): tensor for name, tensor in stored.items()}, (note,)


def check_tensors(
    folder: Path, expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, Described]
) -> None:
    """Raise CheckpointError unless `stored` are the tensors that the model expects."""
    problems = list(_problems(expected, stored))
    if problems:
        hint = "Check that config.json belongs to these weights"
        if HEAD not in stored and EMBEDDING in stored and HEAD in expected:
            hint += ": without a head, it says tie_word_embeddings"
        raise CheckpointError(str(folder), "; ".join(problems), hint)


def _problems(
    expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, Described]
) -> Iterator[str]:
    if missing := [name for name in expected if name not in stored]:
        yield f"missing {few(missing)}"
    if unexpected := [name for name in stored if name not in expected]:
        yield f"unexpected {few(unexpected)}"
    common = {name: stored[name] for name in expected if name in stored}
    shapes = [
        f"{name} is {tuple(tensor.shape)}, not {expected[name]}"
        for name, tensor in common.items()
        if tensor.shape != expected[name]
    ]
    if shapes:
        yield few(shapes)
    dtypes = [f"{name} is {x.dtype}" for name, x in common.items() if x.dtype not in FLOATS]
    if dtypes:
        yield f"{few(dtypes)}, not one of {', '.join(FLOATS.values())}"


def check_finite(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError if a tensor has NaN or infinite values."""
    finite = each(_is_finite, [tensor.detach() for tensor in tensors.values()])
    wrong = [name for name, is_finite in zip(tensors, finite, strict=True) if not is_finite]
    if wrong:
        cause = f"NaN or infinite values in {few(wrong)}"
        raise CheckpointError(str(folder), cause, "Fetch the checkpoint again")


def _is_finite(tensor: Tensor) -> bool:
    """By the minimum and maximum, which show any NaN or infinity and need no temporary."""
    low, high = tensor.aminmax()
    return bool(low.isfinite() and high.isfinite())


def check_tied_head(folder: Path, head: Tensor, embedding: Tensor) -> Note:
    """A note that the stored head is the embedding. Raises CheckpointError if it is another."""
    same = head.dtype in FLOATS and head.shape == embedding.shape
    if not same or not torch.equal(head.float(), embedding.float()):
        cause = f"{HEAD} differs from {EMBEDDING}, but config.json ties them"
        hint = "Set tie_word_embeddings to false in config.json if the head is a weight of its own"
        raise CheckpointError(str(folder), cause, hint)
    return Note("load", HEAD, f"left out: it equals {EMBEDDING}, to which it is tied")
