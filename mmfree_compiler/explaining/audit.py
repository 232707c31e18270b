"""The search for products of float matrices that were not replaced by ternary ones."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mmfree_compiler.explaining.schema import Audit, FloatProduct
from mmfree_compiler.modes import calling
from mmfree_compiler.origin import made_by, running_line, running_module
from mmfree_compiler.passes.pattern import aten

# Products that torch's counter of operations does not know: it counts what they are made of, or
# they are one kernel.
_COMPOSED = (
    "linear bilinear _trilinear matmul linalg_matmul einsum tensordot inner dot vdot linalg_vecdot"
    " mv addmv addbmm _addmm_activation _grouped_mm chain_matmul linalg_multi_dot matrix_power"
    " linalg_matrix_power smm conv1d conv2d conv3d conv_transpose1d conv_transpose2d"
    " conv_transpose3d conv_tbc mkldnn_convolution lstm gru rnn_tanh rnn_relu mkldnn_rnn_layer"
    " _cudnn_rnn miopen_rnn lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"
    " scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu"
    " _native_multi_head_attention _transformer_encoder_layer_fwd"
)
PRODUCTS: frozenset[Any] = frozenset(
    # Passes split it into a quantizer and a ternary product, if its weight is ternary.
    {
        *flop_registry,
        *(getattr(aten, name) for name in _COMPOSED.split()),
        torch.ops.mmfree.bit_linear,
    }
)
_IN_TORCH = "seen in a call of the module in torch: it has no graph"
_WHY = "it was not recognized as a product of int8 codes and ternary weights"


def audit_graph(graph: GraphModule) -> Audit:
    """The products of float matrices among the calls of a graph and of the graphs that it calls."""
    calls = [
        node
        for part in graph.modules()
        if isinstance(part, GraphModule)
        for node in part.graph.nodes
        if node.op == "call_function"
    ]
    found = (_left(node) for node in calls if is_float_product(node))
    return Audit(where="graph", examined=len(calls), products=tuple(found))


def audit_run(module: nn.Module, inputs: tuple[Tensor, ...]) -> Audit | None:
    """The products among the operations of a call of `module`, which has no graph.

    A copy runs, which may change itself. None if there is none, or if it does not run on `inputs`.
    """
    try:
        own = copy.deepcopy(module)
        watch = _Watch(own)
        with torch.no_grad(), calling(own), watch:
            own(*(x.clone() for x in inputs))
    except Exception:  # a third party's forward may raise anything
        return None
    return Audit(where="call", examined=watch.examined, products=tuple(watch.found))


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the products of float matrices that run, once for each module and line of a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self.examined = 0
        self.found: dict[FloatProduct, None] = {}  # in their order

    def __torch_dispatch__(
        self, func: Any, _: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.examined += 1
        floats = [x for x in args if isinstance(x, Tensor) and x.is_floating_point()]
        if func.overloadpacket in PRODUCTS and floats:
            module, line = running_module(self.model), running_line()
            product = FloatProduct(
                op=str(func).removesuffix(".default"),
                node="",
                module=module,
                source="" if line == module else line,  # as in a model that was read from a file
                why=_IN_TORCH,
            )
            self.found[product] = None
        return func(*args, **(kwargs or {}))


def is_float_product(node: Node) -> bool:
    """Whether a call multiplies matrices in floating point."""
    packet = getattr(node.target, "overloadpacket", None)
    return packet in PRODUCTS and any(map(_is_float, node.all_input_nodes))


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def _left(node: Node) -> FloatProduct:
    module, line = made_by(node)
    return FloatProduct(
        op=str(node.target).removesuffix(".default"),
        node=node.name,
        module=module,
        source=line,
        why=str(node.meta.get("reason", _WHY)),
    )
