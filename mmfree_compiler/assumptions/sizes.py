"""Sizes: a graph must hold for every batch and time, 1 included.

torch.export traces with sizes that are symbols. Wherever the code asks about one (`x.shape[1] ==
1`, `range(x.shape[1])`), export goes on with the answer for the example and records a guard.
Usually it also takes for granted that no size is 1, and that equal sizes are the same; within
`unknown` it does neither. So the guards are all that was decided about sizes. Some come from
torch itself, which asks whether a size is 1 to know the strides of a result. Strides decide where
values are, not what they are, unless something is written in place.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from unittest import mock

from torch import SymInt, Tensor, fx
from torch._guards import ShapeGuard, SLoc
from torch.export import ExportedProgram
from torch.fx.experimental import _config
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.printers import PythonPrinter

from mmfree_compiler.assumptions.operations import graph_nodes
from mmfree_compiler.errors import TraceError
from mmfree_compiler.origin import place_of, running_line

_HINT = "Compute the same for every batch and time, and take sizes from the input's shape"
_BY_TORCH = "by torch"
_OPERATIONS = ("torch._ops", "torch._decomp", "torch._refs", "torch._prims", "torch._subclasses")
_QUESTIONS = (Tensor.is_contiguous, Tensor.stride)
_SQUEEZES = ("aten::squeeze", "aten::squeeze_", "aten::squeeze_copy")


@contextmanager
def unknown() -> Iterator[None]:
    """Trace without guesses about sizes; guards know the line of the model that asked."""
    located = mock.patch.object(ShapeEnv, "_get_sloc", _located)
    with _config.patch(backed_size_oblivious=True, use_duck_shape=False), located:  # type: ignore[attr-defined]
        yield


def _located(env: ShapeEnv, framework_loc: str | None = None) -> SLoc:  # noqa: ARG001
    return SLoc(_BY_TORCH if _asked_by_torch() else None, running_line())


def _asked_by_torch() -> bool:
    """Whether an operation asks about a size now, rather than Python code about a shape."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "guard_bool":
        frame = frame.f_back
    asking = frame.f_back if frame else None
    if asking is None:
        return False
    if asking.f_code.co_name == "__torch_function__":
        return asking.f_locals.get("func") not in _QUESTIONS
    return str(asking.f_globals.get("__name__")).startswith(_OPERATIONS)


def check_sizes(program: ExportedProgram, aliased: bool) -> None:
    """Raise TraceError if the graph holds for some sizes only. It was traced within `unknown`.

    `aliased` says whether it writes in place where other values may see it.
    """
    env = _shape_env(program)
    for guard in env.guards if env else ():
        if not _ties_inputs(guard.expr, env) and (aliased or not _is_of_strides(guard)):
            cause = f"holds for some sizes only: traced where {_condition(guard.expr, env)}"
            raise TraceError(guard.sloc.maybe_user_loc or "forward", cause, _HINT)
    for node in graph_nodes(program):
        if _squeezes_unknown(node):
            cause = "drops a dimension only where its size is 1"
            raise TraceError(place_of(node), cause, _HINT)


def _shape_env(program: ExportedProgram) -> Any:
    values = (node.meta.get("val") for node in program.graph.find_nodes(op="placeholder"))
    modes = (getattr(value, "fake_mode", None) for value in values)
    return next((mode.shape_env for mode in modes if mode), None)


def _is_of_strides(guard: ShapeGuard) -> bool:
    """Whether torch asked it to know strides: is a size other than 1?"""
    condition: Any = guard.expr
    if guard.sloc.framework_loc != _BY_TORCH or getattr(condition, "rel_op", "") != "!=":
        return False
    ones = dict.fromkeys(condition.free_symbols, 1)
    return bool(condition.lhs.subs(ones) == condition.rhs.subs(ones))


def _ties_inputs(condition: Any, env: ShapeEnv) -> bool:
    """Whether it says that two inputs have one batch, or one time: every session checks that."""
    if getattr(condition, "rel_op", "") != "==" or not all(x.is_Symbol for x in condition.args):
        return False
    one, other = (env.var_to_sources[symbol][0] for symbol in condition.args)
    tied: bool = one.idx == other.idx and one.base != other.base  # type: ignore[attr-defined]
    return tied


def _condition(condition: Any, env: ShapeEnv) -> str:
    """The condition in the words of Python, such as "x.shape[1] != 1"."""
    text = str(PythonPrinter().doprint(condition))
    for symbol in condition.free_symbols:
        for source in env.var_to_sources.get(symbol, ())[:1]:
            name = re.sub(r"^L\['(\w+)'\]", r"\1", source.base.name)  # type: ignore[attr-defined]
            text = re.sub(rf"\b{symbol}\b", f"{name}.shape[{source.idx}]", text)  # type: ignore[attr-defined]
    return text


def _squeezes_unknown(node: fx.Node) -> bool:
    """Whether a squeeze may drop a dimension whose size is not known."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.name not in _SQUEEZES:
        return False
    sizes = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    dims: Any = node.args[1] if len(node.args) > 1 else range(len(sizes))
    return any(isinstance(sizes[k], SymInt) for k in ([dims] if isinstance(dims, int) else dims))
