"""A graph of which parts are compiled, and the inputs that it computes the module's results for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from mmfree_compiler.notes import Note


@dataclass(frozen=True)
class Example:
    """An input of a trace: its dtype, device and layout, and its sizes; a name is any size."""

    kind: tuple[torch.dtype, torch.device, torch.layout]
    sizes: tuple[int | str, ...]

    @classmethod
    def of(cls, x: Tensor) -> Example:
        """`x` may be a fake tensor with symbolic sizes."""
        sizes = tuple(size if type(size) is int else str(size) for size in x.shape)
        return cls((x.dtype, x.device, x.layout), sizes)

    def fits(self, x: Any, sizes: dict[str, int]) -> bool:
        """Whether `x` is such an input; `sizes` are those that names stand for, and get new ones.

        Nothing is known about sizes of 0, nor about those that are expressions of others.
        """
        return (
            type(x) in (Tensor, nn.Parameter)
            and (x.dtype, x.device, x.layout) == self.kind
            and x.dim() == len(self.sizes)
            and x.numel() > 0
            and all(
                size == (name if isinstance(name, int) else sizes.setdefault(name, size))
                and (isinstance(name, int) or name.isidentifier())
                for name, size in zip(self.sizes, x.shape, strict=True)
            )
        )


@dataclass(frozen=True, eq=False)
class Parted:
    """A graph whose parts are compiled; `eager` names the operations that run in torch."""

    graph: fx.GraphModule
    examples: tuple[Example, ...]
    eager: tuple[str, ...]
    notes: tuple[Note, ...]

    def __call__(self, *inputs: Tensor) -> Any:
        with torch.no_grad():
            return self.graph(*inputs)

    def takes(self, inputs: tuple[Any, ...]) -> bool:
        """Whether the graph computes what the module does for `inputs`: they are like the examples.

        Only leading dimensions may differ, and those that had one size have one size.
        """
        sizes: dict[str, int] = {}
        return len(inputs) == len(self.examples) and all(
            example.fits(x, sizes) for x, example in zip(inputs, self.examples, strict=True)
        )
