"""Attacks on ONNX models: what is compiled from one, and what this package wrote to one."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import mmfree_compiler as mmf
from fuzz import texts
from fuzz.attempt import Attack, Attempt
from fuzz.samples import samples
from mmfree_compiler.artifact import Port

WIDTH, OUT = 8, 5
OPERATORS = (
    *("Abs", "Add", "Cast", "Clip", "Concat", "Expand", "Gather", "Gemm", "If", "Identity"),
    *("Loop", "MatMul", "Max", "Mul", "Pow", "ReduceMax", "Reshape", "Scan", "Shape", "Slice"),
    *("Split", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where", "NoSuchOperator", ""),
)
NUMBERS = (0, 1, -1, 2, 3, 127, -128, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63))


@cache
def _foreign() -> bytes:
    """A BitLinear as torch exports it, behind a norm and a reshape."""
    node = helper.make_node
    names = {"x3": "r", "codes": "c", "scale": "s"}
    nodes = [
        node("Mul", ["x", "x"], ["squares"], "square"),
        node("ReduceMean", ["squares", "last"], ["mean"], "mean", keepdims=1),
        node("Add", ["mean", "eps"], ["shifted"], "eps"),
        node("Sqrt", ["shifted"], ["root"], "root"),
        node("Div", ["x", "root"], ["normed"], "norm"),
        node("Mul", ["normed", "gain"], ["rows"], "gain"),
        node("Abs", ["rows"], ["sizes"], "abs"),
        node("ReduceMax", ["sizes", "last"], ["peak"], "peak", keepdims=1),
        node("Clip", ["peak", "least", ""], ["bounded"], "bound"),
        node("Div", ["top", "bounded"], [names["scale"]], "scale"),
        node("Mul", ["rows", "s"], ["scaled"], "scaled"),
        node("Round", ["scaled"], ["rounded"], "round"),
        node("Clip", ["rounded", "low", "high"], [names["codes"]], "clip"),
        node("Div", ["c", "s"], ["back"], "back"),
        node("MatMul", ["back", "weight"], ["product"], "product"),
        node("Shape", ["product"], ["shape"], "shape"),
        node("Reshape", ["product", "shape"], ["y"], "reshape"),
    ]
    rng = np.random.default_rng(0)
    numbers = {"eps": 1e-6, "least": 1e-5, "top": 127.0, "low": -128.0, "high": 127.0}
    held: dict[str, Any] = {name: np.float32(value) for name, value in numbers.items()}
    held["last"] = np.array([-1])
    held["gain"] = rng.uniform(0.5, 1.5, WIDTH).astype(np.float32)
    held["weight"] = rng.integers(-1, 2, (WIDTH, OUT)).astype(np.float32) * np.float32(0.5)
    shapes: dict[str, list[str | int | None]] = {
        name: ["batch", "time", width] for name, width in (("x", WIDTH), ("y", OUT))
    }
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    initializers = [numpy_helper.from_array(np.asarray(v), n) for n, v in held.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], initializers)
    opsets = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def _bytes(rng: random.Random, folder: Path) -> Attempt:
    """Bytes of a model of others."""
    path = folder / "model.onnx"
    path.write_bytes(texts.mutated(rng, _foreign()))
    return Attempt("bytes", lambda: _compiled(path))


def _fields(rng: random.Random, folder: Path) -> Attempt:
    """Some fields of a model of others, which stays a protocol buffer."""
    return _changed(rng, folder, _foreign())


def _own_fields(rng: random.Random, folder: Path) -> Attempt:
    """As `_fields`, of a model that this package wrote: its functions become ops again."""
    return _changed(rng, folder, samples().onnx.read_bytes())


def _changed(rng: random.Random, folder: Path, data: bytes) -> Attempt:
    model = onnx.load_from_string(data)
    changes = [rng.choice(_CHANGES)(rng, model) for _ in range(rng.randint(1, 3))]
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return Attempt("; ".join(changes), lambda: _compiled(path))


def _operand(rng: random.Random, model: onnx.ModelProto) -> str:
    node, other = rng.choice(model.graph.node), rng.choice(model.graph.node)
    name = rng.choice([*other.input, *other.output, "", "nowhere"])
    side = rng.choice([node.input, node.output])
    side[rng.randrange(len(side))] = name
    return f"an operand of {node.name} is {name!r}"


def _operator(rng: random.Random, model: onnx.ModelProto) -> str:
    node = rng.choice(model.graph.node)
    node.op_type = rng.choice(OPERATORS)
    node.domain = rng.choice(["", "", "", "com.microsoft", "mmfree", "elsewhere"])
    return f"{node.name} is {node.domain}.{node.op_type}"


def _attribute(rng: random.Random, model: onnx.ModelProto) -> str:
    node = rng.choice(model.graph.node)
    name = rng.choice(["axis", "axes", "keepdims", "perm", "to", "epsilon", "value", "min", "body"])
    made = AttributeProto(name=name, type=rng.choice(AttributeProto.AttributeType.values()))
    made.i, made.f = rng.choice(NUMBERS), rng.choice([0.0, float("nan"), 1e30])
    made.ints.extend(rng.choices(NUMBERS, k=rng.randint(0, 3)))
    node.attribute.append(made)
    return f"{node.name} has {name} of type {made.type}"


def _number(rng: random.Random, model: onnx.ModelProto) -> str:
    """An attribute that a node has."""
    node = rng.choice([node for node in model.graph.node if node.attribute])
    attribute = rng.choice(node.attribute)
    attribute.i, attribute.f = rng.choice(NUMBERS), rng.choice([0.0, -1.0, float("nan"), 1e30])
    return f"{node.name} has another {attribute.name}"


def _tensor(rng: random.Random, model: onnx.ModelProto) -> str:
    tensor = rng.choice(model.graph.initializer)
    how = rng.randrange(4)
    if how == 0:
        tensor.data_type = rng.randrange(30)
    elif how == 1:
        del tensor.dims[:]
        tensor.dims.extend(rng.choices(NUMBERS, k=rng.randint(0, 4)))
    elif how == 2:
        tensor.raw_data = rng.randbytes(rng.randint(0, 2 * len(tensor.raw_data)))
    else:
        tensor.data_location = TensorProto.EXTERNAL
        place = rng.choice(["../model.onnx", "model.onnx", "/", "", "\0", "a" * 5000])
        for key, value in (("location", place), ("offset", str(rng.choice(NUMBERS)))):
            tensor.external_data.add(key=key, value=value)
    return f"tensor {tensor.name}, {how}"


def _port(rng: random.Random, model: onnx.ModelProto) -> str:
    port = rng.choice([*model.graph.input, *model.graph.output])
    kind = port.type.tensor_type
    if rng.random() < 0.3:
        kind.elem_type = rng.randrange(30)
    elif rng.random() < 0.3:
        del kind.shape.dim[:]
    else:
        rng.choice([*kind.shape.dim, kind.shape.dim.add()]).dim_value = rng.choice(NUMBERS)
    return f"port {port.name}"


def _nodes(rng: random.Random, model: onnx.ModelProto) -> str:
    nodes = list(model.graph.node)
    rng.shuffle(nodes) if rng.random() < 0.5 else nodes.pop(rng.randrange(len(nodes)))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return "nodes in another order, or without one"


def _version(rng: random.Random, model: onnx.ModelProto) -> str:
    model.opset_import[0].version = rng.choice([*NUMBERS, 11, 13, 17, 22, 28])
    model.ir_version = rng.choice([3, 8, 13, 99, 0])
    return f"opset {model.opset_import[0].version}, IR {model.ir_version}"


_CHANGES = (_operand, _operator, _attribute, _number, _tensor, _port, _nodes, _version)


def _compiled(path: Path) -> str:
    """Compile for the target whose ops are in torch, and run."""
    compiled = mmf.compile(path, "reference", check=False)
    compiled(*map(_rows, compiled.artifact.manifest.inputs))
    return "accepted"


def _rows(port: Port) -> torch.Tensor:
    """What an input takes."""
    is_ids = port.dtype == "int64"
    return torch.zeros(2, 3, dtype=torch.int64) if is_ids else torch.ones(2, 3, port.width)


def _own(rng: random.Random, folder: Path) -> Attempt:
    """A file that this package wrote: whatever changes in it, it is refused."""
    data = samples().onnx.read_bytes()
    path = folder / "model.onnx"
    path.write_bytes(changed := texts.mutated(rng, data))
    return Attempt("bytes", lambda: _loaded(path, changed == data))


def _loaded(path: Path, same: bool) -> str:
    mmf.load(path, verify=True)
    return "same" if same else "wrong"


ATTACKS: dict[str, tuple[float, Attack]] = {
    "onnx bytes": (2, _bytes),
    "onnx fields": (6, _fields),
    "onnx of ours": (1, _own),
    "onnx fields of ours": (1, _own_fields),
}
