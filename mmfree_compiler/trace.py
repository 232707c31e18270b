"""From any nn.Module to a functional ATen graph that shares the module's parameters."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from mmfree_compiler import ops, repeats
from mmfree_compiler.errors import InputError, TraceError
from mmfree_compiler.inplace import functional, writes_through
from mmfree_compiler.interrupts import uninterrupted

# --- adapters: layers whose forward cannot be exported ------------------------------------------

# The eps of FusedBitLinear's Triton kernel: its forward never passes the 1e-8 of its norm object,
# so the kernel's default holds (numerics 5).
FUSED_EPS = 1e-6
QUANT_EPS = 1e-5


class PlainBitLinear(nn.Module):
    """What a fused BitLinear computes, in ops that can be exported; shares the layer's tensors."""

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
    """`replace` makes an exportable module of one that `matches`, by structure, never by name."""

    matches: Callable[[nn.Module], bool]
    replace: Callable[[nn.Module], nn.Module]


ADAPTERS: tuple[Adapter, ...] = (Adapter(_is_fused_bit_linear, PlainBitLinear),)


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


@contextmanager
def _adapted(module: nn.Module) -> Iterator[nn.Module]:
    """`module` with every layer replaced that needs an adapter, put back on leaving.

    One layer of each class is tried: layers of a class export or fail alike.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    exports: dict[type, bool] = {}

    def adapt(child: nn.Module) -> nn.Module | None:
        for adapter in ADAPTERS:
            if adapter.matches(child):
                if type(child) not in exports:
                    exports[type(child)] = _exports(child)
                return None if exports[type(child)] else adapter.replace(child)
        return None

    try:
        for parent in list(module.modules()):
            for name, child in list(parent.named_children()):
                plain = adapt(child)
                if plain is not None:
                    replaced.append((parent, name, child))
                    setattr(parent, name, plain)
        yield adapt(module) or module
    finally:
        for parent, name, child in replaced:
            setattr(parent, name, child)


# --- export -------------------------------------------------------------------------------------


def trace(
    module: nn.Module, example_inputs: tuple[Tensor, ...], dynamic: bool = True
) -> GraphModule:
    """Trace `module` in inference mode into a functional graph of ATen and mmfree ops.

    `example_inputs` are positional: float tensors (..., width), integer tensors (...). With
    `dynamic`, all leading dimensions are free. Parameters and buffers are `get_attr` nodes that
    share the module's storage; every node keeps `val` (a fake tensor) and its stack trace.

    Raises TraceError when torch.export cannot take the module or fixes a leading dimension, and
    InputError when an example is no tensor.
    """
    for k, example in enumerate(example_inputs):
        if not isinstance(example, Tensor):
            raise InputError(f"example input {k}", f"a {type(example).__name__}, not a tensor")
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        inputs = tuple(_grown(x) for x in example_inputs) if dynamic else example_inputs
        # Without gradients nothing is recorded for a backward pass: a third less time. And torch
        # has Python called back where a Ctrl-C is printed and forgotten: it is held back.
        with torch.no_grad(), uninterrupted():
            shared = _trace_shared(module, inputs, dynamic)
            return shared or functional(_export(module, inputs, dynamic))
    finally:
        for part, training in modes.items():
            part.training = training


def _trace_shared(
    module: nn.Module, inputs: tuple[Tensor, ...], dynamic: bool
) -> GraphModule | None:
    """The graph by way of `repeats`; None where nothing repeats or copies might not be exact."""
    try:
        with repeats.shared(module) as sharing:
            if not sharing.signatures:
                return None
            program = _export_once(module, inputs, dynamic)
        if dynamic:
            _check_free(module, program)
        if writes_through(program):  # perhaps from one module into another's values
            return None
        return repeats.inline(functional(program), sharing)
    except Exception:  # whatever it is, tracing without sharing shows it as the user knows it
        return None


def _export(module: nn.Module, inputs: tuple[Tensor, ...], dynamic: bool) -> ExportedProgram:
    try:
        program = _export_once(module, inputs, dynamic)
    except Exception:  # export raises anything, also what a layer's own code raises under it
        try:
            with _adapted(module) as adapted:
                program = _export_once(adapted, inputs, dynamic)
        except Exception as error:
            raise TraceError(
                type(module).__name__,
                f"torch.export failed: {_first_lines(error)}",
                "Write its forward in torch ops without branches on values, keep recurrences in "
                "torch.ops.mmfree.mlgru_scan, or add an adapter to trace.ADAPTERS",
            ) from error
    if dynamic:
        _check_free(module, program)
    return program


def _export_once(module: nn.Module, inputs: tuple[Tensor, ...], dynamic: bool) -> ExportedProgram:
    bound = inspect.signature(module.forward).bind(*inputs).arguments
    hints = pytree.tree_map(_free_leading, dict(bound)) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, inputs, dynamic_shapes=hints, strict=False)


def _leading(x: Tensor) -> int:
    """Number of leading dimensions: rows of floats have a width, token ids have none."""
    return x.dim() - x.is_floating_point()


def _grown(x: Tensor) -> Tensor:
    """`x` with leading dimensions of 1 doubled: torch.export would fix a size of 1."""
    repeats = [2 if k < _leading(x) and size == 1 else 1 for k, size in enumerate(x.shape)]
    return x.repeat(repeats)


def _free_leading(x: Tensor) -> tuple[Any, ...]:
    return tuple(Dim.AUTO if k < _leading(x) else Dim.STATIC for k in range(x.dim()))


def _check_free(module: nn.Module, program: ExportedProgram) -> None:
    """Raise TraceError when the module's code fixed a leading dimension."""
    users = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or node.name not in users or not isinstance(value, Tensor):
            continue
        fixed = [k for k in range(_leading(value)) if _is_fixed(value.shape[k])]
        if fixed:
            raise TraceError(
                f"{type(module).__name__}, input {node.name}",
                f"its forward works only with size {value.shape[fixed[0]]} in dimension {fixed[0]}",
                "Take sizes from the input's shape",
            )


def _is_fixed(size: int | torch.SymInt) -> bool:
    return isinstance(size, int) or size.node.maybe_as_int() is not None


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:3])}"
