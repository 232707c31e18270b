"""Comparing the outputs of two runs, token by token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmfree_compiler.checking.cases import Case

# Of the largest value of the module's row: far above what fp32 sums in another order differ by,
# far below what one other activation code or weight changes.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Difference:
    """Where the outputs of a case differ first, and how."""

    output: int
    where: str
    how: str

    def __str__(self) -> str:
        return f"output {self.output} differs from the module's {self.how}, for {self.where}"


def difference(case: Case, found: list[Tensor], expected: list[Tensor]) -> Difference | None:
    """The first difference of a case's outputs (..., width), or None if they are equal."""
    if len(found) != len(expected):
        how = f"in number: {len(found)} outputs instead of {len(expected)}"
        return Difference(min(len(found), len(expected)), case.token(0), how)
    for k, (new, old) in enumerate(zip(found, expected, strict=True)):
        if new.shape != old.shape:
            how = f"in shape: {tuple(new.shape)} instead of {tuple(old.shape)}"
            return Difference(k, case.token(0), how)
        errors = _errors(new, old)
        token = int(errors.argmax()) if errors.numel() else 0
        if errors.numel() and errors[token] > TOLERANCE:
            how = f"by {errors[token]:.2g} of the largest value of its row"
            return Difference(k, case.token(token), how)
    return None


def largest(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of outputs of equal shapes, in parts of the largest value of a row."""
    errors = (_errors(new, old) for new, old in zip(found, expected, strict=True))
    return max((float(each.max()) for each in errors if each.numel()), default=0.0)


def _errors(new: Tensor, old: Tensor) -> Tensor:
    """Each row's largest difference in parts of its largest value; infinite for other NaNs."""
    width = old.shape[-1] if old.dim() else 1
    wide = torch.complex128 if new.is_complex() or old.is_complex() else torch.double
    new, old = (x.to(wide).reshape(-1, max(width, 1)) for x in (new, old))
    equal = (new == old) | (new.isnan() & old.isnan())
    size = torch.where(old.isfinite(), old.abs(), 0.0).amax(-1, keepdim=True)
    parts = (new - old).abs() / size
    return torch.where(equal, 0.0, torch.where(parts.isnan(), torch.inf, parts)).amax(-1)
