"""Adapters: replacements for layers whose forward torch.export cannot trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmfree_compiler import ops
from mmfree_compiler.modes import evaluating

# The eps of FusedBitLinear's Triton kernel: its forward never passes on the 1e-8 of its norm
# object, so the kernel's default applies (numerics 5).
FUSED_EPS = 1e-6
QUANT_EPS = 1e-5
_ROUNDING, _ONE_CODE = 1e-4, 5e-2  # in parts of a row's norm


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


# Whose forward, a Triton kernel, is known to compute this: the reference's and its successor's.
_FUSED = {
    ("mmfreelm.ops.fusedbitnet", "FusedBitLinear"),
    ("fla.modules.fused_bitlinear", "FusedBitLinear"),
}


def _is_known(module: nn.Module) -> bool:
    """Whether the forward is that of a published class, not one of a class derived from it."""
    kind = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    return (kind.__module__, kind.__qualname__) in _FUSED and "forward" not in vars(module)


@dataclass(frozen=True)
class Adapter:
    """`replace` turns a module that `matches` into one that can be exported.

    `matches` looks at structure, which proves nothing: what the replacement computes is compared
    with the module, or, where that does not run on this machine, it must be `known`.
    """

    matches: Callable[[nn.Module], bool]
    replace: Callable[[nn.Module], nn.Module]
    known: Callable[[nn.Module], bool]


ADAPTERS: tuple[Adapter, ...] = (Adapter(_is_fused_bit_linear, PlainBitLinear, _is_known),)


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
    """Layer -> its replacement, where that is proven to compute the same.

    Only one layer of each class is exported: layers of one class all export or all fail.
    """
    found: dict[nn.Module, nn.Module] = {}
    exports: dict[type, bool] = {}
    for part in module.modules():
        adapter = next((adapter for adapter in ADAPTERS if adapter.matches(part)), None)
        if adapter is None:
            continue
        if type(part) not in exports:
            exports[type(part)] = _exports(part)
        replacement = adapter.replace(part)
        if not exports[type(part)] and _is_proven(adapter, part, replacement):
            found[part] = replacement
    return found


def _is_proven(adapter: Adapter, part: nn.Module, replacement: nn.Module) -> bool:
    """Whether the replacement computes what the layer does."""
    weight = part.weight
    assert isinstance(weight, Tensor)
    probes = _probes(weight)
    try:
        with evaluating(part), torch.no_grad():
            return all(_agree(part(x), replacement(x)) for x in probes)
    except Exception:  # a third party's kernel does not run on this machine
        return adapter.known(part)


def _probes(weight: Tensor) -> list[Tensor]:
    """Rows of many magnitudes, in several shapes: an eps shows in small ones."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 3, weight.shape[1], generator=random)
    scaled = [rows * scale for scale in (1.0, 1e-4, 1e-2, 1e2, 1e4)]
    return [x.to(weight.device) for x in (*scaled, -rows[:1, :1], rows[0] * 1e-3, rows * 0)]


def _agree(found: object, expected: Tensor) -> bool:
    """Whether rows are equal but for rounding; a code of 127 may differ in less than half."""
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    error = (found.double() - expected.double()).norm(dim=-1)
    error = error / expected.double().norm(dim=-1).clamp(min=1e-30)
    return bool(error.median() <= _ROUNDING and error.max() <= _ONE_CODE)


def _exports(module: nn.Module) -> bool:
    """Whether a layer that an adapter matches can be exported as it is."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    example = torch.zeros(2, 3, weight.shape[1], device=weight.device)
    try:
        with evaluating(module):
            torch.export.export(module, (example,), strict=False)
    except Exception:  # a third party's forward may raise anything
        return False
    return True
