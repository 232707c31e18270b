"""This package's own functions in a model that it exported: each is an op of the table again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmfree_compiler.backends.onnx.importing.values import Value
from mmfree_compiler.backends.onnx.names import REST_WEIGHT, op_of
from mmfree_compiler.backends.onnx.variants import Variant
from mmfree_compiler.ops import OPS
from mmfree_compiler.ops.table import Parameter

Given = Mapping[str, Any]


def call_op(function: str, given: Given, attributes: Given) -> Value:
    """Call the op that `function` computes.

    `given` are its operands, as compile/ passes them, by the names of the function's inputs. A
    scan begins at a state of zeros: lowering gives it one.
    """
    op = OPS[op_of(function)]
    arguments = [_argument(parameter, given, attributes) for parameter in op.parameters]
    return op.overload(*arguments)


def prepared(function: str, given: Given, attributes: Given, variant: Variant) -> dict[str, Tensor]:
    """The constants among `given` as the op takes them."""
    back = _BACK.get(op_of(function))
    return dict(back(given, attributes, variant) if back else given)


def _argument(parameter: Parameter, given: Given, attributes: Given) -> Value:
    if parameter.form == "scalar":
        return attributes[parameter.name]
    if parameter.form == "tensors":
        return list(given[parameter.name])
    return given.get(parameter.name)


def _norm_quant(given: Given, attributes: Given, _: Variant) -> dict[str, Tensor]:
    """Weights come in a stack for all rows: the outer norm's for all but the first."""
    inners = given["inners"].flatten(1)[-attributes["groups"] :]
    outer = {"outer": given["outer"].flatten(1)[1]} if "outer" in given else {}
    return outer | {"inners": inners}


def _ternary_linear(given: Given, attributes: Given, variant: Variant) -> dict[str, Tensor]:
    shape = attributes["rows"], attributes["columns"]
    stored = [given[name].reshape(-1).numpy().view(np.uint8) for name in _STORED if name in given]
    codes = variant.layout.unpack(np.concatenate(stored), shape)
    kept = {name: x for name, x in given.items() if name not in (*_STORED, "block_scales")}
    return kept | {"weight": torch.from_numpy(codes)}


def _short_conv(given: Given, _: Given, __: Variant) -> dict[str, Tensor]:
    """The taps come one by one."""
    taps = [given[name] for name in sorted(given) if name.startswith("weight")]
    kept = {name: x for name, x in given.items() if not name.startswith("weight")}
    return kept | {"weight": torch.stack(taps, 1)}


def _mlgru_gates(given: Given, _: Given, __: Variant) -> dict[str, Tensor]:
    return {name: x for name, x in given.items() if name != "rest"}


_STORED = "weight", REST_WEIGHT
_BACK: dict[str, Callable[[Given, Given, Variant], dict[str, Tensor]]] = {
    "mlgru_gates": _mlgru_gates,
    "norm_quant": _norm_quant,
    "short_conv": _short_conv,
    "ternary_linear": _ternary_linear,
}
