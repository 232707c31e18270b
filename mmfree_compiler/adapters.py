"""Adapters: replacements for layers whose forward torch.export cannot trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmfree_compiler import ops

# The eps of FusedBitLinear's Triton kernel: its forward never passes on the 1e-8 of its norm
# object, so the kernel's default applies (numerics 5).
FUSED_EPS = 1e-6
QUANT_EPS = 1e-5


class PlainBitLinear(nn.Module):
    """A fused BitLinear's computation in exportable ops; it shares the layer's tensors."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.weight: Any = layer.weight
        self.bias: Any = getattr(layer, "bias", None)
        self.norm: Any = layer.norm

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> (..., N) fp32: norm, quantize, ternary product (numerics 4 and 5)."""
        w = self.weight.float()
        s = 1 / w.abs().mean().clamp(min=QUANT_EPS)
        ternary = (w * s).round().clamp(-1, 1) / s
        y = ops.OPS["rms_norm"].overload(x, self.norm.weight, FUSED_EPS)
        out: Tensor = ops.OPS["bit_linear"].overload(y, ternary, self.bias, QUANT_EPS)
        return out


def _is_fused_bit_linear(module: nn.Module) -> bool:
    weight, norm = getattr(module, "weight", None), getattr(module, "norm", None)
    scale = getattr(norm, "weight", None)
    return (
        isinstance(weight, Tensor)
        and weight.dim() == 2
        and isinstance(scale, Tensor)
        and scale.shape == weight.shape[1:]
        and getattr(norm, "bias", None) is None
    )


@dataclass(frozen=True)
class Adapter:
    """`replace` turns a module that `matches` into one that can be exported.

    `matches` looks at structure, never at names.
    """

    matches: Callable[[nn.Module], bool]
    replace: Callable[[nn.Module], nn.Module]


ADAPTERS: tuple[Adapter, ...] = (Adapter(_is_fused_bit_linear, PlainBitLinear),)


@contextmanager
def adapted(module: nn.Module) -> Iterator[nn.Module]:
    """Replace each layer of `module` that matches an adapter and cannot be exported.

    The replacements share the layers' tensors. Yields `module` itself, or its replacement if
    `module` is such a layer. The original layers are restored on exit.
    """
    replacements = _replacements(module)
    places = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent._modules.items()  # named_children() skips a layer's second name
        if child in replacements
    ]
    try:
        for parent, name, child in places:
            setattr(parent, name, replacements[child])
        yield replacements.get(module, module)
    finally:
        for parent, name, child in places:
            setattr(parent, name, child)


def _replacements(module: nn.Module) -> dict[nn.Module, nn.Module]:
    """Layer -> its replacement.

    Only one layer of each class is tried: layers of one class all export or all fail.
    """
    found: dict[nn.Module, nn.Module] = {}
    exports: dict[type, bool] = {}
    for part in module.modules():
        adapter = next((adapter for adapter in ADAPTERS if adapter.matches(part)), None)
        if adapter is None:
            continue
        if type(part) not in exports:
            exports[type(part)] = _exports(part)
        if not exports[type(part)]:
            found[part] = adapter.replace(part)
    return found


def _exports(module: nn.Module) -> bool:
    """Whether a layer that an adapter matches can be exported as it is."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    example = torch.zeros(2, 3, weight.shape[1], device=weight.device)
    try:
        torch.export.export(module, (example,), strict=False)
    except Exception:  # a third party's forward may raise anything
        return False
    return True
