"""A Program as text: for MMFREE_DEBUG=2 and for the passes' golden tests."""

from __future__ import annotations

from collections.abc import Iterator

from mmfree_compiler.program import Loop, Node, Program, Stage


def listing(program: Program) -> str:
    """Signature, body, constants, states and a backend's details, one per line."""
    return "\n".join(_lines(program))


def _lines(program: Program) -> Iterator[str]:
    inputs = ", ".join(_value(program, name) for name in program.inputs)
    outputs = ", ".join(_value(program, name) for name in program.outputs)
    yield f"{program.kind} ({inputs}) -> ({outputs})"
    for step in program.body:
        yield from _loop(program, step) if isinstance(step, Loop) else _stage(program, step, "  ")
    for constant in program.constants.values():
        count = f" x{len(constant.parts)}" if len(constant.parts) > 1 else ""
        kind = f"{constant.dtype}{list(constant.shape)}{count}"
        yield f"  constant {constant.name}: {kind} {constant.role} {constant.layout.name}"
    for slot in program.states:
        count = f" x{slot.count}" if slot.count > 1 else ""
        grows = " per position" if slot.grows else ""
        yield f"  state {slot.name}: float32{list(slot.shape)}{count}{grows}"
    yield from (f"  {line}" for line in program.details())


def _loop(program: Program, loop: Loop) -> Iterator[str]:
    yield f"  loop {loop.count}"
    for (initial, inside), update, result in zip(
        loop.carried, loop.updates, loop.results, strict=True
    ):
        yield f"    carry {inside} = {initial}, then {update}; after: {result}"
    for stage in loop.body:
        yield from _stage(program, stage, "    ")


def _stage(program: Program, stage: Stage, indent: str) -> Iterator[str]:
    yield f"{indent}stage"
    for kind, nodes in (("row ", stage.rows), ("tile", stage.tiles)):
        yield from (f"{indent}  {kind} {_node(program, node)}" for node in nodes)


def _node(program: Program, node: Node) -> str:
    outputs = ", ".join(_value(program, name) for name in node.outputs)
    operands = ", ".join(str(name) for name in node.inputs)
    attrs = "".join(f", {name}={value}" for name, value in node.attrs.items())
    state = f" state {node.state}" if node.state else ""
    return f"{outputs} = {node.op}({operands}{attrs}){state}"


def _value(program: Program, name: str) -> str:
    value = program.values[name]
    return f"{name}: {value.dtype}[{value.width}]"
