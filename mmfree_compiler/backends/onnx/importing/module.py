"""An ONNX model as a module of torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from mmfree_compiler.backends.onnx.importing.reading import constants, read_model
from mmfree_compiler.backends.onnx.importing.steps import (
    Call,
    OpStep,
    Step,
    attribute_name,
    call_of,
)
from mmfree_compiler.backends.onnx.importing.values import Value, plain, ternary
from mmfree_compiler.backends.onnx.names import DOMAIN, NEXT, STATE
from mmfree_compiler.backends.onnx.variants import VARIANTS, Variant
from mmfree_compiler.errors import CheckpointError, InputError
from mmfree_compiler.wording import counted, described


class OnnxModule(nn.Module):
    """Runs the nodes of a model in their order, each as a submodule.

    Constants are buffers. States are left out: as in every module, scans begin at zero.
    """

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError; it names all operators that are unknown."""
        super().__init__()
        self.model = read_model(path)
        self.constants, self.nodes = nn.Module(), nn.Module()
        self.known: dict[str, Value] = {"": None}
        self.buffer_of: dict[str, str] = {}
        self.steps: list[tuple[str, Call]] = []
        graph = self.model.graph
        held = dict(constants(path, self.model))
        self.inputs = [x for x in graph.input if x.name not in held and not _is_state(x.name)]
        self.outputs = [x.name for x in graph.output if not _is_state(x.name)]
        functions = {f.name: f for f in self.model.functions if f.domain == DOMAIN}
        calls = [call_of(path, node, functions) for node in graph.node]
        needed = _needed(calls, self.outputs)
        _check_known(path, needed)
        for name in _read(needed, self.outputs, held):
            self._keep(name, plain(ternary(held[name])))
        for node, call in zip(graph.node, calls, strict=True):
            if call in needed:
                self._add(node, call, held)
        del self.model

    def limits(self) -> dict[str, int]:
        """Inputs of token ids -> the number of rows of the smallest table that they index."""
        found: dict[str, int] = {}
        for name, call in self.steps:
            table, ids = self._table(name, call)
            if table is not None:
                found[ids] = min(len(table), found.get(ids, len(table)))
        return found

    def _table(self, name: str, call: Call) -> tuple[Tensor | None, str]:
        """The table that a step reads rows of, and the ids."""
        step = getattr(self.nodes, name)
        if isinstance(step, OpStep):
            given = zip_strict(call.formals, call.operands)
            return getattr(step, "table", None), given.get("ids", "")
        if call.name != "Gather" or call.operands[0] not in self.buffer_of:
            return None, ""
        return getattr(self.constants, self.buffer_of[call.operands[0]]), call.operands[1]

    def _keep(self, name: str, value: Value) -> None:
        if isinstance(value, Tensor):
            key = attribute_name(name.replace("/", "_"), self.buffer_of.values())
            self.buffer_of[name] = key
            self.constants.register_buffer(key, value)
        else:
            self.known[name] = value

    def _add(self, node: onnx.NodeProto, call: Call, held: dict[str, Tensor]) -> None:
        if call.name == "Constant":
            self._keep(call.outputs[0], _constant(call))
            return
        name = attribute_name(node.name or call.outputs[0], self.nodes._modules)
        kind: type[Any] = type(node.op_type, (OpStep if call.formals else Step,), {})
        step = kind(call, held, _variant(self.model)) if call.formals else kind(call)
        self.nodes.add_module(name, step)
        self.steps.append((name, call))

    def forward(self, *rows: Tensor) -> Any:
        if len(rows) != len(self.inputs):
            inputs = counted(len(self.inputs), "input")
            cause = f"are {counted(len(rows), 'tensor')}; the model has {inputs}"
            raise InputError("example_inputs", cause, "Pass one tensor for each")
        values = _Values({**self.known, **zip_strict([x.name for x in self.inputs], rows)})
        values |= {name: getattr(self.constants, key) for name, key in self.buffer_of.items()}
        for name, call in self.steps:
            step = getattr(self.nodes, name)
            operands = call.operands
            if isinstance(step, OpStep):
                given = zip_strict(call.formals, call.operands)
                operands = tuple(given[formal] for formal in step.read)
            made = _run(step, call, *(values[operand] for operand in operands))
            results = made if isinstance(made, tuple | list) and len(call.outputs) > 1 else [made]
            values.update(zip(call.outputs, results, strict=False))
        made = tuple(values[name] for name in self.outputs)
        return made[0] if len(made) == 1 else made


class _Values(dict[str, Value]):
    """Values by name. What no step makes is the state after a scan."""

    def __missing__(self, name: str) -> Value:
        cause = "is read as a row, but is a state, which importing leaves out"
        raise CheckpointError(f"value {name!r}", cause, "Export the model again")


def _run(step: nn.Module, call: Call, *operands: Value) -> Value:
    """What a step makes. Raises CheckpointError where it fails, but for torch.export."""
    try:
        return step(*operands)
    except Exception as error:  # torch raises many types
        if torch.compiler.is_exporting():
            raise
        cause = f"fails: {described(error)}"
        hint = "Check the model in ONNX Runtime, or pass example_inputs that it takes"
        raise CheckpointError(f"{call.node} ({call.name})", cause, hint) from error


def zip_strict(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


def _needed(calls: Sequence[Call], outputs: Sequence[str]) -> list[Call]:
    """The calls that the outputs depend on, in order."""
    wanted, needed = set(outputs), []
    for call in reversed(calls):
        if wanted & set(call.outputs):
            wanted |= set(call.rows)
            needed.append(call)
    return needed[::-1]


def _read(calls: Sequence[Call], outputs: Sequence[str], held: dict[str, Tensor]) -> Iterator[str]:
    """The constants that operators read; a function of this package keeps its own."""
    read = {x for call in calls if not call.formals for x in call.operands} | set(outputs)
    yield from (name for name in held if name in read)


def _check_known(path: Path, needed: Sequence[Call]) -> None:
    unknown = [call for call in needed if not call.is_known and call.name != "Constant"]
    if unknown:
        listed = "\n".join(f"  {call.name} ({call.node})" for call in unknown)
        thing = f"{path}: {counted(len(unknown), 'operator')}"
        raise CheckpointError(thing, f"not known:\n{listed}", "Write the model without them")


def _constant(call: Call) -> Value:
    """The value of a Constant node, in whichever attribute it is."""
    (name,) = (name for name in call.attributes if name.startswith("value"))
    value = call.attributes[name]
    return plain(value) if isinstance(value, Tensor) else value


def _variant(model: onnx.ModelProto) -> Variant:
    """The variant that this package made the model in."""
    domains = {x.domain for x in model.opset_import}
    found = [v for v in VARIANTS.values() if {name for name, _ in v.domains} <= domains]
    return max(found, key=lambda variant: len(variant.domains))


def _is_state(name: str) -> bool:
    return name.startswith((f"{STATE}.", f"{NEXT}."))
