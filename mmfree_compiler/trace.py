"""From any nn.Module to a functional ATen graph that shares the module's parameters."""

from __future__ import annotations

import inspect
import operator
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from mmfree_compiler import ops
from mmfree_compiler.errors import InputError, TraceError

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
        with torch.no_grad():  # a third less time: nothing is recorded for a backward pass
            return _functional(_export(module, example_inputs, dynamic))
    finally:
        for part, training in modes.items():
            part.training = training


def _export(
    module: nn.Module, example_inputs: tuple[Tensor, ...], dynamic: bool
) -> ExportedProgram:
    inputs = tuple(_grown(x) for x in example_inputs) if dynamic else example_inputs
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


# --- in-place operations ------------------------------------------------------------------------


def _functional(program: ExportedProgram) -> GraphModule:
    """The program's graph without in-place operations.

    Writes into fresh values (`x.abs().amax(-1).clamp_(min=1e-5)`) are renamed in one sweep;
    export's own functionalization takes several times as long as the export, so that only graphs
    that write through views or casts pay for it.
    """
    if any(_writes(node) and not _is_fresh(node.args[0]) for node in program.graph.nodes):
        program = program.run_decompositions({})
    gm = program.module(check_guards=False)
    assert isinstance(gm, GraphModule)
    latest: dict[Node, Node] = {}

    def newest(node: Node) -> Node:
        while node in latest:
            node = latest[node]
        return node

    for node in gm.graph.nodes:
        node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), newest)
        if node.target in _FUNCTIONAL:
            latest[node.args[0]] = node
            node.target = _FUNCTIONAL[node.target]
    gm.recompile()
    return gm


def _writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_fresh(node: Any) -> bool:
    """Whether nothing but `node` itself sees a write into it."""
    return (
        isinstance(node, Node)
        and node.op == "call_function"
        and not _aliases(node)
        and not any(_aliases(user) for user in node.users if not _writes(user))
    )


def _aliases(node: Node) -> bool:
    """Whether the result may share the storage of an operand that it does not write."""
    if node.target is operator.getitem:
        return isinstance(node.args[0], Node) and _aliases(node.args[0])
    if not isinstance(node.target, torch._ops.OpOverload) or _writes(node):
        return False
    return any(result.alias_info is not None for result in node.target._schema.returns)


def _pairs() -> dict[Any, Any]:
    """In-place overload -> the functional one, for the names that models use."""
    names = (
        "abs add clamp clamp_min clamp_max detach div exp mul neg reciprocal relu round rsqrt "
        "sigmoid silu sqrt square sub tanh"
    )
    pairs: dict[Any, Any] = {}
    for name in names.split():
        inplace, functional = getattr(torch.ops.aten, name + "_"), getattr(torch.ops.aten, name)
        for overload in inplace.overloads():
            if overload in functional.overloads():
                pairs[getattr(inplace, overload)] = getattr(functional, overload)
    return pairs


_FUNCTIONAL = _pairs()
